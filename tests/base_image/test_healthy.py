"""The health check of every container, run as the engine runs it against a server that does what the test says."""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/base_image/files/healthy.py"
# A watch short enough for a test.
SHORT = 1.0


class Server(http.server.ThreadingHTTPServer):
    """Counts what it is asked, and answers with `status` after `delay` seconds."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.delay, self.asked = 200, 0.0, list[tuple[str, str, bytes]]()
        self.text = b"what is wrong"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, body))
        time.sleep(self.server.delay)
        with contextlib.suppress(OSError):
            self.send_response(self.server.status)
            self.end_headers()
            self.wfile.write(self.server.text)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name in the class above
        """Leave the test's output alone."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program, with its mark in a directory of the test's and a short watch."""
    text = PROGRAM.read_text()
    for here, there in (('"/dev/shm/healthy"', f'"{tmp_path}/answered"'), ("SECONDS = 15.0", f"SECONDS = {SHORT}")):
        assert text.count(here) == 1, here
        text = text.replace(here, there)
    program = tmp_path / "healthy"
    program.write_text(text)
    return program


def check(program: Path, *arguments: object) -> tuple[int, str, float]:
    """Return exit status, output and seconds of one health check."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-IS", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout, time.monotonic() - began


def test_the_first_check_ends_with_the_first_good_answer(program: Path, server: Server) -> None:
    assert check(program, 0.2, 1, 3, server.server_port, "/ready")[:2] == (0, "")
    assert server.asked == [("GET", "/ready", b"")]


def test_the_first_check_waits_for_a_server_that_starts(program: Path, server: Server) -> None:
    server.status = 503
    threading.Timer(0.3, setattr, (server, "status", 200)).start()
    assert check(program, 0.2, 1, 3, server.server_port, "/ready")[0] == 0
    assert len(server.asked) == 2


def test_the_first_check_says_what_a_server_answers_that_never_gets_ready(program: Path, server: Server) -> None:
    server.status = 503
    status, said, seconds = check(program, 0.2, 1, 3, server.server_port, "/ready")
    assert (status, said) == (1, "HTTP/1.0 503 Service Unavailable what is wrong\n")
    assert seconds > SHORT / 2
    assert not (program.parent / "answered").exists()


def test_of_a_long_answer_the_end_is_said_too(program: Path, server: Server) -> None:
    """A traceback ends with what happened."""
    server.status = 500
    server.text = b"Traceback" + b" File" * 1000 + b" RuntimeError: feature store unreachable"
    _, said, _ = check(program, 0.2, 1, 3, server.server_port, "/ready")
    assert said.startswith("HTTP/1.0 500 Internal Server Error Traceback")
    assert said.endswith("RuntimeError: feature store unreachable\n")
    assert len(said) < 1200


def test_nobody_listens(program: Path) -> None:
    status, said, _ = check(program, 0.2, 1, 3, 1, "/ready")
    assert (status, said) == (1, "no answer: [Errno 111] Connection refused\n")


def test_later_checks_ask_many_times(program: Path, server: Server) -> None:
    (program.parent / "answered").touch()
    status, _, seconds = check(program, 0.2, 1, 3, server.server_port, "/ready")
    assert status == 0
    assert len(server.asked) >= 3
    assert SHORT / 2 < seconds < 10 * SHORT


@pytest.mark.parametrize("trouble", [{"status": 500}, {"delay": 0.5}])
def test_bad_answers_in_a_row_are_needed(program: Path, server: Server, trouble: dict[str, float]) -> None:
    (program.parent / "answered").touch()
    vars(server).update(trouble)
    status, said, _ = check(program, 0.1, 0.3, 3, server.server_port, "/ready")
    assert status == 1
    assert len(server.asked) == 3
    assert said == (
        "no answer: timed out\n" if "delay" in trouble else "HTTP/1.0 500 Internal Server Error what is wrong\n"
    )


def test_one_bad_answer_is_not_enough_and_the_last_one_is_a_good_one(program: Path, server: Server) -> None:
    (program.parent / "answered").touch()
    server.status = 500
    threading.Timer(0.3, setattr, (server, "status", 200)).start()
    assert check(program, 0.5, 1, 3, server.server_port, "/ready")[:2] == (0, "")


def test_an_answer_that_drips_is_none(program: Path) -> None:
    """The time is for the answer as a whole."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.1)

        threading.Thread(target=drip, daemon=True).start()
        (program.parent / "answered").touch()
        status, said, seconds = check(program, 0.1, 0.4, 1, listener.getsockname()[1], "/ready")
    assert (status, said) == (1, "no answer: timed out\n")
    assert seconds < 5


def test_a_model_gets_the_request_that_it_was_logged_with(program: Path, server: Server, tmp_path: Path) -> None:
    example = tmp_path / "example.json"
    arguments = (0.2, 1, 3, server.server_port, "/ping", "/invocations", example)
    assert check(program, *arguments)[0] == 0
    example.write_text('{"inputs": [1]}')
    (tmp_path / "answered").unlink()
    assert check(program, *arguments)[0] == 0
    assert server.asked == [("GET", "/ping", b""), ("POST", "/invocations", b'{"inputs": [1]}')]


def test_a_command(program: Path, tmp_path: Path) -> None:
    assert check(program, 0.2, 1, 3, "true")[:2] == (0, "")
    assert check(program, 0.2, 1, 3, "sh", "-c", "echo no database >&2; exit 2")[:2] == (1, "no database\n")
    (tmp_path / "answered").unlink()
    assert check(program, 0.2, 1, 1, "sh", "-c", "exit 3")[:2] == (1, "exit status 3\n")
    assert "timed out" in check(program, 0.1, 0.2, 1, "sleep", "9")[1]
