"""A running server: pinned to its core, stopped dead while another one is measured, and weighed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from bench.machine import CACHE, Failure
from bench.serving.client import HOST
from bench.serving.peer import Peer, Start

SERVER_CORE, CLIENT_CORE = 0, 1
LOGS = CACHE / "serving" / "logs"
START_SECONDS = 180.0
STOP_SECONDS = 10.0
TOLD = 400
ERROR = re.compile(r"^\S*(?:Error|Exception|Failure): .*$", re.MULTILINE)
PSS = re.compile(r"^Pss:\s+(\d+)", re.MULTILINE)


def family(processes: dict[int, tuple[int, int]], first: int) -> set[int]:
    """A process, its descendants, and whatever is of its session; `processes` are numbers with parent and session."""
    found = {first} | {number for number, (_, session) in processes.items() if session == first}
    while True:
        more = {number for number, (parent, _) in processes.items() if parent in found} - found
        if not more:
            return found
        found |= more


def processes() -> dict[int, tuple[int, int]]:
    """All processes with parent and session."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in parentheses may hold spaces; state, parent, group, session follow it.
            _, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            found[int(stat.parent.name)] = (int(parent), int(session))
    return found


def proportional(text: str) -> int:
    """Bytes of the proportional set size in a smaps_rollup."""
    match = PSS.search(text)
    return int(match[1]) * 1024 if match else 0


def last_words(log: str) -> str:
    """The last error in a log, else its end, on one line."""
    errors = ERROR.findall(log)
    return " ".join((errors[-1] if errors else log).split())[-TOLD:]


class Server:
    """A peer that runs."""

    def __init__(self, peer: Peer, start: Start) -> None:
        self.peer = peer
        self.start = start
        self.began = 0.0
        self.ready = 0.0
        suffix = "-quiet" if start.quiet else ""
        self.log = LOGS / f"{peer.name}-{start.model}{suffix}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where to ask."""
        return f"http://{HOST}:{self.start.port}{self.peer.path}"

    def run(self) -> None:
        """Start and wait until it says that it is ready; raise Failure if that does not happen."""
        LOGS.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "--cpu-list", str(SERVER_CORE), *self.peer.argv(self.start)],
                cwd=LOGS,
                env=self.peer.environ(self.start),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not self.healthy():
            if self.process.poll() is not None:
                raise Failure(f"ended with {self.process.returncode}: {self.said()}")
            if time.monotonic() - self.began > START_SECONDS:
                raise Failure(f"not ready after {START_SECONDS:.0f} s: {self.said()}")
            time.sleep(0.02)
        self.ready = time.monotonic() - self.began

    def healthy(self) -> bool:
        """Whether it says so itself."""
        url = f"http://{HOST}:{self.start.port}{self.peer.health}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=5) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004
        except (OSError, urllib.error.HTTPError, ValueError):
            return False

    def said(self) -> str:
        """What its log says of the end."""
        return last_words(self.log.read_text(errors="replace"))

    def family(self) -> set[int]:
        """Its processes."""
        return family(processes(), self.process.pid) if self.process else set()

    def signal(self, number: signal.Signals) -> None:
        """Tell all its processes."""
        for pid in self.family():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        """Take it off the core while others are measured."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        self.signal(signal.SIGCONT)

    def memory(self) -> int:
        """Proportional set size of all its processes in bytes."""
        total = 0
        for pid in self.family():
            with suppress(OSError):
                total += proportional(Path(f"/proc/{pid}/smaps_rollup").read_text())
        return total

    def stop(self) -> None:
        """End it, by force if it takes long."""
        if self.process is None:
            return
        left = self.family()
        self.thaw()
        with suppress(ProcessLookupError):
            self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        left |= self.family()
        for pid in left & set(processes()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


def pin() -> None:
    """Take the client's core for this process and what it starts."""
    cores = os.sched_getaffinity(0)
    if not {SERVER_CORE, CLIENT_CORE} <= cores:
        raise Failure(f"needs cores {SERVER_CORE} and {CLIENT_CORE}, has {sorted(cores)}")
    os.sched_setaffinity(0, {CLIENT_CORE})
