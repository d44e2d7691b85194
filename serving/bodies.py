"""Bodies of requests: read within a size and a time, counted while they are held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from serving.errors import BadRequest, QueueFull, RequestTimeout, TooLarge, UnsupportedMediaType

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
# All bodies of a worker together may have so many times the size of one.
SHARES = 4
# A body must come at this rate at least, in bytes a second, over each of such times: whoever sends less is cut off after
# twice the time at the latest. The last bytes of a body have as long.
LEAST_RATE, RATE_SECONDS = 1024, 4.0


class Disconnected(Exception):  # noqa: N818 - no error of ours
    """The client went away before it had sent everything."""


@dataclass(slots=True)
class Reading:
    """A body that is on its way: since when, its bytes so far, and the same at the last look at its rate."""

    since: float
    size: int = 0
    seen: float = 0.0
    seen_size: int = 0

    def late(self, now: float, timeout: float) -> str | None:
        """What is wrong with its speed."""
        if now - self.since > timeout:
            return f"The body did not come within {timeout:g} s"
        if now - self.seen > RATE_SECONDS:
            if self.size - self.seen_size < LEAST_RATE * RATE_SECONDS:
                return f"The body came at less than {LEAST_RATE} bytes a second for {RATE_SECONDS:g} s"
            self.seen, self.seen_size = now, self.size
        return None


class Bodies:
    """Reads bodies; ``sweep`` must be called now and then to end those that come too slowly."""

    def __init__(self, limit: int, timeout: float) -> None:
        self.limit = limit
        self.timeout = timeout
        self.held = 0
        # Bodies as ``sweep`` first saw them: asking for the time at every request would cost more than the rest here.
        self._reading: dict[asyncio.Task[Any], Reading | None] = {}
        self._late: dict[asyncio.Task[Any], str] = {}

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what the head of the request already shows."""
        encoding = headers.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() not in {b"identity", b""}:
            # Nothing is ever unpacked, so nothing can swell.
            raise UnsupportedMediaType("The body must not be compressed: send it without Content-Encoding")
        length = headers.get(b"content-length")
        if length is not None:
            if not length.isdigit():
                raise BadRequest("Content-Length is no number")
            if int(length) > self.limit:
                raise self._too_large()

    async def read(self, receive: Receive) -> bytes:
        """The body, which counts as held until ``held`` is reduced by its length. Raises ServingError, Disconnected."""
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]
        reading = self._reading
        reading[task] = None
        try:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            body: bytes = message.get("body", b"")
            if message.get("more_body"):
                return await self._rest(body, receive, task)
            self._hold(len(body), 0)
        except asyncio.CancelledError:
            if task in self._late:
                task.uncancel()
                raise RequestTimeout(f"{self._late[task]}; send it faster, or in several requests") from None
            raise
        else:
            return body
        finally:
            del reading[task]
            if self._late:
                self._late.pop(task, None)

    async def _rest(self, first: bytes, receive: Receive, task: asyncio.Task[Any]) -> bytes:
        """The body, of which ``first`` has come."""
        size = 0
        parts = bytearray()
        try:
            size = self._hold(len(first), size)
            parts += first
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected  # noqa: TRY301 - as above
                part = message.get("body", b"")
                size = self._hold(len(part), size)
                parts += part
                reading = self._reading[task]
                if reading is not None:
                    reading.size = size
                more = message.get("more_body", False)
        except BaseException:
            self.held -= size
            raise
        return bytes(parts)

    def _hold(self, more: int, size: int) -> int:
        """Count ``more`` bytes; the size that the body then has."""
        if size + more > self.limit:
            raise self._too_large()
        if self.held + more > self.limit * SHARES:
            raise QueueFull("Too many bytes of other requests are being held")
        self.held += more
        return size + more

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than {self.limit} bytes")

    def sweep(self) -> None:
        """End the reading of bodies that are late, or come too slowly."""
        now = time.monotonic()
        for task, reading in self._reading.items():
            if reading is None:
                self._reading[task] = Reading(now, seen=now)
            elif task not in self._late:
                wrong = reading.late(now, self.timeout)
                if wrong is not None:
                    self._late[task] = wrong
                    task.cancel()
