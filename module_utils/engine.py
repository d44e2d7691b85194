"""The container engine's API with nothing but Python's standard library: no package to install, and none to load for a single question."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote, urlencode

SOCKET = "/var/run/docker.sock"


class EngineError(Exception):
    """The engine refused a request, with a status of HTTP, or does not answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def socket_path() -> str:
    """Return the path of the engine's socket, from DOCKER_HOST as all of Docker's clients take it."""
    return os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or SOCKET


class Engine(http.client.HTTPConnection):
    """The engine's API over its socket; one request after the other."""

    def __init__(self, path: str, timeout: float = 60.0) -> None:
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, method: str, path: str, document: Any = None, headers: dict[str, str] | None = None) -> bytes:
        """Return what the engine answers; raise EngineError where it refuses or nobody answers."""
        body = None if document is None else json.dumps(document)
        sent = (headers or {}) | ({"Content-Type": "application/json"} if body else {})
        try:
            self.request(method, path, body=body, headers=sent)
            answer = self.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"the engine at {self.path} does not answer: {error}") from error
        finally:
            self.close()
        if answer.status >= http.client.MULTIPLE_CHOICES:
            reason = text.decode(errors="replace").strip()
            with contextlib.suppress(ValueError, AttributeError):
                reason = json.loads(text).get("message", reason)
            raise EngineError(f"the engine answers {path} with {answer.status}: {reason}", answer.status)
        return text

    def get(self, path: str) -> Any:
        """Return the document at `path`, or None where there is none; raise EngineError where nobody answers."""
        try:
            return self._document(self.ask("GET", path))
        except EngineError as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise

    def post(self, path: str, document: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Send a document and return the engine's, None where it has nothing to say."""
        text = self.ask("POST", path, document, headers)
        return self._document(text) if text.strip() else None

    def _document(self, text: bytes) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise EngineError(f"the engine at {self.path} does not answer: {error}") from error

    def execute(self, container: str, argv: list[str]) -> tuple[int, str, str]:
        """Run a command in a container; return its exit code and both its outputs."""
        command = {"AttachStdout": True, "AttachStderr": True, "Cmd": argv}
        identity = self.post(f"/containers/{quote(container)}/exec", command)["Id"]
        pieces = list(frames(self.ask("POST", f"/exec/{identity}/start", {"Detach": False, "Tty": False})))
        # A container that went away meanwhile takes the exit code along: 404, an error like any other.
        while (state := self._document(self.ask("GET", f"/exec/{identity}/json")))["Running"]:
            time.sleep(0.05)
        output, errors = ("".join(text for stream, text in pieces if stream == number) for number in (1, 2))
        return int(state["ExitCode"]), output, errors

    def run(self, specification: dict[str, Any]) -> tuple[int, str, str]:
        """Run a container to its end and remove it; return its exit code and both its outputs."""
        place = f"/containers/{self.post('/containers/create', specification)['Id']}"
        try:
            self.post(f"{place}/start")
            code = int(self.post(f"{place}/wait")["StatusCode"])
            pieces = list(frames(self.ask("GET", f"{place}/logs?stdout=1&stderr=1")))
        finally:
            self.ask("DELETE", f"{place}?force=1&v=1")
        output, errors = ("".join(text for stream, text in pieces if stream == number) for number in (1, 2))
        return code, output, errors

    def image(self, ref: str) -> dict[str, Any]:
        """Return what the engine says of an image, or an empty dict."""
        return self.get(f"/images/{quote(ref)}/json") or {}

    def build(self, context: IO[bytes], options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Build an image from a tar archive; yield the steps of the classic builder, which every engine has."""
        query = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in options.items()}
        try:
            self.request(
                "POST", f"/build?{urlencode(query)}", body=context, headers={"Content-Type": "application/x-tar"}
            )
            answer = self.getresponse()
            if answer.status != http.client.OK:
                raise EngineError(f"the engine answers {answer.status}: {answer.read().decode(errors='replace')}")
            for line in answer:
                if line.strip():
                    yield json.loads(line)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"the engine at {self.path} broke off: {error}") from error
        finally:
            self.close()


def frames(raw: bytes) -> Iterator[tuple[int, str]]:
    """Yield the pieces of a container's output with the number of their stream, 1 or 2, in their order.

    The engine frames them as its API says under POST /containers/{id}/attach, "Stream format".
    """
    place = 0
    while place + 8 <= len(raw):
        stream, length = struct.unpack_from(">BxxxL", raw, place)
        yield stream, raw[place + 8 : place + 8 + length].decode(errors="replace")
        place += 8 + length
