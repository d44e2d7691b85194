"""The runner that kills a playbook, against programs that print what Ansible prints."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pace import slowness, too_late

from bench import kill

TALK = """
import sys, time
print("PLAY [Serve] ****", flush=True)
for number in range(1, 6):
    print(f"TASK [serving : Step {number}] ****", flush=True)
    time.sleep(float(sys.argv[1]))
    print("ok: [localhost]", flush=True)
"""


def talk() -> list[str]:
    # Long enough for a task to be noticed and killed, on a busy machine too.
    return [sys.executable, "-c", TALK, str(0.15 * slowness())]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_run_is_killed_in_the_task_it_should(after: int) -> None:
    ended = kill.run(talk(), after=after, delay=0.05)
    assert ended.killed
    assert ended.code == -9
    assert ended.tasks == [f"serving : Step {number}" for number in range(1, after + 1)]


def test_a_task_can_be_named() -> None:
    ended = kill.run(talk(), at="Step 4", delay=0.05)
    assert (ended.killed, len(ended.tasks)) == (True, 4)


@pytest.mark.parametrize("after", [0, 6])
def test_a_run_with_fewer_tasks_ends_by_itself(after: int) -> None:
    ended = kill.run(talk(), after=after)
    assert (ended.killed, ended.code, len(ended.tasks)) == (False, 0, 5)


def test_a_run_that_ends_before_the_kill_is_not_waited_for() -> None:
    began = time.monotonic()
    ended = kill.run(talk(), after=5, delay=20)
    assert not ended.killed
    assert not too_late(began, 10)


def family(pids: Path) -> list[str]:
    """A program whose child has a session of its own, as Ansible's workers have, and holds the pipe open."""
    inner = f"import os, time; open({str(pids)!r}, 'w').write(str(os.getpid())); time.sleep(30)"
    outer = (
        "import subprocess, sys, time, pathlib;"
        f"subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True);"
        f"[time.sleep(0.02) for _ in range(500) if not (pathlib.Path({str(pids)!r}).exists() and pathlib.Path({str(pids)!r}).read_text())];"
        "print('TASK [x] ***', flush=True); time.sleep(30)"
    )
    return [sys.executable, "-c", outer]


@pytest.mark.parametrize("tree", [True, False])
def test_what_a_run_started_dies_with_it_or_goes_on(tmp_path: Path, *, tree: bool) -> None:
    pids = tmp_path / "pid"
    began = time.monotonic()
    ended = kill.run(family(pids), after=1, delay=0.05, tree=tree)
    child = int(pids.read_text())
    try:
        assert ended.killed
        # A signal is on its way for a moment on a busy machine.
        for _ in range(100):
            if tree and alive(child):
                time.sleep(0.05)
        assert alive(child) is not tree
        assert time.monotonic() - began < 25
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 9)


def test_descendants_are_found_whatever_their_names(tmp_path: Path) -> None:
    for pid, parent, name in [(1, 0, "init"), (7, 1, "a) R 1 (b"), (8, 7, "x y"), (9, 8, "z"), (10, 1, "other")]:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0")
    assert sorted(kill.descendants(7, tmp_path)) == [7, 8, 9]


def test_names_of_tasks_are_read_from_the_output() -> None:
    assert kill.task_name("TASK [image : Build the image x:v2-ab] *****\n") == "image : Build the image x:v2-ab"
    assert kill.task_name("RUNNING HANDLER [edge : Reload the edge] ***") == "edge : Reload the edge"
    assert kill.task_name("ok: [localhost] => (item=TASK [x] ***)") is None


def test_the_program_prints_how_the_run_ended() -> None:
    asked = json.dumps({"after": 2, "delay": 0.01, "tree": True})
    ran = subprocess.run(
        [sys.executable, "-I", "-S", kill.__file__, asked, *talk()], capture_output=True, text=True, check=True
    )
    last = json.loads(ran.stdout.splitlines()[-1])
    assert (last["killed"], last["code"], len(last["tasks"])) == (True, -9, 2)
