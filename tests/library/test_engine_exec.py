"""Commands in containers, and what the rollout asks of the engine, over a socket."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest
from ansible.module_utils import basic
from ansible.module_utils.engine import Engine, EngineError, frames
from ansible.module_utils.testing import patch_module_args

from library import engine_exec
from library.swarm_rollout import DockerEngine

JSON = dict[str, Any]


def frame(stream: int, text: str) -> bytes:
    return struct.pack(">BxxxL", stream, len(text.encode())) + text.encode()


class Handler(BaseHTTPRequestHandler):
    """An engine with a container `edge`, one service, and a log."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str, Any]]] = []
    # None: the container went away with its exit codes.
    code: ClassVar[int | None] = 0
    running: ClassVar[int] = 0
    answers: ClassVar[dict[str, tuple[int, Any]]] = {}

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.asked.append((self.command, self.path, body))
        if self.path == "/exec/e1/start":
            # Hijacked: neither a length nor chunks, the end of the connection is the end.
            self.send_response(200)
            self.end_headers()
            self.wfile.write(frame(1, "relo") + frame(2, "a warning\n") + frame(1, "aded\n"))
            self.close_connection = True
            return
        if self.path == "/exec/e1/json" and self.code is not None:
            Handler.running -= 1
            self.say(200, {"Running": self.running >= 0, "ExitCode": self.code})
        else:
            self.say(*self.answers.get(f"{self.command} {self.path}", (404, {"message": "no such thing"})))

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_DELETE(self) -> None:
        self.answer()

    def say(self, status: int, document: Any) -> None:
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def path(listen: Callable[[type[BaseHTTPRequestHandler]], str]) -> str:
    Handler.asked.clear()
    Handler.code = Handler.running = 0
    Handler.answers = {"POST /containers/edge/exec": (201, {"Id": "e1"})}
    return listen(Handler)


def run(path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], container: str) -> JSON:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")
    with patch_module_args({"container": container, "argv": ["edge", "reload"]}), pytest.raises(SystemExit):
        engine_exec.main()
    result: JSON = json.loads(capsys.readouterr().out)
    return result


def test_both_outputs_come_back(path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(path, monkeypatch, capsys, "edge")
    assert (result["rc"], result["stdout"], result["stderr"]) == (0, "reloaded", "a warning")
    assert Handler.asked[0][2] == {"AttachStdout": True, "AttachStderr": True, "Cmd": ["edge", "reload"]}


def test_a_command_that_fails_fails_the_task(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Handler.code = 3
    result = run(path, monkeypatch, capsys, "edge")
    assert (result["failed"], result["rc"], result["msg"]) == (True, 3, "edge in edge ended with 3: a warning")


def test_a_container_that_is_not_there_is_named(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(path, monkeypatch, capsys, "away")
    assert result["failed"]
    assert result["msg"].startswith("edge cannot be run in away: ")
    assert result["msg"].endswith("404: no such thing")


def test_the_exit_code_is_awaited(path: str) -> None:
    Handler.running, Handler.code = 2, 7
    assert Engine(path, 5).execute("edge", ["true"]) == (7, "reloaded\n", "a warning\n")
    assert [asked[1] for asked in Handler.asked].count("/exec/e1/json") == 3


def test_a_container_that_goes_away_under_the_command_is_an_error(path: str) -> None:
    Handler.code = None
    with pytest.raises(EngineError, match="404: no such thing"):
        Engine(path, 5).execute("edge", ["true"])


def test_a_frame_that_was_cut_off_is_what_there_is() -> None:
    assert list(frames(frame(1, "whole") + frame(2, "part")[:-2])) == [(1, "whole"), (2, "pa")]
    assert list(frames(b"\1\0\0")) == []


@pytest.fixture
def docker(path: str) -> DockerEngine:
    return DockerEngine(Engine(path, 5))


def test_a_service_is_created_updated_and_removed(docker: DockerEngine) -> None:
    Handler.answers = {
        "POST /services/create": (201, {"ID": "s1"}),
        "POST /services/s1/update?version=7": (200, {"Warnings": None}),
        "POST /services/s1/update?version=6": (500, {"message": "rpc error: update out of sequence"}),
        "POST /services/s1/update?version=5": (500, {"message": "no such network"}),
        "DELETE /services/s1": (200, b""),
        "DELETE /services/s2": (500, {"message": "busy"}),
    }
    assert docker.create({"Name": "model"}) == "s1"
    assert Handler.asked[-1][2] == {"Name": "model"}
    assert docker.update("s1", 7, {"Name": "model", "Labels": {"a": "b"}})
    assert Handler.asked[-1][2] == {"Name": "model", "Labels": {"a": "b"}}
    assert not docker.update("s1", 6, {})
    with pytest.raises(EngineError, match="no such network"):
        docker.update("s1", 5, {})
    docker.remove("s1")
    docker.remove("gone")
    with pytest.raises(EngineError, match="busy"):
        docker.remove("s2")


def test_a_service_that_somebody_else_created_is_found(docker: DockerEngine) -> None:
    Handler.answers = {
        "POST /services/create": (409, {"message": "name conflicts"}),
        "GET /services/model": (200, {"ID": "s9"}),
    }
    assert docker.create({"Name": "model"}) == "s9"


def test_tasks_come_newest_first_and_what_is_gone_is_nothing(docker: DockerEngine) -> None:
    Handler.answers = {
        "GET /services": (200, [{"ID": "s1"}]),
        "GET /networks": (200, [{"Name": "net", "Id": "n1"}]),
        "GET /tasks?filters=%7B%22service%22%3A+%5B%22s1%22%5D%7D": (
            200,
            [{"CreatedAt": "2026-01-01"}, {"CreatedAt": "2026-02-01"}],
        ),
    }
    assert docker.services() == [{"ID": "s1"}]
    assert docker.networks() == {"net": "n1"}
    assert docker.service("s1") is None
    assert [task["CreatedAt"] for task in docker.tasks("s1")] == ["2026-02-01", "2026-01-01"]
    assert docker.tasks("s2") == []


def test_the_log_of_a_container_elsewhere_is_that_of_the_service(docker: DockerEngine) -> None:
    Handler.answers = {
        "GET /containers/c1/logs?stdout=1&stderr=1&tail=5": (200, frame(2, "torn\n") + frame(1, "weights\n")),
        "GET /services/s1/logs?stdout=1&stderr=1&tail=5": (200, frame(1, "from afar")),
        "GET /containers/c1/json": (200, {"State": {"Health": {"Log": [{"ExitCode": 1, "Output": " sick \n"}]}}}),
    }
    assert docker.logs("s1", "c1", 5) == "torn\nweights\n"
    assert docker.logs("s1", "c2", 5) == "from afar"
    assert docker.health("c1") == ["1: sick"]
    assert docker.health("c2") == []
    Handler.answers["GET /containers/c2/json"] = (500, {"message": "busy"})
    assert docker.health("c2") == []
