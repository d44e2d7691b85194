"""The engine's API as the modules ask it, over a socket."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from module_utils.engine import Engine, EngineError, socket_path


class Handler(BaseHTTPRequestHandler):
    """An engine that has one image and builds everything."""

    protocol_version = "HTTP/1.1"
    built: ClassVar[dict[str, Any]] = {}

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self) -> None:
        if self.path == "/images/ours/x%3A1/json":
            self.answer(200, '{"Id": "sha256:1"}')
        elif self.path == "/broken":
            self.answer(500, '{"message": "no space left"}')
        else:
            self.answer(404, '{"message": "no such image"}')

    def do_POST(self) -> None:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.built.update(parse_qs(urlsplit(self.path).query), body=body, type=self.headers["Content-Type"])
        if "refused" in self.path:
            self.answer(400, "no such option")
        else:
            self.answer(200, '{"stream": "Step 1"}\r\n{"error": "exit code 7"}\r\n')


@pytest.fixture
def engine(listen: Callable[[type[BaseHTTPRequestHandler]], str]) -> Engine:
    return Engine(listen(Handler), 5)


def test_an_image_and_one_that_is_not_there(engine: Engine) -> None:
    assert engine.image("ours/x:1") == {"Id": "sha256:1"}
    assert engine.image("ours/x:2") == {}


def test_a_refusal_is_an_error_with_the_words_of_the_engine(engine: Engine) -> None:
    with pytest.raises(EngineError, match="500: no space left"):
        engine.get("/broken")


def test_an_engine_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"nothing\.sock does not answer"):
        Engine(str(tmp_path / "nothing.sock")).get("/info")
    with pytest.raises(EngineError, match=r"nothing\.sock broke off"):
        list(Engine(str(tmp_path / "nothing.sock")).build(io.BytesIO(), {}))


def test_a_build_sends_the_archive_and_yields_its_steps(engine: Engine) -> None:
    steps = list(engine.build(io.BytesIO(b"archive"), {"t": "x:1", "rm": 1, "labels": {"a": "b&c"}}))
    assert steps == [{"stream": "Step 1"}, {"error": "exit code 7"}]
    assert (Handler.built["body"], Handler.built["type"]) == (b"archive", "application/x-tar")
    assert (Handler.built["t"], Handler.built["rm"]) == (["x:1"], ["1"])
    assert json.loads(Handler.built["labels"][0]) == {"a": "b&c"}


def test_a_refused_build_is_an_error(engine: Engine) -> None:
    with pytest.raises(EngineError, match="400: no such option"):
        list(engine.build(io.BytesIO(), {"t": "refused"}))


def test_the_socket_is_the_one_of_every_docker_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert socket_path() == "/var/run/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    assert socket_path() == "/run/user/1000/docker.sock"
