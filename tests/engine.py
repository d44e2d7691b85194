"""A stand-in for the engine: it answers what the roles ask, on a socket."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

ANSWERS = {
    "/info": {
        "ServerVersion": "26.1.5",
        "Swarm": {
            "LocalNodeState": "active",
            "ControlAvailable": True,
            "NodeID": "one",
            "NodeAddr": "10.0.0.1",
            "RemoteManagers": [{"NodeID": "one", "Addr": "10.0.0.1:2377"}, {"NodeID": "two", "Addr": "[fd00::2]:2377"}],
        },
        "DockerRootDir": "/var/lib/docker/that/is/not/there",
    },
    "/images/json": [
        {"Id": "sha256:1", "Created": 1, "RepoTags": ["ours/runtime:1"]},
        {"Id": "sha256:2", "Created": 3, "RepoTags": ["ours/runtime:2", "ours/runtime:latest"]},
        {"Id": "sha256:3", "Created": 2, "RepoTags": ["<none>:<none>"]},
        {"Id": "sha256:4", "Created": 4, "RepoTags": None},
    ],
    "/volumes": {"Volumes": [{"Name": "ours-postgres"}, {"Name": "another"}]},
    "/nodes": [
        {
            "ID": "one",
            "Description": {"Hostname": "a"},
            "Status": {"State": "ready", "Addr": "10.0.0.1"},
            "Spec": {"Role": "manager", "Availability": "active", "Labels": {"ours": "true"}},
        },
        {"ID": "two", "Description": {}, "Status": {"State": "unknown"}, "Spec": {}},
    ],
    "/services": [
        {"ID": "s1", "Spec": {"Name": "ours-model", "Labels": {"a": "b"}}},
        {"ID": "s2", "Spec": {"Name": "bare"}},
    ],
    "/networks": [
        {"Name": "ours", "Driver": "overlay", "Scope": "swarm", "Attachable": True, "Internal": False, "Labels": {}}
    ],
    "/containers/json": [
        {
            "Id": "e1",
            "Names": ["/edge"],
            "NetworkSettings": {"Networks": {"ours": {}, "another": {}}},
            "Ports": [
                {"IP": "0.0.0.0", "PrivatePort": 5000, "PublicPort": 5000, "Type": "tcp"},
                {"IP": "::", "PrivatePort": 5000, "PublicPort": 5000, "Type": "tcp"},
                {"PrivatePort": 8404, "Type": "tcp"},
                {"IP": "0.0.0.0", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
            ],
        },
        {"Id": "i1", "Names": ["/inner"], "Ports": []},
    ],
}

STATS: dict[str, object] = {
    # cgroup v1, and v2
    "/containers/e1/stats": {"memory_stats": {"usage": 30 * 2**20, "stats": {"total_inactive_file": 6 * 2**20}}},
    "/containers/i1/stats": {"memory_stats": {"usage": 300 * 2**20, "stats": {"inactive_file": 2**20}}},
}


class Handler(BaseHTTPRequestHandler):
    """An engine that has some images, a network and two containers."""

    def do_GET(self) -> None:
        found = {**ANSWERS, **STATS}.get(self.path.partition("?")[0])
        text = json.dumps(found if found is not None else {"message": "no such page"}).encode()
        self.send_response(200 if found is not None else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], path: str) -> Iterator[None]:
    """Let a handler answer on the socket `path`."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None, "address_string": lambda _: "socket"})
    with socketserver.UnixStreamServer(path, quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    """A function that lets a handler answer on a socket, and returns the socket's path."""
    with ExitStack() as ends:

        def start(handler: type[BaseHTTPRequestHandler]) -> str:
            path = str(tmp_path / "docker.sock")
            ends.enter_context(listening(handler, path))
            return path

        yield start
