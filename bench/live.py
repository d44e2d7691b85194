"""A prediction API that runs, and what is asked of it over a connection that stays open."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from bench.machine import ROOT, Failure
from bench.serving.process import family, last_words, processes, proportional

HOST = "127.0.0.1"
READY_SECONDS = 120.0
ANSWER_SECONDS = 60.0
JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"


class Reply(NamedTuple):
    """An answer; status 0 if the server hung up instead."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The document in the body."""
        return json.loads(self.body)


def request(body: bytes, path: str = "/invocations", **headers: str) -> bytes:
    """One POST as it goes over the wire; an empty header is left out."""
    fields = {"host": HOST, "content_type": JSON, "content_length": str(len(body))} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def question(path: str) -> bytes:
    """One GET."""
    return f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()


class Connection:
    """A connection to a server, opened again where the server closed it."""

    def __init__(self, port: int, seconds: float = ANSWER_SECONDS) -> None:
        self.port = port
        self.seconds = seconds
        self.socket = self.open()

    def open(self) -> socket.socket:
        """A fresh connection."""
        return socket.create_connection((HOST, self.port), timeout=self.seconds)

    def close(self) -> None:
        """End it."""
        self.socket.close()

    def reopen(self) -> None:
        """Go on over a fresh connection."""
        self.socket.close()
        self.socket = self.open()

    def ask(self, data: bytes) -> Reply:
        """Send a request and read its answer; raises OSError where there is none in time."""
        self.send(data)
        return self.receive()

    def receive(self, *, head: bool = False) -> Reply:
        """The next answer, of which only the head comes after HEAD; then the connection can be used again."""
        reply = self.read(head=head)
        if not reply.status or reply.headers.get("connection") == "close":
            self.reopen()
        return reply

    def post(self, document: Any, path: str = "/invocations", **headers: str) -> Reply:
        """Ask with a JSON document, or with bytes as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.ask(request(body, path, **headers))

    def get(self, path: str) -> Reply:
        """Ask for a path."""
        return self.ask(question(path))

    def send(self, data: bytes) -> None:
        """Send some bytes; a server that refuses them may close before all are sent, and its answer is there all the same."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def closed(self) -> bool:
        """Whether the server closes the connection, and sends nothing before."""
        with contextlib.suppress(ConnectionResetError):
            return not self.socket.recv(1)
        return True

    def read(self, *, head: bool = False) -> Reply:
        """The next answer, and nothing else."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while b"\r\n\r\n" not in data:
                part = self.socket.recv(65536)
                if not part:
                    break
                data += part
        first, *lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        if not first:
            return Reply(0, {}, b"")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = data.partition(b"\r\n\r\n")[2]
        missing = 0 if head else int(headers["content-length"]) - len(body)
        parts = [body]
        while missing > 0:
            part = self.socket.recv(missing)
            if not part:
                raise ConnectionResetError("the answer is incomplete")
            parts.append(part)
            missing -= len(part)
        return Reply(int(first.split()[1]), headers, b"".join(parts))


class Live:
    """A started ``python -m serving``; its settings by their names in lower case."""

    def __init__(self, log: Path, **settings: object) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SERVING_")}
        settings = {"host": HOST, "port": 0} | settings
        environment |= {f"SERVING_{key.upper()}": str(value) for key, value in settings.items()}
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._port = 0

    def __enter__(self) -> Self:
        """Wait until it is ready."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it and its workers, by force."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def port(self) -> int:
        """Where it listens, once it is ready."""
        if not self._port:
            self._port = self.wait_for("ready")["port"]
        return self._port

    @property
    def url(self) -> str:
        """Where to ask."""
        return f"http://{HOST}:{self.port}"

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection, for as long as it is wanted."""
        with contextlib.closing(Connection(self.port)) as connection:
            yield connection

    @contextlib.contextmanager
    def connections(self, count: int) -> Iterator[list[Connection]]:
        """So many connections."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self.connect()) for _ in range(count)]

    def events(self) -> list[dict[str, Any]]:
        """What the log has; every line is a JSON object."""
        text = self.log.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_for(self, event: str, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """Wait for an event in the log."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            for found in self.events():
                if found["event"] == event:
                    return found
            if ended:
                break
            time.sleep(0.05)
        raise Failure(f"no event {event!r}: {last_words(self.log.read_text())}")

    def workers(self) -> list[int]:
        """Numbers of the processes that answer."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def memory(self) -> int:
        """Bytes that all its processes hold together."""
        total = 0
        for pid in family(processes(), self.process.pid):
            with contextlib.suppress(OSError):
                total += proportional(Path(f"/proc/{pid}/smaps_rollup").read_text())
        return total
