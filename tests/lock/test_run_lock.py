"""One run at a time changes a platform: the lock on the host, the process that keeps it, and what a second run is told."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from action_plugins import run_lock as plugin
from roles.lock.files import run_lock

ROOT = Path(__file__).parents[2]
READ_ONLY = {"preflight.yml", "smoke.yml"}
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - run_lock: {platform: "{{ name }}", take_over: "{{ lock_take_over | default('') }}"}
      register: taken
    - run_lock: {platform: "{{ name }}", again: true, replaces: "{{ taken.keeper }}"}
      register: other
      when: again | default(false) | bool
    - copy: {content: "{{ other.keeper | default(taken.keeper | default(0)) }}", dest: "{{ begun }}"}
    - wait_for: {path: "{{ go_on }}", timeout: 300, sleep: 1}
    - fail:
      when: fails | default(false) | bool
"""
RUN = {"id": "first", "who": "alice@laptop", "process": 1, "machine": "", "command": "site.yml"}
OTHER = {**RUN, "id": "second", "who": "bob@desk"}


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until the condition holds, and return what it gave."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
    return value


@pytest.fixture
def platform() -> Iterator[str]:
    """A platform of this test alone, whose lock is given up in the end."""
    name = f"test-{uuid.uuid4()}"
    yield name
    while holder := run_lock.ask(name, do="tell"):
        run_lock.ask(name, do="leave", id=holder["id"])


def gone(platform: str) -> bool:
    """Whether nobody holds the lock."""
    return run_lock.ask(platform, do="tell") is None


# On the host.


def test_the_second_is_told_who_has_it_and_its_secret_is_told_to_nobody(platform: str) -> None:
    assert run_lock.take(platform, "secret", RUN)["own"]
    holder = run_lock.take(platform, "other", OTHER)
    assert not holder["own"]
    assert {key: holder[key] for key in RUN} == RUN
    assert abs(holder["since"] - time.time()) < 5
    assert "secret" not in str(holder)


def is_heard(platform: str) -> bool:
    """Whether a sign of life comes within half a second."""
    before = run_lock.ask(platform, do="tell")
    time.sleep(0.5)
    after = run_lock.ask(platform, do="tell")
    assert before
    assert after
    return bool(after["silent"] < before["silent"])


def test_a_long_name_is_a_name_too(platform: str) -> None:
    long = platform + "x" * 200
    assert run_lock.take(long, "secret", RUN)["own"]
    assert not run_lock.take(long, "other", OTHER)["own"]
    assert run_lock.take(long + "y", "other", OTHER)["own"]
    run_lock.ask(long, do="leave", token="secret")
    run_lock.ask(long + "y", do="leave", token="other")


def test_the_same_run_goes_on_holding_it(platform: str) -> None:
    assert run_lock.take(platform, "secret", RUN)["new"]
    again = run_lock.take(platform, "secret", RUN)
    assert again["own"]
    assert "new" not in again


def test_of_many_at_once_exactly_one_gets_it(platform: str) -> None:
    program = (
        f"{(ROOT / 'roles/lock/files/run_lock.py').read_text()}\nanswer(do='take', platform=%r, token=%r, run=%r)\n"
    )

    def take(platform: str, number: int) -> str:
        text = program % (platform, str(number), {**RUN, "id": str(number)})
        done = subprocess.run([sys.executable, "-IS", "-"], input=text, capture_output=True, text=True, check=True)
        return done.stdout

    with ThreadPoolExecutor(4) as pool:
        for attempt in range(10):
            name = f"{platform}-{attempt}"
            answers = list(pool.map(take, [name] * 4, range(4)))
            winners = [number for number, answer in enumerate(answers) if '"new": true' in answer]
            assert len(winners) == 1, answers
            assert all(f'"id": "{winners[0]}"' in answer for answer in answers)
            assert sum('"own": true' in answer for answer in answers) == 1
            run_lock.ask(name, do="leave", id=str(winners[0]))


def test_a_run_that_falls_silent_loses_it_and_one_that_speaks_does_not(platform: str) -> None:
    run_lock.take(platform, "secret", RUN, lease=2)
    for _ in range(6):
        time.sleep(0.4)
        assert run_lock.ask(platform, do="keep", token="secret")["own"]  # type: ignore[index]
    # Others who ask are no sign of life.
    until(lambda: not run_lock.ask(platform, do="keep", token="other"))
    assert run_lock.take(platform, "other", OTHER)["own"]


def test_a_holder_that_was_killed_leaves_nothing(platform: str) -> None:
    run_lock.take(platform, "secret", RUN)
    os.kill(run_lock.ask(platform, do="tell")["holder"], signal.SIGKILL)  # type: ignore[index]
    assert run_lock.take(platform, "other", OTHER)["own"]


def test_it_is_given_up_by_its_own_run(platform: str) -> None:
    run_lock.take(platform, "secret", RUN)
    run_lock.ask(platform, do="leave", token="other")
    run_lock.ask(platform, do="leave", id="another run")
    assert not gone(platform)
    run_lock.ask(platform, do="leave", token="secret")
    until(lambda: gone(platform))


def test_who_names_the_run_takes_it_over(platform: str) -> None:
    run_lock.take(platform, "secret", RUN)
    assert not run_lock.take(platform, "other", OTHER, end="a third run")["own"]
    assert run_lock.take(platform, "other", OTHER, end="first")["own"]
    assert run_lock.take(platform, "secret", RUN)["id"] == "second"


@pytest.mark.parametrize(("asks", "holds", "may"), [(1000, 1000, True), (0, 1000, True), (1001, 1000, False)])
def test_only_the_holder_s_user_and_root_may_end_it(
    asks: int, holds: int, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Peer:
        def getsockopt(self, *_: int) -> bytes:
            return struct.pack("3i", 4711, asks, asks)

    monkeypatch.setattr(os, "geteuid", lambda: holds)
    with socket.socket(socket.AF_UNIX) as listener:
        holder = run_lock.Holder(listener, "secret", RUN)
        assert holder._may_end(Peer(), {"id": "first"}) is may  # type: ignore[arg-type]
        assert not holder._may_end(Peer(), {"id": "second"})  # type: ignore[arg-type]


@pytest.mark.parametrize("nonsense", [b"", b"{", b"[1]", b"null", b'{"token": 1}', b"\xff" * 5000])
def test_nonsense_does_not_end_it(platform: str, nonsense: bytes) -> None:
    run_lock.take(platform, "secret", RUN)
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as speaks:
        silent.connect(run_lock.address(platform))
        speaks.connect(run_lock.address(platform))
        speaks.sendall(nonsense)
        assert run_lock.ask(platform, do="keep", token="secret")["own"]  # type: ignore[index]


# What is said of it.


def test_the_refusal_says_who_since_when_and_the_way_out() -> None:
    holder = {**RUN, "user": "alice", "since": 1_000_000_000.0, "silent": 3.0, "lease": 60.0, "own": False}
    said = plugin.refusal("here", "one", holder, "", 1_000_000_180.0)
    assert "alice@laptop, process 1 there, site.yml" in said
    assert "since 2001-09-09 01:46:40 UTC (3 min ago), last heard of 3 s ago" in said
    assert "-e lock_take_over=first" in said
    assert "60 s" in said
    other = plugin.refusal("here", "one", holder, "first", 1_000_000_180.0)
    assert "cannot end it: alice holds the lock on one" in other
    assert "--become" in other


def test_what_a_stranger_says_of_itself_is_shown_as_plain_text() -> None:
    holder = {**RUN, "who": "\x1b[2J" + "x" * 5000, "since": 0, "silent": 0}
    said = plugin.described(holder, 0)
    assert said.isprintable()
    assert len(said) < 500


def test_a_process_of_another_machine_is_never_taken_for_dead() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert plugin.is_dead({"machine": plugin.machine(), "process": ended.pid})
    assert not plugin.is_dead({"machine": "another one", "process": ended.pid})
    assert not plugin.is_dead({"machine": "", "process": ended.pid})
    assert not plugin.is_dead({"machine": plugin.machine(), "process": os.getpid()})


@pytest.mark.parametrize("linux", [True, False])
def test_the_end_of_a_process_is_seen(linux: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not linux:
        monkeypatch.delattr(os, "pidfd_open")
    process = subprocess.Popen(["sleep", "60"])
    assert not plugin.ended(process.pid, 0.05)
    process.kill()
    process.wait()
    assert plugin.ended(process.pid, 5)


# On the control machine.


class Controller:
    """A run of a play that takes the lock, writes `begun`, and ends when it may."""

    def __init__(self, project: Path, platform: str, *arguments: str) -> None:
        self.begun, self.go_on = (project / f"{uuid.uuid4()}" for _ in range(2))
        self.log = project / f"{uuid.uuid4()}.log"
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "play.yml", *arguments]
        for name, value in {"name": platform, "begun": self.begun, "go_on": self.go_on}.items():
            command += ["-e", f"{name}={value}"]
        command += ["-e", f"ansible_python_interpreter={sys.executable}"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(project / "ansible.cfg")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def holds(self) -> int:
        """Wait until it has the lock, and return the number of the process that keeps it."""
        until(lambda: self.begun.exists() and self.begun.read_text())
        return int(self.begun.read_text())

    def ends(self) -> int:
        """Let it go on to its end; its exit code."""
        self.go_on.touch()
        return self.process.wait(120)

    @property
    def said(self) -> str:
        """Its output as one line."""
        return " ".join(self.log.read_text().split())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This repository's plug-in, whose signs of life come quickly, and one play."""
    place = tmp_path_factory.mktemp("project")
    (place / "action_plugins").mkdir()
    source = (ROOT / "action_plugins/run_lock.py").read_text()
    assert "BEAT = 10.0" in source
    (place / "action_plugins/run_lock.py").write_text(source.replace("BEAT = 10.0", "BEAT = 0.5"))
    (place / "roles/lock/files").mkdir(parents=True)
    program = (ROOT / "roles/lock/files/run_lock.py").read_text()
    assert "PATIENCE = 10.0" in program
    (place / "roles/lock/files/run_lock.py").write_text(program)
    (place / "impatient.py").write_text(program.replace("PATIENCE = 10.0", "PATIENCE = 0.2"))
    (place / "ansible.cfg").write_text("[defaults]\naction_plugins = action_plugins\nlocalhost_warning = false\n")
    (place / "play.yml").write_text(PLAY)
    return place


def one_is_left(controllers: list[Controller]) -> bool:
    """Whether all but one have ended."""
    return sum(one.process.poll() is None for one in controllers) == 1


def test_of_controllers_that_start_at_once_one_goes_on(project: Path, platform: str) -> None:
    for _ in range(2):
        controllers = [Controller(project, platform) for _ in range(2)]
        until(partial(one_is_left, controllers))
        [winner] = [one for one in controllers if one.process.poll() is None]
        winner.holds()
        for loser in controllers:
            if loser is not winner:
                assert loser.process.returncode == 2
                assert f"process {winner.process.pid} there, play.yml, since 20" in loser.said
                assert not loser.begun.exists()
        assert winner.ends() == 0
        until(lambda: gone(platform))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, "failure"])
def test_however_a_run_ends_it_gives_the_lock_up(project: Path, platform: str, how: signal.Signals | str) -> None:
    failing = ["-e", "fails=true"] if how == "failure" else []
    first = Controller(project, platform, *failing)
    first.holds()
    if isinstance(how, signal.Signals):
        first.process.send_signal(how)
        # Not waited for: a process that its parent has not asked for yet is dead all the same.
        until(lambda: gone(platform))
        first.process.wait(120)
    else:
        assert first.ends() == 2
        until(lambda: gone(platform))


def test_a_run_whose_keeper_was_killed_with_it_is_seen_to_be_dead(project: Path, platform: str) -> None:
    first = Controller(project, platform)
    for process in (first.holds(), first.process.pid):
        os.kill(process, signal.SIGKILL)
    first.process.wait()
    assert not gone(platform)
    second = Controller(project, platform)
    second.holds()
    assert second.ends() == 0


def test_a_run_that_goes_on_as_another_user_has_one_keeper(project: Path, platform: str) -> None:
    first = Controller(project, platform, "-e", "again=true")
    second = first.holds()
    assert not plugin.ended(second)
    # The one before it gives no more signs of life: with the second one stopped, nobody does.
    os.kill(second, signal.SIGSTOP)
    time.sleep(1)
    assert not any(is_heard(platform) for _ in range(4))
    os.kill(second, signal.SIGCONT)
    assert first.ends() == 0
    until(lambda: gone(platform))


def test_a_holder_that_gives_no_answer_ends_no_run(project: Path, platform: str) -> None:
    first = Controller(project, platform)
    first.holds()
    program = project / "roles/lock/files/run_lock.py"
    patient = program.read_text()
    program.write_text((project / "impatient.py").read_text())
    holder = run_lock.ask(platform, do="tell")
    assert holder
    os.kill(holder["holder"], signal.SIGSTOP)
    # Longer than a sign of life waits for its answer, here a fifth of a second.
    time.sleep(3)
    assert first.process.poll() is None
    os.kill(holder["holder"], signal.SIGCONT)
    program.write_text(patient)
    assert first.ends() == 0


def test_a_run_that_is_taken_over_ends_and_says_why(project: Path, platform: str) -> None:
    first = Controller(project, platform)
    first.holds()
    refused = Controller(project, platform)
    assert refused.process.wait(120) == 2
    [way_out] = set(re.findall(r"lock_take_over=\w+", refused.said))
    second = Controller(project, platform, "-e", way_out)
    second.holds()
    assert first.process.wait(120) != 0
    assert f"The lock of the platform {platform} (localhost) has gone to" in first.said
    assert f"process {second.process.pid} there" in first.said
    assert second.ends() == 0


def test_a_run_gives_signs_of_life_and_takes_the_lock_again_after_a_restart_of_the_host(
    project: Path, platform: str
) -> None:
    first = Controller(project, platform)
    first.holds()
    until(lambda: is_heard(platform))
    before = run_lock.ask(platform, do="tell")
    assert before
    os.kill(before["holder"], signal.SIGKILL)
    after = until(lambda: run_lock.ask(platform, do="tell"))
    assert after["id"] == before["id"]
    assert first.ends() == 0


def test_check_mode_is_not_refused_takes_nothing_and_says_what_is_under_way(project: Path, platform: str) -> None:
    alone = Controller(project, platform, "--check")
    # In check mode nothing is written; it waits until it is told to go on.
    until(lambda: "wait_for" in alone.said)
    assert gone(platform)
    assert alone.ends() == 0
    first = Controller(project, platform)
    first.holds()
    dry = Controller(project, platform, "--check")
    assert dry.ends() == 0
    assert f"Another run is under way on the platform {platform} (localhost)" in dry.said
    assert f"process {first.process.pid} there" in dry.said
    assert first.ends() == 0


# In the playbooks.


@pytest.mark.parametrize("playbook", sorted(path.name for path in (ROOT / "playbooks").glob("*.yml")))
def test_every_playbook_that_changes_something_begins_with_the_lock(playbook: str) -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / playbook).read_text())
    locks = [role for play in plays for role in play.get("roles", []) if role["role"] == "lock"]
    if "ansible.builtin.import_playbook" in plays[0]:
        assert (plays[0]["ansible.builtin.import_playbook"], plays[0]["vars"]) == (
            "preflight.yml",
            {"preflight_locks": True},
        )
    elif playbook in READ_ONLY:
        assert all("when" in role for role in locks)
    else:
        assert plays[0]["roles"][0]["role"] == "lock"
        assert "always" in plays[0]["roles"][0]["tags"]
        assert "when" not in plays[0]["roles"][0]


def test_a_whole_run_takes_the_lock_before_it_looks_at_the_hosts() -> None:
    first = yaml.safe_load((ROOT / "site.yml").read_text())[0]
    assert first["ansible.builtin.import_playbook"] == "playbooks/preflight.yml"
    assert first["vars"] == {"preflight_locks": True}
    roles = [
        role["role"]
        for play in yaml.safe_load((ROOT / "playbooks/preflight.yml").read_text())
        for role in play["roles"]
    ]
    assert roles == ["fleet", "lock", "preflight", "versions"]
