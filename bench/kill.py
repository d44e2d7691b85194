"""Run a playbook and kill it with SIGKILL in the middle of its k-th task. Needs Python alone, so it runs inside a test instance.

python3 kill.py '{"after": 17, "delay": 0.4, "tree": true}' ansible-playbook site.yml

The command's output goes to standard output; the last line is a JSON object: the tasks that were seen, whether it was killed or
ended by itself, and how. `tree` kills all that it started as well, like a machine that loses power; without it the module that
was at work goes on alone, as after the kill of one process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.*)\] \*+$")
PLAY = re.compile(r"^PLAY \[(?P<name>.*)\] \*+$")
RECAP = re.compile(
    r"^\S+\s+: ok=\d+\s+changed=(?P<changed>\d+)\s+unreachable=(?P<unreachable>\d+)\s+failed=(?P<failed>\d+)"
)


@dataclass
class Ended:
    """How a run ended."""

    tasks: list[str] = field(default_factory=list)
    killed: bool = False
    code: int | None = None


def task_name(line: str) -> str | None:
    """Name of the task that a line of Ansible's output begins, with its role."""
    match = TASK.match(line.rstrip())
    return match["name"] if match else None


def descendants(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """All processes that a process started and those started in turn, itself first."""
    children: dict[int, list[int]] = {}
    for stat in proc.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name in brackets may hold blanks and brackets.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for process in found:
        found += children.get(process, [])
    return found


def kill(pid: int, *, tree: bool) -> None:
    """Kill a process, and with `tree` all it started; none of them can start another one meanwhile."""
    victims = descendants(pid) if tree else [pid]
    for step in [signal.SIGSTOP, signal.SIGKILL] if tree else [signal.SIGKILL]:
        for victim in victims:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(victim, step)
        if step == signal.SIGSTOP:
            victims += [process for process in descendants(pid) if process not in victims]


def run(  # noqa: PLR0913 - what Popen takes, and when to kill it
    command: Sequence[str],
    *,
    after: int = 0,
    at: str = "",
    delay: float = 0.0,
    tree: bool = True,
    show: Callable[[str], None] = lambda _: None,
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
) -> Ended:
    """Run a command and kill it `delay` seconds after its k-th task began, or the first one with `at` in its name; else never."""
    ended = Ended()
    timers: list[threading.Timer] = []
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        # Ansible names a task when it begins only if it names skipped ones too.
        env={**(environment or os.environ), "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true", "ANSIBLE_FORCE_COLOR": "0"},
        cwd=directory,
    )

    def strike() -> None:
        if child.poll() is None:
            ended.killed = True
            kill(child.pid, tree=tree)

    def read() -> None:
        assert child.stdout
        for line in iter(child.stdout.readline, ""):
            if ended.killed:
                break
            show(line)
            if name := task_name(line):
                ended.tasks.append(name)
                if not timers and (len(ended.tasks) == after or (at and at in name)):
                    timers.append(threading.Timer(delay, strike))
                    timers[0].start()

    # A module that outlives the kill holds the pipe open, so its end is not the run's.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    ended.code = child.wait()
    reader.join(timeout=2)
    if child.stdout and not reader.is_alive():
        child.stdout.close()
    for timer in timers:
        timer.cancel()
    return ended


def main() -> int:
    """Run what the arguments say."""
    asked = json.loads(sys.argv[1])

    def show(line: str) -> None:
        sys.stdout.write(line)
        sys.stdout.flush()

    ended = run(sys.argv[2:], show=show, **asked)
    print(json.dumps(dataclasses.asdict(ended) | {"at": time.time()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
