#!/usr/bin/python3 -IS
"""Replace the containers of a platform that hang: the engine starts again what ends, and never what only stopped answering.

    watchdog SOCKET PLATFORM

Once a second it asks the engine at SOCKET for the containers with the label mlflow-anywhere.platform=PLATFORM. One hangs if

- it is paused, or one of its processes is stopped (SIGSTOP), for longer than PATIENCE: nothing inside of it could tell, or
- its health check says so: its output begins with "hung:". That program tells deadlocks from work, and a database in recovery answers it.

Plain containers are restarted. Tasks of Swarm services are killed, and Swarm starts others. What hangs again and again is restarted after longer and
longer pauses, and left alone in the end. Containers that the engine would not start again, such as training jobs, are nobody's business here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable

LABEL = "mlflow-anywhere.platform"
# The oldest version of the engine's API that the platform runs on.
API = "/v1.41"
# For an answer of the engine, and for the end and the new start of a container.
ENGINE_SECONDS = 30.0
REPLACE_SECONDS = 180.0
EVERY = 1.0
PATIENCE = 3.0
# What a container has left to end by itself. A paused database closes its files within it.
GRACE = 1
# Seconds between two restarts of the same part, from the first one on; after the last one it is left alone.
PAUSES = (0.0, 0.0, 0.0, 30.0, 60.0, 120.0, 240.0, 480.0)
# So long a part must not have hung for the count to begin anew.
QUIET = 600.0
# Whom the engine starts again.
POLICIES = {"always", "unless-stopped"}


class EngineError(Exception):
    """The engine did not do what it was asked; the message says what it said."""


@dataclass(frozen=True)
class Container:
    """A container of the platform, as the engine lists it."""

    id: str
    name: str
    service: str  # "" for a plain container
    paused: bool
    unhealthy: bool

    @property
    def part(self) -> str:
        """What stays the same when Swarm replaces a task."""
        return self.service or self.name


@dataclass(frozen=True)
class Details:
    """What only a look at one container tells."""

    pid: int
    kept: bool  # The engine or Swarm starts it again.
    health: str  # What its last health check said.


class Engine(Protocol):
    """What the watchdog needs of the engine."""

    def containers(self) -> list[Container]:
        """Those of the platform that run, the paused ones included."""

    def details(self, container: Container) -> Details:
        """Look at one."""

    def replace(self, container: Container) -> None:
        """End it and have it started again."""


class Connection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Docker:
    """The engine's API."""

    def __init__(self, path: str, platform: str) -> None:
        self.path = path
        self.filters = quote(json.dumps({"label": [f"{LABEL}={platform}"], "status": ["running", "paused"]}))
        # One for the questions; each restart, which takes seconds, has its own.
        self.connection = Connection(path, ENGINE_SECONDS)

    def containers(self) -> list[Container]:
        found = self._ask(self.connection, "GET", f"/containers/json?filters={self.filters}")
        return [
            Container(
                id=one["Id"],
                name=one["Names"][0].lstrip("/"),
                service=one["Labels"].get("com.docker.swarm.service.name", ""),
                paused=one["State"] == "paused",
                unhealthy="(unhealthy)" in one["Status"],
            )
            for one in found
        ]

    def details(self, container: Container) -> Details:
        found = self._ask(self.connection, "GET", f"/containers/{container.id}/json")
        log = (found["State"].get("Health") or {}).get("Log") or [{}]
        return Details(
            pid=found["State"]["Pid"],
            kept=bool(container.service) or found["HostConfig"]["RestartPolicy"]["Name"] in POLICIES,
            health=log[-1].get("Output", "").strip(),
        )

    def replace(self, container: Container) -> None:
        # A container that was stopped by name stays so; one that is restarted does not.
        what = "kill?signal=KILL" if container.service else f"restart?t={GRACE}"
        connection = Connection(self.path, REPLACE_SECONDS)
        try:
            if container.paused and not container.service:
                # Before it stops a container, the engine waits for the health check that is under way. A paused one never ends.
                with contextlib.suppress(EngineError):
                    self._ask(connection, "POST", f"/containers/{container.id}/unpause")
            self._ask(connection, "POST", f"/containers/{container.id}/{what}")
        finally:
            connection.close()

    @staticmethod
    def _ask(connection: Connection, method: str, path: str) -> Any:
        try:
            connection.request(method, API + path)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise EngineError(f"the engine does not answer: {error!r}") from error
        if response.status >= http.client.BAD_REQUEST:
            raise EngineError(f"{method} {path}: {response.status} {content.decode(errors='replace').strip()}")
        return json.loads(content) if content else None


class Processes:
    """The processes of the host, as the kernel shows them."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self.proc = proc

    def belongs(self, pid: int, container: Container) -> bool:
        """Whether the process is the container's: the engine may live where numbers mean other processes."""
        try:
            return container.id in (self.proc / str(pid) / "cgroup").read_text()
        except OSError:
            return False

    def stopped(self, pid: int) -> str:
        """Number and name of a stopped process among the container's first one and all below it; "" if there is none."""
        waiting = [pid]
        while waiting:
            number = waiting.pop()
            try:
                name, _, rest = (self.proc / str(number) / "stat").read_text(errors="replace").rpartition(")")
                # Those that its other threads started are few, and none of the platform's.
                children = (self.proc / str(number) / "task" / str(number) / "children").read_text()
            except OSError:  # It has ended.
                continue
            if rest.split()[0] == "T":
                return f"{number} ({name.partition('(')[2]})"
            waiting += map(int, children.split())
        return ""


@dataclass
class History:
    """How often a part was restarted because it hung."""

    restarts: int = 0
    last: float = 0.0
    hung: float = 0.0
    told: bool = False

    def wait(self, now: float) -> float | None:
        """Seconds until it may be restarted once more; None for never."""
        if self.restarts >= len(PAUSES):
            return None
        return max(0.0, self.last + PAUSES[self.restarts] - now) if self.restarts else 0.0


@dataclass
class Watchdog:
    """Looks at all containers once in every tick."""

    engine: Engine
    processes: Processes
    say: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    run: Callable[[Callable[[], None]], object] = field(default_factory=lambda: ThreadPoolExecutor(8).submit)
    known: dict[str, Details] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)
    parts: dict[str, History] = field(default_factory=dict)
    acting: set[str] = field(default_factory=set)

    def tick(self) -> None:
        """Look once, and begin to replace what hangs."""
        found = self.engine.containers()
        for container in found:
            if container.id not in self.acting:
                self._judge(container)
        here = {container.id for container in found}
        self.known = {key: value for key, value in self.known.items() if key in here}
        self.since = {key: value for key, value in self.since.items() if key in here}
        for part, history in list(self.parts.items()):
            if self.now() - history.hung > QUIET:
                del self.parts[part]

    def _judge(self, container: Container) -> None:
        try:
            reason, patience = self._reason(container)
        except EngineError:  # It has just ended.
            return
        if not reason:
            self.since.pop(container.id, None)
            return
        now = self.now()
        if now - self.since.setdefault(container.id, now) < patience:
            return
        history = self.parts.setdefault(container.part, History())
        history.hung = now
        wait = history.wait(now)
        if wait == 0:
            history.restarts, history.last, history.told = history.restarts + 1, now, False
            self.acting.add(container.id)
            self.say(f"{container.name} hangs: {reason}. It is replaced, the {history.restarts}. time.")
            self.run(lambda: self._replace(container))
        elif not history.told:
            history.told = True
            then = "It is left alone from now on" if wait is None else f"It is replaced in {wait:.0f} s"
            self.say(f"{container.name} hangs again after {history.restarts} restarts: {reason}. {then}.")

    def _reason(self, container: Container) -> tuple[str, float]:
        """Why it is hung, or "", and how long that must last."""
        details = self.known.get(container.id)
        if details is None or container.unhealthy or not self.processes.belongs(details.pid, container):
            details = self.known[container.id] = self.engine.details(container)
        if not details.kept:
            return "", 0
        if container.paused:
            return "it is paused", PATIENCE
        if self.processes.belongs(details.pid, container) and (process := self.processes.stopped(details.pid)):
            return f"its process {process} is stopped", PATIENCE
        if container.unhealthy and details.health.startswith("hung:"):
            return f"its health check says {details.health.splitlines()[0]!r}", 0
        return "", 0

    def _replace(self, container: Container) -> None:
        began = self.now()
        try:
            self.engine.replace(container)
        except EngineError as error:
            self.say(f"{container.name} could not be replaced: {error}")
        else:
            done = "ended; Swarm starts another one" if container.service else "restarted"
            self.say(f"{container.name} was {done} ({self.now() - began:.1f} s)")
        finally:
            self.known.pop(container.id, None)
            self.since.pop(container.id, None)
            self.acting.discard(container.id)


def notify(message: str) -> None:
    """Tell systemd, which restarts a watchdog that hangs itself."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.connect("\0" + address[1:] if address.startswith("@") else address)
            connection.sendall(message.encode())


def main() -> None:
    """Watch until systemd ends it."""

    def say(text: str) -> None:
        print(text, flush=True)

    path, platform = sys.argv[1:]
    watchdog = Watchdog(Docker(path, platform), Processes(), say)
    silent = False
    notify("READY=1")
    while True:
        try:
            watchdog.tick()
        except EngineError as error:
            if not silent:
                say(f"Waiting for the engine: {error}")
            silent = True
        else:
            if silent:
                say("The engine answers again")
            silent = False
        notify("WATCHDOG=1")
        time.sleep(EVERY)


if __name__ == "__main__":
    main()
