"""What the tests of several modules need: Ansible's way to module_utils/, and an engine that listens on a socket."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import ansible.module_utils
import pytest

from tests.cloud.fixtures import cloud, naps, run, url

__all__ = ["cloud", "listen", "naps", "run", "url"]

# Ansible ships the directory with a module; here it is found where Ansible would put it.
ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "module_utils"))


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    """A function that lets a handler answer on a socket, and returns the socket's path."""
    with ExitStack() as ends:

        def start(handler: type[BaseHTTPRequestHandler]) -> str:
            path = str(tmp_path / "docker.sock")
            quiet = type("Quiet", (handler,), {"log_message": lambda *_: None, "address_string": lambda _: "socket"})
            server = ends.enter_context(socketserver.UnixStreamServer(path, quiet))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            ends.callback(server.shutdown)
            return path

        yield start
