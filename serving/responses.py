"""Answers: their headers made once, their sending in two messages."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec

from serving.errors import InvalidInput, ServingError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON = (b"content-type", b"application/json")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# What a client may still send, and for how long, after it was told that its body is refused: a connection that is closed
# with bytes unread is reset, and the client might lose the answer.
LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 2.0


@dataclass(slots=True)
class Response:
    """An answer whose body is known."""

    status: int
    body: bytes
    headers: tuple[Header, ...] = (JSON,)


class Writer:
    """Sends answers with the headers that every one of them has."""

    def __init__(self, name: str, version: str) -> None:
        self.common: tuple[Header, ...] = (
            (b"x-model-name", header_value(name)),
            (b"x-model-version", header_value(version)),
        )
        self._json = (JSON, *self.common)
        self._head: tuple[object, bytes] = (None, b"")
        self.renew()

    def renew(self) -> None:
        """Start new request ids; every process needs its own."""
        self._prefix = secrets.token_hex(6).encode()
        self._next = count()

    def request_id(self, headers: Mapping[bytes, bytes]) -> bytes:
        """The client's request id where it is a harmless one, else a new one."""
        given = headers.get(b"x-request-id")
        if given is not None and REQUEST_ID.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix, next(self._next))

    async def ok(self, send: Send, body: bytes, request_id: bytes) -> None:
        """Send a prediction."""
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": (*self._json, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id)),
            }
        )
        await send({"type": "http.response.body", "body": body})

    def head(self, defaults: list[Header], *, keep: bool) -> bytes:
        """The beginning of a prediction as it goes over the wire; ``defaults`` are headers that change once a second."""
        if self._head[0] is not defaults:
            lines = [b"%b: %b\r\n" % header for header in (*defaults, *self._json)]
            self._head = defaults, b"HTTP/1.1 200 OK\r\n" + b"".join(lines)
        return self._head[1] if keep else self._head[1] + b"connection: close\r\n"

    async def write(self, send: Send, response: Response, request_id: bytes, more: Iterable[Header] = ()) -> None:
        """Send any answer."""
        await self.start(send, response, request_id, more)
        await send({"type": "http.response.body", "body": response.body})

    async def start(self, send: Send, response: Response, request_id: bytes, more: Iterable[Header] = ()) -> None:
        """Send the head of an answer."""
        length = (b"content-length", b"%d" % len(response.body))
        headers = [*response.headers, *self.common, length, (b"x-request-id", request_id), *more]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})

    async def refuse(self, send: Send, receive: Receive | None, response: Response, request_id: bytes) -> None:
        """Answer a request whose body is not read, and close the connection; with ``receive``, let the client finish."""
        await self.start(send, response, request_id, ((b"connection", b"close"),))
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        left = LINGER_BYTES if receive is not None else 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0 and receive is not None:
                    message = await receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        break
                    left -= len(message.get("body", b""))
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})


def failure(error: ServingError, *, inference: bool) -> Response:
    """The answer to an error; the Open Inference Protocol wants the message under ``error`` too."""
    document = error.body()
    if inference:
        document = {"error": document["message"], **document}
    headers = tuple((name.encode(), value.encode()) for name, value in error.headers.items())
    return Response(error.status, encode(document), (JSON, *headers))


def rejected_fields(error: InvalidInput) -> set[str]:
    """The names in the paths of the problems, for the metrics."""
    return {str(part) for problem in error.problems for part in problem.loc[1:] if isinstance(part, str)}


def header_value(text: str) -> bytes:
    """The text as a header can carry it."""
    return re.sub(r"[^\x20-\x7e]", "?", text).strip().encode("ascii")


def encode(document: Any) -> bytes:
    """JSON of a small document."""
    return msgspec.json.encode(document, enc_hook=str)
