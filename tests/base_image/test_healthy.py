"""The health check of every container, run as the engine runs it against a server that does what the test says."""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pace import slowness, too_late

PROGRAM = Path(__file__).resolve().parents[2] / "roles/base_image/files/healthy.py"
# A watch short enough for a test, and long enough for some questions on a busy machine.
SHORT = 1.0 * slowness()
HUNG = 0.4


class Server(http.server.ThreadingHTTPServer):
    """Counts what it is asked, and answers with `status` after `delay` seconds; before that, once each, with those in `first`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.delay, self.asked = 200, 0.0, list[tuple[str, str, bytes]]()
        self.first: list[int] = []
        self.delay_of = dict[str, float]()
        self.text = b"what is wrong"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, body))
        time.sleep(self.server.delay_of.get(self.command, self.server.delay))
        with contextlib.suppress(OSError):
            self.send_response(self.server.first.pop(0) if self.server.first else self.server.status)
            self.end_headers()
            self.wfile.write(self.server.text)

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name in the class above
        """Leave the test's output alone."""


def process(directory: Path, state: str, ticks: int = 100) -> None:
    """Make the container's only process, whose second thread is in this state."""
    for file, shown in (("stat", "S"), ("task/7/stat", "S"), ("task/8/stat", state)):
        (directory / "proc/7" / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / "proc/7" / file).write_text(f"7 (a b) {shown} 1 7 7 0 -1 0 0 0 0 0 {ticks} 0 0 0\n")


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing, as a stopped one does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program, with its mark and the container's processes in a directory of the test's, and short times."""
    text = PROGRAM.read_text()
    changes = {
        '"/dev/shm/healthy"': f'"{tmp_path}/answered"',
        'PROC = "/proc"': f'PROC = "{tmp_path}/proc"',
        "WATCH_SECONDS = 15.0": f"WATCH_SECONDS = {SHORT}",
        "LIFE_SECONDS = 2.0": "LIFE_SECONDS = 0.2",
        "LIFE_EVERY = 1.0": "LIFE_EVERY = 0.1",
        "HUNG_SECONDS = 4.0": f"HUNG_SECONDS = {HUNG}",
        "DEAF_SECONDS = 10.0": "DEAF_SECONDS = 0.8",
    }
    process(tmp_path, "S")
    for here, there in changes.items():
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
    server.first = [503]
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
    assert seconds > SHORT / 2
    assert not too_late(time.monotonic() - seconds, 5 * SHORT)


@pytest.mark.parametrize("trouble", [{"status": 500}, {"delay_of": {"POST": 0.5}}])
def test_bad_answers_in_a_row_are_needed(
    program: Path, server: Server, tmp_path: Path, trouble: dict[str, object]
) -> None:
    (program.parent / "answered").touch()
    (tmp_path / "example.json").write_text("{}")
    vars(server).update(trouble)
    status, said, _ = check(
        program, 0.1, 0.3, 3, server.server_port, "/ping", "/invocations", tmp_path / "example.json"
    )
    assert status == 1
    # Beside them it gave signs of life.
    assert [method for method, _, _ in server.asked].count("POST") == 3
    assert said == (
        "HTTP/1.0 500 Internal Server Error what is wrong\n" if "status" in trouble else "no answer: timed out\n"
    )


def test_one_bad_answer_is_not_enough_and_the_last_one_is_a_good_one(program: Path, server: Server) -> None:
    (program.parent / "answered").touch()
    server.first = [500]
    assert check(program, 0.5, 1, 3, server.server_port, "/ready")[:2] == (0, "")
    assert len(server.asked) >= 2


def test_an_answer_that_drips_is_none(program: Path) -> None:
    """The time is for the answer as a whole."""
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
    assert not too_late(time.monotonic() - seconds, 5)


def test_a_model_gets_the_request_that_it_was_logged_with(program: Path, server: Server, tmp_path: Path) -> None:
    example = tmp_path / "example.json"
    arguments = (0.2, 1, 3, server.server_port, "/ping", "/invocations", example)
    assert check(program, *arguments)[0] == 0
    example.write_text('{"inputs": [1]}')
    (tmp_path / "answered").unlink()
    assert check(program, *arguments)[0] == 0
    assert server.asked == [("GET", "/ping", b""), ("POST", "/invocations", b'{"inputs": [1]}')]


def test_a_missing_value_is_null_and_what_is_no_json_stays_as_it_is(
    program: Path, server: Server, tmp_path: Path
) -> None:
    example = tmp_path / "example.json"
    for text in ('{"inputs": [NaN, "NaN", -Infinity]}', "a,b\nNaN,1"):
        example.write_text(text)
        assert check(program, 0.2, 1, 3, server.server_port, "/ping", "/invocations", example)[0] == 0
        (tmp_path / "answered").unlink()
    assert [body for _, _, body in server.asked] == [b'{"inputs": [null, "NaN", null]}', b"a,b\nNaN,1"]


def test_a_command(program: Path, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody.sock"
    assert check(program, 0.2, 1, 3, nobody, "true")[:2] == (0, "")
    assert check(program, 0.2, 1, 3, nobody, "sh", "-c", "echo no database >&2; exit 2")[:2] == (1, "no database\n")
    (tmp_path / "answered").unlink()
    assert check(program, 0.2, 1, 1, nobody, "sh", "-c", "exit 3")[:2] == (1, "exit status 3\n")
    assert "timed out" in check(program, 0.1, 0.2, 1, nobody, "sleep", "9")[1]


def test_a_silent_server_that_does_nothing_is_hung_before_the_questions_end(program: Path, silent: int) -> None:
    (program.parent / "answered").touch()
    status, said, seconds = check(program, 0.1, 30, 3, silent, "/ready")
    assert (status, said) == (1, "hung: no sign of life for 0 s, and no work\n")
    assert HUNG <= seconds < 10


@pytest.mark.parametrize("state", ["R", "D"])
def test_a_silent_server_of_which_a_thread_runs_or_waits_for_a_disk_is_busy(
    program: Path, silent: int, state: str
) -> None:
    (program.parent / "answered").touch()
    process(program.parent, state)
    status, said, _ = check(program, 0.1, 0.6, 1, silent, "/ready")
    assert (status, said) == (1, "no answer: timed out\n")


@pytest.fixture
def works(program: Path) -> Iterator[None]:
    """The container's process has more than a whole processor."""
    over = threading.Event()

    def work() -> None:
        for ticks in range(100, 10**6, 10):
            # As the kernel shows it, whole at every moment.
            (program.parent / "new").write_text(f"7 (a b) S 1 7 7 0 -1 0 0 0 0 0 {ticks} 0 0 0\n")
            (program.parent / "new").replace(program.parent / "proc/7/stat")
            if over.wait(0.02):
                return

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.mark.usefixtures("works")
def test_a_silent_server_that_uses_the_processor_is_busy(program: Path, silent: int) -> None:
    (program.parent / "answered").touch()
    assert check(program, 0.1, 0.6, 1, silent, "/ready")[:2] == (1, "no answer: timed out\n")


@pytest.mark.usefixtures("works")
def test_one_that_turned_in_circles_through_all_questions_is_hung(program: Path, silent: int) -> None:
    (program.parent / "answered").touch()
    assert check(program, 0.1, 0.6, 3, silent, "/ready")[:2] == (1, "hung: no answer: timed out\n")


def test_one_that_waited_for_the_processor_through_all_questions_is_not(program: Path, silent: int) -> None:
    (program.parent / "answered").touch()
    process(program.parent, "R")
    assert check(program, 0.1, 0.6, 3, silent, "/ready")[:2] == (1, "no answer: timed out\n")


def test_a_slow_prediction_is_no_silence(program: Path, server: Server, tmp_path: Path) -> None:
    (program.parent / "answered").touch()
    example = tmp_path / "example.json"
    example.write_text("{}")
    # The server of the test answers a GET at once, as those of both engines do while a model computes.
    server.delay_of["POST"] = 1.2
    status, said, _ = check(program, 0.1, 0.6, 2, server.server_port, "/ping", "/invocations", example)
    assert (status, said) == (1, "no answer: timed out\n")


@pytest.mark.parametrize("answers", [True, False])
def test_the_socket_of_a_database_tells_recovery_from_silence(program: Path, tmp_path: Path, *, answers: bool) -> None:
    """While it recovers, every command fails or hangs, but its first process answers."""
    (program.parent / "answered").touch()
    path = tmp_path / "s.PGSQL"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    assert connection.recv(8) == bytes.fromhex("0000000804d2162f")
                    connection.sendall(b"N")
                    connection.close()

        if answers:
            threading.Thread(target=answer, daemon=True).start()
        status, said, _ = check(program, 0.1, 0.6, 2, path, "sleep", "9")
    assert status == 1
    assert said.startswith("Command" if answers else "hung: no sign of life")
