#!/usr/bin/python3 -IS
"""Exit 0 while the server in this container answers; print why not and exit 1 when it has failed often enough.

    healthy EVERY WITHIN FAILURES PORT PATH [PATH BODY]     HTTP on 127.0.0.1; BODY is a file of JSON to POST to the second path where it exists
    healthy EVERY WITHIN FAILURES COMMAND ...               any program that exits 0

EVERY and WITHIN are the seconds between two questions and for one answer, FAILURES those in a row that make it unhealthy.

The engine starts a process in the container for every check, which costs ten times what the question does. So the first check after a start waits
for the first good answer, and each later one goes on asking for a while before it ends.
"""

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


class UnhealthyError(Exception):
    """The server gave no good answer; the message says what it did instead."""


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
        raise UnhealthyError(f"{head.partition(chr(13))[0] or 'an empty answer'} {text.strip()[:1000]}")


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


def watch(ask: "Callable[[], None]", every: float, failures: int) -> int:
    """Ask until the time is over; return 0, or 1 after so many failures in a row."""
    end = time.monotonic() + WATCH_SECONDS
    failed = 0
    while True:
        try:
            ask()
        except UnhealthyError as error:
            failed += 1
            if failed >= failures:
                sys.stdout.write(f"{error}\n")
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
        message = request(*([*more, "", ""])[:3])

        def ask() -> None:
            ask_http(("127.0.0.1", int(what)), message, float(within))
    else:

        def ask() -> None:
            ask_command([what, *more], float(within))

    if os.path.exists(ANSWERED):  # noqa: PTH110 - see above
        return watch(ask, float(every), int(failures))
    status = wait(ask)
    if status == 0:
        os.close(os.open(ANSWERED, os.O_CREAT | os.O_WRONLY, 0o600))
    return status


if __name__ == "__main__":
    sys.exit(main())
