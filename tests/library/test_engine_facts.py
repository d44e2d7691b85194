"""What is told of an engine that answers, one that does not, and of the host."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from library import engine_facts

INFO = {
    "ServerVersion": "26.1.5",
    "Swarm": {"LocalNodeState": "active", "ControlAvailable": True},
    "DockerRootDir": "/var/lib/docker/that/is/not/there",
}


class Handler(BaseHTTPRequestHandler):
    """An engine that has one image."""

    def do_GET(self) -> None:
        known = {"/info": INFO, "/images/ours/runtime%3A1/json": {"Id": "sha256:1"}}
        found = known.get(self.path)
        text = json.dumps(found if found is not None else {"message": "no such image"}).encode()
        self.send_response(200 if found is not None else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def address_string(self) -> str:
        return "socket"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "docker.sock")
    with socketserver.UnixStreamServer(path, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_an_engine_that_answers(engine: str) -> None:
    found = engine_facts.facts(engine, "ours/runtime:1")
    assert found["answers"]
    assert found["version"] == "26.1.5"
    assert (found["swarm"], found["manager"]) == ("active", True)
    assert found["image_exists"]
    assert found["free_mib"] > 0, "measured at the next directory above that exists"


def test_an_image_that_is_not_there(engine: str) -> None:
    assert not engine_facts.facts(engine, "ours/runtime:2")["image_exists"]


def test_no_engine(tmp_path: Path) -> None:
    found = engine_facts.facts(str(tmp_path / "nothing.sock"), "x")
    assert not found["answers"]
    assert found["version"] == ""
    assert found["root_dir"] == engine_facts.ROOT_DIR


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socketserver.UnixStreamServer(str(path), Handler):
        pass
    assert path.exists()
    assert not engine_facts.facts(str(path), "x")["answers"]


def test_memory_is_memory_and_swap() -> None:
    assert engine_facts.memory_mib("MemTotal:  2097152 kB\nMemFree: 5 kB\nSwapTotal: 1048576 kB\n") == 3072
