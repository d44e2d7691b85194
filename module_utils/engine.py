"""The container engine's API with nothing but Python's standard library: no package to install, and none to load for a single question."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import quote, urlencode

SOCKET = "/var/run/docker.sock"


class EngineError(Exception):
    """The engine refused a request or does not answer."""


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

    def get(self, path: str) -> Any:
        """Return the document at `path`, or None where there is none; raise EngineError where nobody answers."""
        try:
            self.request("GET", path)
            answer = self.getresponse()
            text = answer.read()
            if answer.status == http.client.NOT_FOUND:
                return None
            document = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"the engine at {self.path} does not answer: {error}") from error
        finally:
            self.close()
        if answer.status != http.client.OK:
            raise EngineError(f"the engine answers {path} with {answer.status}: {document.get('message', text)}")
        return document

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
