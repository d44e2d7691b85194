"""Prove that the model answers: send it the request it was logged with, or ask whether it is there if it has none.

A server that is still loading is waited for, so that a container is healthy as soon as its model is. It runs every few
seconds and therefore imports next to nothing.
"""

import socket
import sys
import time

ADDRESS = ("127.0.0.1", 8080)
EXAMPLE = "/opt/model/serving_input_example.json"
SECONDS = 9.0


def request() -> bytes:
    """Return the bytes of the HTTP request."""
    head = "Host: 127.0.0.1\r\nConnection: close\r\n"
    try:
        with open(EXAMPLE, "rb") as file:  # noqa: PTH123 - pathlib takes longer to import than all the rest
            body = file.read()
    except FileNotFoundError:
        return f"GET /ping HTTP/1.1\r\n{head}\r\n".encode()
    return (
        f"POST /invocations HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def answer(deadline: float) -> bytes:
    """Return what the server answers, once it takes connections."""
    while True:
        try:
            connection = socket.create_connection(ADDRESS, timeout=max(0.1, deadline - time.monotonic()))
            break
        except ConnectionRefusedError:
            if time.monotonic() + 0.2 > deadline:
                raise
            time.sleep(0.2)
    with connection:
        connection.sendall(request())
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def main() -> int:
    """Return 0 if the model answers, and print why not."""
    try:
        received = answer(time.monotonic() + SECONDS)
    except OSError as error:
        sys.stdout.write(f"no answer: {error}\n")
        return 1
    status = received.split(b"\r\n", 1)[0].split()
    if len(status) >= 2 and status[1] == b"200":  # noqa: PLR2004 - the protocol's word and its number
        return 0
    head, _, body = received.decode(errors="replace").partition("\r\n\r\n")
    sys.stdout.write(f"{head.partition(chr(13))[0] or 'an empty answer'} {body.strip()[:1000]}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
