"""The output of a run: a long task says its name while it runs, a failure says its message once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from callback_plugins.plain import plain

ROOT = Path(__file__).parents[2]
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Pass by
      ansible.builtin.assert: {that: true, quiet: true}
    - name: Take long, iris
      ansible.builtin.command: sleep 2
      changed_when: false
    - name: Take long and be skipped
      ansible.builtin.debug: {msg: x}
      when: false
    - name: Check it
      ansible.builtin.assert:
        that: false
        fail_msg: "replicas is two.\\nAllowed: 1 to 100."
        quiet: true
"""
FILTER = """
from ansible.errors import AnsibleFilterError
def refused(value):
    raise AnsibleFilterError("served_models has 1 problem:\\n- name is 'x'")
class FilterModule:
    def filters(self):
        return {"refused": refused}
"""


def run(place: Path, play: str, *arguments: str) -> tuple[str, list[tuple[float, str]]]:
    """Run a play with this repository's settings; all it prints, and each line with the second in which it came."""
    (place / "play.yml").write_text(play)
    (place / "filter_plugins").mkdir(exist_ok=True)
    (place / "filter_plugins/refused.py").write_text(FILTER)
    plain_environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = plain_environment | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CALLBACKS_ENABLED": "phases",
        "ANSIBLE_PLAIN_HEADING_AFTER": "0.3",
        "ANSIBLE_PLAIN_AGAIN_AFTER": "0.5",
        "ANSIBLE_FORCE_COLOR": "false",
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "play.yml", *arguments]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        lines = [(time.monotonic(), line.rstrip()) for line in process.stdout]
    return "\n".join(line for _, line in lines), lines


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[tuple[float, str]]]:
    return run(tmp_path_factory.mktemp("long"), PLAY)


def when(lines: list[tuple[float, str]], words: str, after: float = 0) -> float:
    return next(second for second, line in lines if words in line and second > after)


def test_a_long_task_says_its_name_while_it_runs(said: tuple[str, list[tuple[float, str]]]) -> None:
    text, lines = said
    heading = when(lines, "TASK [Take long, iris]")
    assert when(lines, "ok: [localhost]", heading) - heading > 1
    assert text.count("TASK [Take long, iris]") == 1
    assert heading < when(lines, "  ... ") < when(lines, "  took ", heading)
    assert text.count("  took ") >= 1


def test_a_skipped_task_says_nothing(said: tuple[str, list[tuple[float, str]]]) -> None:
    assert "be skipped" not in said[0]


def test_a_failure_says_its_message_once(said: tuple[str, list[tuple[float, str]]]) -> None:
    text, _ = said
    assert text.count("replicas is two.") == 1
    assert text.count("fatal: [localhost]") == 1
    assert "[ERROR]" not in text
    assert "evaluated_to" not in text


def test_a_filter_says_its_message_without_wrapping_and_verbose_shows_all(tmp_path: Path) -> None:
    play = '- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n    - ansible.builtin.debug: {msg: "{{ 1 | refused }}"}\n'
    text, _ = run(tmp_path, play)
    assert text.count("served_models has 1 problem:") == 1
    assert "Finalization" not in text
    assert "filter plugin" not in text
    verbose, _ = run(tmp_path, play, "-v")
    assert "Origin: " in verbose


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("replicas is two", "replicas is two"),
        ("Task failed: Action failed: no", "no"),
        (
            "Finalization of task args for 'ansible.builtin.assert' failed: Error while resolving value for 'fail_msg': The filter plugin 'x' failed: no",
            "no",
        ),
        ("\x1b[91merror\x1b[0m: no such package", "error: no such package"),
    ],
)
def test_only_the_message_is_left(message: str, left: str) -> None:
    result: dict[str, Any] = {"msg": message, "exception": "(traceback)", "argument_spec_data": {}, "rc": 1}
    plain(result)
    assert result == {"msg": left, "rc": 1}


@pytest.mark.parametrize(
    "result",
    [
        {
            "msg": "Finalization of task args for 'debug' failed: Error while resolving value for 'msg': 'x' is undefined",
            "exception": "(traceback)",
        },
        {"exception": "(traceback)", "censored": "the output has been hidden"},
    ],
)
def test_where_a_template_is_wrong_stays(result: dict[str, Any]) -> None:
    before = dict(result)
    plain(result)
    assert result == before
