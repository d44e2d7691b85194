"""What Ansible does anew for each task or run is done once: loading filters, packing modules."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callback_plugins import module_cache

ROOT = Path(__file__).parents[2]
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - said:
      register: first
    - debug: {msg: "module said {{ first.word | counted }}"}
    - debug: {msg: "again {{ 'x' | counted }}"}
"""
MODULE = """
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({})
module.exit_json(word="WORD")
"""
FILTER = """
import os
with open(os.environ["LOADED"], "a") as file:
    file.write("x")
class FilterModule:
    def filters(self):
        return {"counted": lambda text: text}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of one module, one filter and one play, with this one's plug-ins."""
    for name in ("library", "filter_plugins", "module_utils"):
        (tmp_path / name).mkdir()
    for name in ("callback_plugins", "vars_plugins"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "library/said.py").write_text(MODULE)
    (tmp_path / "filter_plugins/counted.py").write_text(FILTER)
    settings = (ROOT / "ansible.cfg").read_text()
    (tmp_path / "ansible.cfg").write_text(settings.replace("inventory = inventory/local", "localhost_warning = false"))
    return tmp_path


def run(project: Path, enabled: str) -> str:
    """Run the play with these callback plug-ins; the output."""
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(project / "ansible.cfg"),
        "ANSIBLE_CALLBACKS_ENABLED": enabled,
        "LOADED": str(project / "loaded"),
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "play.yml"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return done.stdout


def test_filters_are_loaded_once_in_a_run(project: Path) -> None:
    assert "again x" in run(project, "preload")
    assert (project / "loaded").read_text() == "x"


def test_they_would_be_loaded_for_each_task(project: Path) -> None:
    run(project, "phases")
    assert len((project / "loaded").read_text()) > 1


def test_a_module_is_packed_once_and_again_when_it_changes(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The plug-in keeps what it packs beside itself: here in a directory of the test's.
    place = tmp_path_factory.mktemp("repository")
    (project / "callback_plugins").unlink()
    (project / "callback_plugins").symlink_to(place / "callback_plugins")
    (place / "callback_plugins").mkdir()
    for name in ("module_cache.py", "plain.py"):
        (place / "callback_plugins" / name).write_text((ROOT / "callback_plugins" / name).read_text())
    assert "module said WORD" in run(project, "module_cache")
    [kept] = (place / ".cache/modules").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o700
    [packed] = [path for path in kept.iterdir() if "said" in path.name and path.suffix != ".lock"]
    before = packed.stat()
    assert "module said WORD" in run(project, "module_cache")
    assert packed.stat().st_ino == before.st_ino
    (project / "library/said.py").write_text(MODULE.replace("WORD", "another"))
    assert "module said another" in run(project, "module_cache")
    assert len(list((place / ".cache/modules").iterdir())) == 2


def test_what_was_not_used_for_a_week_goes(tmp_path: Path) -> None:
    old, used = tmp_path / "modules/old", tmp_path / "modules/used"
    for directory in (old, used):
        directory.mkdir(parents=True)
        (directory / "a module").touch()
    os.utime(old, (0, time.time() - module_cache.WEEK - 1))
    module_cache.keep(used, tmp_path / "packed")
    assert not old.exists()
    assert (tmp_path / "packed/a module").exists()


def test_what_somebody_else_may_have_written_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    module_cache.keep(tmp_path / "modules/kept", tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
