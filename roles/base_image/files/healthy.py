#!/usr/bin/python3 -IS
"""Exit 0 while the server in this container answers; print why not and exit 1 when it has failed often enough.

    healthy EVERY WITHIN FAILURES PORT PATH [PATH BODY]     HTTP on 127.0.0.1; BODY is a file of JSON to POST to the second path where it exists
    healthy EVERY WITHIN FAILURES SOCKET COMMAND ...        any program that exits 0; SOCKET is PostgreSQL's

EVERY and WITHIN are the seconds between two questions and for one answer, FAILURES those in a row that make it unhealthy.

Beside the questions each second wants a sign of life: any answer to a GET of the path, or the socket's word on encryption. A server that gives none and
does no work either is hung: the check ends at once, and its output begins with "hung:", by which the watchdog on the host knows whom to replace. One that
works is busy, and gets all the time that the questions have.

The engine starts a process in the container for every check, which costs ten times what the question does. So the first check after a start waits
for the first good answer, and each later one goes on asking for a while before it ends.
"""

import _thread
import os
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# In memory, and the engine makes it anew with each start of the container.
ANSWERED = "/dev/shm/healthy"  # noqa: S108 - the container's own
WATCH_SECONDS = 15.0
# Between two questions to a server that starts.
START_SECONDS = 0.5
# For a sign of life, and between two; how long there is none until a server that does nothing is hung.
LIFE_SECONDS = 2.0
LIFE_EVERY = 1.0
HUNG_SECONDS = 4.0
# Without any sign for so long, whoever has failed the questions too is hung if it had this part of a processor all the time: it turns in circles.
# One that had less is short of it.
DEAF_SECONDS = 10.0
SPINS = 0.5
# The part of a processor from which on a silent server works, and where the kernel says so.
WORKS = 0.02
PROC = "/proc"
TICK = 1 / os.sysconf("SC_CLK_TCK")
# PostgreSQL's question whether a client wants encryption: answered with one byte before anything is asked of the database.
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class UnhealthyError(Exception):
    """The server gave no good answer; the message says what it did instead."""


def shortened(text: str) -> str:
    """Return a long answer without its middle: a traceback ends with what happened."""
    return text if len(text) <= 1000 else f"{text[:200]} ... {text[-800:]}"  # noqa: PLR2004 - what fits into a result of the engine


def request(path: str, posted: str, body: str) -> bytes:
    """Return the bytes of the HTTP request."""
    head = "Host: 127.0.0.1\r\nConnection: close\r\n"
    try:
        with open(body, "rb") as file:  # noqa: PTH123 - pathlib takes longer to import than all the rest
            content = file.read()
    except FileNotFoundError:
        return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()
    if b"NaN" in content or b"Infinity" in content:
        content = strict_json(content)
    lines = f"POST {posted} HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return lines.encode() + content


def strict_json(content: bytes) -> bytes:
    """Return what MLflow wrote as JSON: a missing value is NaN to it, which JSON lacks and null stands for."""
    from json import dumps, loads  # noqa: PLC0415 - most checks do not need it

    try:
        return dumps(loads(content, parse_constant=lambda _: None)).encode()
    except (ValueError, RecursionError):
        return content


def ask_http(address: tuple[str, int], message: bytes, seconds: float) -> None:
    """Raise UnhealthyError unless the server answers with 200 within so many seconds as a whole."""
    deadline = time.monotonic() + seconds
    received = b""
    try:
        with socket.create_connection(address, timeout=seconds) as connection:
            connection.sendall(message)
            while part := connection.recv(65536):
                received += part
                connection.settimeout(max(0.001, deadline - time.monotonic()))
    except OSError as error:
        raise UnhealthyError(f"no answer: {error}") from error
    status = received.split(b"\r\n", 1)[0].split()
    if len(status) < 2 or status[1] != b"200":  # noqa: PLR2004 - the protocol's word and its number
        head, _, text = received.decode(errors="replace").partition("\r\n\r\n")
        raise UnhealthyError(f"{head.partition(chr(13))[0] or 'an empty answer'} {shortened(text.strip())}")


def ask_command(command: list[str], seconds: float) -> None:
    """Raise UnhealthyError unless the command exits 0 within so many seconds."""
    import subprocess  # noqa: PLC0415 - most checks do not need it

    try:
        done = subprocess.run(  # noqa: S603 - what the image's own health check names
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnhealthyError(str(error)) from error
    if done.returncode:
        raise UnhealthyError((done.stderr or done.stdout).strip()[-1000:] or f"exit status {done.returncode}")


def gives_sign(family: int, address: "tuple[str, int] | str", message: bytes) -> bool:
    """Whether somebody says anything in time. That nobody listens is no silence: such a server is not hung."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(LIFE_SECONDS)
            connection.connect(address)
            connection.sendall(message)
            connection.recv(1)
    except (TimeoutError, BlockingIOError):  # The second one: a full queue of a socket.
        return False
    except OSError:
        pass
    return True


def work() -> "tuple[float, bool]":
    """Processor seconds of all processes in the container but this one's, and whether any thread runs, or waits for a disk or a processor."""
    own, total, runs = os.getpid(), 0.0, False
    for pid in filter(str.isdigit, os.listdir(PROC)):  # noqa: PTH208 - see above
        try:
            fields = status(f"{PROC}/{pid}/stat")
            if own in {int(pid), int(fields[1])}:
                continue
            total += (int(fields[11]) + int(fields[12])) * TICK
            threads = os.listdir(f"{PROC}/{pid}/task")  # noqa: PTH208
            runs = runs or any(status(f"{PROC}/{pid}/task/{thread}/stat")[0] in "RD" for thread in threads)
        except OSError:  # It has just ended.
            continue
    return total, runs


def status(file: str) -> "list[str]":
    """The fields of a process's or thread's stat file from its state on; its name before may hold anything."""
    with open(file, encoding="utf-8", errors="replace") as stat:  # noqa: PTH123 - see above
        return stat.read().rpartition(")")[2].split()


class Life:
    """The signs of life that a server gives while it is asked."""

    def __init__(self, sign: "Callable[[], bool]") -> None:
        self.sign = sign
        self.last = time.monotonic()
        # Moment and processor seconds of the first silence, and since when it has done nothing.
        self.first: tuple[float, float] | None = None
        self.idle_since: tuple[float, float] | None = None

    @property
    def silence(self) -> float:
        """Seconds since the last sign."""
        return time.monotonic() - self.last

    def spins(self) -> bool:
        """Whether it has been silent for long and had the processor meanwhile."""
        if self.first is None or self.silence <= DEAF_SECONDS:
            return False
        return work()[0] - self.first[1] > SPINS * (time.monotonic() - self.first[0])

    def is_hung(self) -> bool:
        """Ask for a sign; whether there has been neither one nor any work for too long."""
        if self.sign():
            self.last, self.first, self.idle_since = time.monotonic(), None, None
            return False
        now = time.monotonic()
        used, runs = work()
        self.first = self.first or (now, used)
        if runs or self.idle_since is None or used - self.idle_since[1] > WORKS * (now - self.idle_since[0]):
            # It works, or the silence is new: what it does from here on counts.
            self.idle_since = now, used
            return False
        return self.silence >= HUNG_SECONDS

    def guard(self) -> None:
        """End this check as soon as the server is hung."""
        while not self.is_hung():
            time.sleep(LIFE_EVERY if self.first is None else LIFE_EVERY / 5)
        sys.stdout.write(f"hung: no sign of life for {self.silence:.0f} s, and no work\n")
        sys.stdout.flush()
        os._exit(1)


def wait(ask: "Callable[[], None]") -> int:
    """Ask until the first good answer; return 0, or 1 when the time is over."""
    end = time.monotonic() + WATCH_SECONDS
    while True:
        try:
            ask()
        except UnhealthyError as error:
            if time.monotonic() + START_SECONDS > end:
                sys.stdout.write(f"{error}\n")
                return 1
        else:
            return 0
        time.sleep(START_SECONDS)


def watch(ask: "Callable[[], None]", life: Life, every: float, failures: int) -> int:
    """Ask until the time is over; return 0, or 1 after so many failures in a row."""
    _thread.start_new_thread(life.guard, ())
    end = time.monotonic() + WATCH_SECONDS
    failed = 0
    while True:
        try:
            ask()
        except UnhealthyError as error:
            failed += 1
            if failed >= failures:
                sys.stdout.write(f"{'hung: ' if life.spins() else ''}{error}\n")
                return 1
        else:
            failed = 0
        # What has just failed is asked again, whatever the time.
        if failed == 0 and time.monotonic() + every > end:
            return 0
        time.sleep(every)


def main() -> int:
    """Return 0 if the server answers."""
    every, within, failures, what, *more = sys.argv[1:]
    if what.isdigit():
        address, message = ("127.0.0.1", int(what)), request(*([*more, "", ""])[:3])
        glance = request(more[0], "", "")
        life = Life(lambda: gives_sign(socket.AF_INET, address, glance))

        def ask() -> None:
            ask_http(address, message, float(within))
    else:
        life = Life(lambda: gives_sign(socket.AF_UNIX, what, SSL_REQUEST))

        def ask() -> None:
            ask_command(more, float(within))

    if os.path.exists(ANSWERED):  # noqa: PTH110 - see above
        return watch(ask, life, float(every), int(failures))
    status = wait(ask)
    if status == 0:
        os.close(os.open(ANSWERED, os.O_CREAT | os.O_WRONLY, 0o600))
    return status


if __name__ == "__main__":
    sys.exit(main())
