"""The watchdog against an engine and processes that do what the test says; the engine's API against a server on a socket of its own."""

from __future__ import annotations

import http.server
import itertools
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from roles.watchdog.files import watchdog
from roles.watchdog.files.watchdog import PATIENCE, PAUSES, QUIET, Container, Details, Docker, EngineError

PROGRAM = Path(watchdog.__file__)


def container(name: str = "database", **more: Any) -> Container:
    return Container(
        **{"id": f"id-of-{name}", "name": name, "service": "", "paused": False, "unhealthy": False, **more}
    )


@dataclass
class Engine:
    """Holds containers, and notes which were replaced and when."""

    now: Callable[[], float]
    found: list[Container] = field(default_factory=list)
    described: dict[str, Details] = field(default_factory=dict)
    replaced: list[tuple[float, str]] = field(default_factory=list)
    refuses: bool = False

    def containers(self) -> list[Container]:
        return self.found

    def details(self, container: Container) -> Details:
        return self.described.get(container.name, Details(1, kept=True, health=""))

    def replace(self, container: Container) -> None:
        self.replaced.append((self.now(), container.name))
        if self.refuses:
            raise EngineError("no such container")


class NoProcesses(watchdog.Processes):
    """Every process is the container's; `names` are stopped."""

    names = ""

    def belongs(self, pid: int, container: Container) -> bool:  # noqa: ARG002 - the names above
        return True

    def stopped(self, pid: int) -> str:  # noqa: ARG002 - the name above
        return self.names


class World:
    """A watchdog and what it looks at, in a time of its own."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.said: list[str] = []
        self.engine = Engine(lambda: self.time)
        self.processes = NoProcesses()
        self.watchdog = watchdog.Watchdog(
            self.engine, self.processes, self.said.append, now=lambda: self.time, run=lambda do: do()
        )

    def pass_by(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.time += 1
            self.watchdog.tick()

    @property
    def replaced(self) -> list[str]:
        return [name for _, name in self.engine.replaced]


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_well_is_left_alone(world: World) -> None:
    world.engine.found = [container(), container("edge")]
    world.pass_by(100)
    assert (world.replaced, world.said) == ([], [])


@pytest.mark.parametrize("what", ["paused", "stopped"])
def test_what_is_paused_or_stopped_is_replaced_when_it_lasts(world: World, what: str) -> None:
    world.engine.found = [container(paused=what == "paused")]
    world.processes.names = "12 (postgres)" if what == "stopped" else ""
    world.pass_by(3)
    assert world.replaced == []
    world.pass_by(1)
    assert world.replaced == ["database"]
    assert "paused" in world.said[0] if what == "paused" else "12 (postgres) is stopped" in world.said[0]


def test_a_short_pause_is_nothing(world: World) -> None:
    for _ in range(10):
        world.engine.found = [container(paused=True)]
        world.pass_by(3)
        world.engine.found = [container()]
        world.pass_by(1)
    assert world.replaced == []


@pytest.mark.parametrize(
    ("health", "replaced"),
    [
        ("hung: no sign of life for 5 s, and no work", True),
        ("no answer: [Errno 111] Connection refused", False),
        ("psql: error: FATAL:  the database system is in recovery mode", False),
        ('HTTP/1.1 503 Service Unavailable {"ready": false}', False),
        ("", False),
    ],
)
def test_the_health_check_tells_hung_from_unwell(world: World, health: str, *, replaced: bool) -> None:
    world.engine.found = [container(unhealthy=True)]
    world.engine.described["database"] = Details(1, kept=True, health=health)
    world.pass_by(1)
    assert world.replaced == (["database"] if replaced else [])


def test_what_is_no_longer_unhealthy_does_not_hang_by_its_last_word(world: World) -> None:
    world.engine.described["database"] = Details(1, kept=True, health="hung: no sign of life")
    world.engine.found = [container()]
    world.pass_by(5)
    assert world.replaced == []


def test_what_nobody_would_start_again_is_left_alone(world: World) -> None:
    world.engine.found = [container("training", paused=True)]
    world.engine.described["training"] = Details(1, kept=False, health="")
    world.pass_by(60)
    assert world.replaced == []


def test_pauses_grow_and_end(world: World) -> None:
    world.engine.found = [container(paused=True)]
    world.pass_by(3 * sum(PAUSES))
    times = [at for at, _ in world.engine.replaced]
    assert len(times) == len(PAUSES)
    between = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(waited >= pause for waited, pause in zip(between, PAUSES[1:], strict=True))
    assert between[-1] < PAUSES[-1] + 10
    assert world.said[-1].endswith("It is left alone from now on.")
    said = len(world.said)
    world.pass_by(3 * QUIET)
    assert len(world.said) == said


def test_who_was_well_for_long_gets_a_new_count(world: World) -> None:
    world.engine.found = [container(paused=True)]
    world.pass_by(3 * sum(PAUSES))
    world.engine.found = [container()]
    world.pass_by(QUIET + 1)
    world.engine.replaced.clear()
    world.engine.found = [container(paused=True)]
    world.pass_by(PATIENCE + 1)
    assert world.replaced == ["database"]


def test_replicas_of_a_service_count_together(world: World) -> None:
    for number in range(20):
        world.engine.found = [container(f"iris.1.{number}", service="iris", paused=True)]
        world.pass_by(PATIENCE + 1)
    assert len(world.replaced) < 8


def test_one_that_hangs_does_not_delay_another(world: World) -> None:
    world.engine.found = [container(paused=True), container("edge", paused=True)]
    world.pass_by(PATIENCE + 1)
    assert sorted(world.replaced) == ["database", "edge"]


def test_while_one_is_replaced_it_is_not_judged(world: World) -> None:
    waiting: list[Callable[[], None]] = []
    world.watchdog.run = waiting.append
    world.engine.found = [container(paused=True)]
    world.pass_by(20)
    assert len(waiting) == 1
    waiting[0]()
    world.pass_by(PATIENCE + 1)
    assert len(waiting) == 2


def test_a_replacement_that_fails_is_told_and_tried_again(world: World) -> None:
    world.engine.refuses = True
    world.engine.found = [container(paused=True)]
    world.pass_by(PATIENCE + 1)
    assert world.said[-1] == "database could not be replaced: no such container"
    world.pass_by(PATIENCE + 1)
    assert len(world.replaced) == 2


# Processes.


def soon(look: Callable[[], Any]) -> Any:
    """What is seen as soon as it is something; the kernel takes its time."""
    until = time.monotonic() + 20
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child, as an init with its server is."""
    program = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_a_stopped_process_is_found_below_the_first_one(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    below = int(child.stdout.readline())
    processes = watchdog.Processes()
    assert processes.stopped(child.pid) == ""
    os.kill(below, signal.SIGSTOP)
    assert soon(lambda: processes.stopped(child.pid)) == f"{below} (sleep)"
    os.kill(below, signal.SIGCONT)
    assert soon(lambda: not processes.stopped(child.pid))


def test_processes_of_others_are_not_looked_at(tmp_path: Path) -> None:
    """An engine in a machine of its own numbers its processes as it likes."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text("0::/system.slice/docker-id-of-database.scope\n")
    processes = watchdog.Processes(tmp_path)
    assert processes.belongs(7, container())
    assert not processes.belongs(7, container("edge"))
    assert not processes.belongs(8, container())


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "7/task/7").mkdir(parents=True)
    (tmp_path / "7/stat").write_text("7 (a) S (b) T 1 7 7 0\n")
    (tmp_path / "7/task/7/children").write_text("")
    assert watchdog.Processes(tmp_path).stopped(7) == "7 (a) S (b)"


# The engine.


class Api(http.server.BaseHTTPRequestHandler):
    """Answers as the engine does."""

    protocol_version = "HTTP/1.1"
    asked: list[str]
    answers: dict[str, Any]

    def address_string(self) -> str:
        return "socket"

    def answer(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        found = self.answers.get(self.path.partition("?")[0])
        body = b"" if found == "" else json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name in the class above
        """Leave the test's output alone."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[type[Api]]:
    class Mine(Api):
        pass

    Mine.asked, Mine.answers = [], {}

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(str(tmp_path / "engine.sock"), Mine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Mine
        server.shutdown()


@pytest.fixture
def docker(api: type[Api], tmp_path: Path) -> Iterator[Docker]:
    listed = [
        {"Id": "a", "Names": ["/edge"], "Labels": {}, "State": "paused", "Status": "Up 2 minutes (Paused)"},
        {
            "Id": "b",
            "Names": ["/iris.1.x"],
            "Labels": {"com.docker.swarm.service.name": "iris"},
            "State": "running",
            "Status": "Up 2 minutes (unhealthy)",
        },
    ]
    api.answers["/v1.41/containers/json"] = listed
    api.answers["/v1.41/containers/a/restart"] = api.answers["/v1.41/containers/b/kill"] = ""
    log = [{"Output": "before"}, {"Output": "hung: no sign\n"}]
    for identity, policy in (("a", "unless-stopped"), ("b", "no"), ("c", "no")):
        state = {"Pid": 5, "Health": {"Log": log}} if identity == "b" else {"Pid": 5}
        api.answers[f"/v1.41/containers/{identity}/json"] = {
            "State": state,
            "HostConfig": {"RestartPolicy": {"Name": policy}},
        }
    docker = Docker(str(tmp_path / "engine.sock"), "platform")
    yield docker
    docker.connection.close()


def test_the_engine_s_list(docker: Docker, api: type[Api]) -> None:
    edge, iris = docker.containers()
    assert edge == Container("a", "edge", "", paused=True, unhealthy=False)
    assert iris == Container("b", "iris.1.x", "iris", paused=False, unhealthy=True)
    assert "mlflow-anywhere.platform%3Dplatform" in api.asked[0]


def test_who_is_started_again_and_what_the_check_said(docker: Docker) -> None:
    edge, iris = docker.containers()
    assert docker.details(edge) == Details(5, kept=True, health="")
    assert docker.details(iris) == Details(5, kept=True, health="hung: no sign")
    assert not docker.details(container(id="c")).kept


def test_plain_containers_are_restarted_and_tasks_killed(docker: Docker, api: type[Api]) -> None:
    """The engine leaves alone what was killed by name; Swarm starts another task."""
    for one in docker.containers():
        docker.replace(one)
    assert api.asked[1:] == [
        # Before it is stopped; that nobody answers to it here stops nothing.
        "POST /v1.41/containers/a/unpause",
        "POST /v1.41/containers/a/restart?t=1",
        "POST /v1.41/containers/b/kill?signal=KILL",
    ]


def test_an_engine_that_is_away_or_refuses(docker: Docker, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="404"):
        docker.details(container(id="gone"))
    with pytest.raises(EngineError, match="does not answer"):
        Docker(str(tmp_path / "nobody.sock"), "platform").containers()


def test_it_runs_on_the_oldest_python_of_a_host() -> None:
    """Ubuntu 22.04 has 3.10, and no package of ours."""
    import ast

    tree = ast.parse(PROGRAM.read_text(), feature_version=(3, 10))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
