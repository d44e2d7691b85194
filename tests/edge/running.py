"""HAProxy itself, run with the configuration that the role renders, and servers behind it that do what a test tells them."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pace import slowness, too_late

from tests.checkers import TREE, obstacle

from .conftest import FILES, MODELS, TABLES, Render

# As root of the tree with checkers' programs, on the machine's network: clients and servers are on it too.
APART = """
set -eu
mount --rbind /dev "$1/dev"
mount -t tmpfs none "$1/run"
mkdir "$1/run/haproxy"
mount --bind "$2" "$1/edge"
mount --bind "$3" "$1/run/haproxy"
exec chroot "$1" haproxy -W -db -S /run/haproxy/master.sock,mode,600 -f /edge/haproxy.cfg
"""
START_SECONDS = 30


@dataclass
class Seen:
    """A request as a server got it."""

    method: str
    path: str
    headers: dict[str, str]
    size: int


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Listener(ThreadingHTTPServer):
    """Takes connections for a server."""

    owner: Server
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        """A connection that broke off is what some tests are for."""


class Handler(BaseHTTPRequestHandler):
    """Answers every method alike."""

    server: Listener
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def body_size(self) -> int:
        """Read the body."""
        size = 0
        with contextlib.suppress(OSError):
            left = int(self.headers.get("Content-Length", 0))
            while left and (part := self.rfile.read1(min(left, 2**16))):
                size, left = size + len(part), left - len(part)
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                while length := int(self.rfile.readline() or b"0", 16):
                    size += len(self.rfile.read(length))
                    self.rfile.readline()
                self.rfile.readline()
        return size

    def answer(self) -> None:
        """Do what was told."""
        size = self.body_size()
        path = self.path.partition("?")[0]
        if path not in {"/ping", "/ready"}:
            self.server.owner.seen.append(Seen(self.command, self.path, dict(self.headers), size))
            if self.server.owner.gate:
                self.server.owner.gate.wait(30)
            if self.server.owner.delay:
                time.sleep(self.server.owner.delay)
        told = self.server.owner.answers.get(path, (200, [("Content-Type", "application/json")], b'{"ok": true}'))
        if told is None:
            self.close_connection = True
            return
        status, headers, body = told
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server chose
        """Say nothing."""


class Server:
    """A server behind the edge. It answers 200, or what `answers` says for a path: status, headers and body; None closes the connection."""

    def __init__(self, delay: float = 0.0) -> None:
        """Listen on a free port."""
        self.seen: list[Seen] = []
        self.answers: dict[str, tuple[int, list[tuple[str, str]], bytes] | None] = {}
        self.delay = delay
        self.gate: threading.Event | None = None
        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.listener.owner = self
        self.port = self.listener.server_address[1]
        threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.listener.shutdown()
        self.listener.server_close()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def pointed_at(config: str, servers: Mapping[str, list[Server]], ports: Mapping[int, int]) -> str:
    """The configuration with servers and fixed ports of this machine."""
    backend = ""
    lines = []
    for line in config.splitlines():
        if match := re.match(r"backend (\S+)", line):
            backend = match[1]
        if match := re.match(r"  server(?:-template)? (\S+) (?:\d+ )?\S+:\d+ ?(.*)$", line):
            rest = re.sub(r"resolvers .*", "", match[2])
            rest = rest or "check"
            # What no test stands behind is away.
            found = [server.port for server in servers.get(backend, [])] or [9]
            lines += [f"  server {match[1]}{number} 127.0.0.1:{port} {rest}" for number, port in enumerate(found, 1)]
            continue
        if match := re.match(r"  (bind|peer \S+) (127\.0\.0\.1)?:(\d+)(.*)$", line):
            port = ports.get(int(match[3]), int(match[3]))
            lines.append(f"  {match[1]} 127.0.0.1:{port}{match[4]}")
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"


def patient(config: str) -> str:
    """The same with more time for a server of the test's own to take a connection and to answer a check, where the machine is slow."""
    slow = slowness()
    found = r"^( *timeout (?:check|connect) )(\d+)(ms|s)$"
    return re.sub(found, lambda match: f"{match[1]}{round(slow * int(match[2]))}{match[3]}", config, flags=re.MULTILINE)


@dataclass
class Edge:
    """A running edge; `ports` are those that the role fixes (443, 80, 8404, ...), as they are here."""

    place: Path
    run: Path
    tracking: int
    models: int
    own: int
    ports: dict[int, int]
    process: subprocess.Popen[bytes]
    log: list[str] = field(default_factory=list)

    def ask(
        self,
        method: str,
        path: str,
        *,
        port: int | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
        chunked: bool = False,
    ) -> Answer:
        """One request on a connection of its own; the port is that of the models where none is given."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or self.models, timeout=60, source_address=(address, 0)
        )
        with contextlib.closing(connection):
            data: Any = iter([body]) if chunked else body
            connection.request(method, path, body=data, headers=dict(headers or {}), encode_chunked=chunked)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def send(self, text: bytes, *, port: int | None = None, seconds: float = 20) -> bytes:
        """The answer to raw bytes."""
        with socket.create_connection(("127.0.0.1", port or self.models), timeout=seconds) as connection:
            connection.sendall(text)
            got = b""
            while part := connection.recv(65536):
                got += part
                head, end, body = got.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)^content-length: (\d+)", head, re.MULTILINE)
                if end and length and len(body) >= int(length[1]):
                    break
            return got


def listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def wait_until(what: Callable[[], bool], seconds: float = START_SECONDS, told: str = "it did not happen") -> None:
    """Wait until something is true."""
    began = time.monotonic()
    while not what():
        assert not too_late(began, seconds), told
        time.sleep(0.05)


@contextlib.contextmanager
def running(render: Render, place: Path, servers: Mapping[str, list[Server]], **given: Any) -> Iterator[Edge]:
    """An edge in front of servers, by the name of their backend."""
    if reason := obstacle("haproxy"):
        told = f"no haproxy: {reason}"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    config, run = place / "edge", place / "run"
    config.mkdir()
    run.mkdir()
    fixed = (8404, 8403, 443, 80)
    tracking, models, own, *rest = free_ports(3 + len(fixed))
    ports = dict(zip(fixed, rest, strict=True))
    served = given.get("served_models", MODELS)
    given = {
        "platform_tracking_port": tracking,
        "platform_models_port": models,
        "platform_secrets_dir": str(place / "secrets"),
        "edge_catalogue": "{{ __edge_empty_catalogue }}",
        **given,
        "served_models": [{**model, "port": own} if model.get("port") else model for model in served],
    }
    for name in (*FILES, *(TABLES if given.get("platform_auth") else ())):
        (config / name).write_text(render(f"{name}.j2", **given))
    text = patient(pointed_at(render("haproxy.cfg.j2", **given), servers, ports))
    (config / "haproxy.cfg").write_text(text)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    log = (place / "log").open("wb")
    process = subprocess.Popen(
        ["unshare", *user, "--mount", "sh", "-c", APART, "sh", str(TREE), str(config), str(run)],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        stdout=log,
        stderr=log,
    )
    edge = Edge(config, run, tracking, models, own, ports, process)

    def ready() -> bool:
        assert process.poll() is None, (place / "log").read_text()
        if not listening(ports[8404]):
            return False
        # The master listens again once its first worker runs.
        with socket.socket(socket.AF_UNIX) as master:
            if master.connect_ex(str(run / "master.sock")):
                return False
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(run / "admin.sock"))
            admin.sendall(b"show servers state\n")
            state = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        rows = [line.split() for line in state.splitlines()[2:] if line.strip()]
        return all(row[5] == "2" for row in rows if row[1] in servers and servers[row[1]])

    try:
        wait_until(ready, told="the edge does not find its servers")
        yield edge
    finally:
        process.terminate()
        process.wait(20)
        log.close()
