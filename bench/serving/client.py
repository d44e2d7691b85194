"""An HTTP client that keeps what it receives, and one that asks at a fixed rate whether or not answers come.

wrk says how many requests a server manages when each connection waits for its answer before it asks again. This one sends by the clock: a server
that falls behind gets the next request all the same, and every latency counts from the moment the request was due.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HOST = "127.0.0.1"
OK = 200
HEAD_END = b"\r\n\r\n"
CHUNKS_END = b"0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
# How long answers may take that are outstanding when the clock has run out.
PATIENCE = 10.0

Done = Callable[["Connection", int, bytes], None]


@dataclass(frozen=True)
class Latencies:
    """What came of requests at a fixed rate; milliseconds. `lag` is what the client itself was late, 99 of 100 times at most."""

    sent: int
    failed: int
    p50: float
    p99: float
    lag: float


def request(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    """One POST as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def complete(received: bytes) -> tuple[int, bytes] | None:
    """Status and body of the answer in `received`, None as long as it is not all there."""
    end = received.find(HEAD_END)
    if end < 0:
        return None
    head, body = received[:end], received[end + len(HEAD_END) :]
    status = int(head[9:12])
    if length := LENGTH.search(head):
        return (status, body) if len(body) >= int(length[1]) else None
    if CHUNKED.search(head):
        return (status, unchunked(body)) if body.endswith(CHUNKS_END) else None
    raise ValueError(f"neither a length nor chunks: {head!r}")


def unchunked(body: bytes) -> bytes:
    """A body that came in chunks."""
    found = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        number = int(size.split(b";")[0], 16)
        found, body = found + rest[:number], rest[number + 2 :]
    return found


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time and tells how it ended; status 0 if the server hung up."""

    def __init__(self, done: Done) -> None:
        self.done = done
        self.number = -1
        self.received = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def send(self, number: int, data: bytes) -> None:
        """Send request `number`."""
        self.number = number
        assert self.transport is not None
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self.received += data
        answer = complete(self.received)
        if answer is not None:
            self.received = b""
            self.done(self, *answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.number >= 0:
            self.done(self, 0, str(exc or "hung up").encode())


async def connect(port: int, connections: int, done: Done) -> list[Connection]:
    """Open connections."""
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Connection(done), HOST, port) for _ in range(connections)]
    return [protocol for _, protocol in opened]


async def close(connections: Sequence[Connection]) -> None:
    """Drop connections, answered or not."""
    for connection in connections:
        connection.number = -1
        if connection.transport is not None:
            connection.transport.abort()
    # An aborted transport lets go of its socket in the next turn of the loop.
    await asyncio.sleep(0)


async def ask(port: int, requests: Sequence[bytes], connections: int, patience: float) -> list[tuple[int, bytes]]:
    """Send every request once, over so many connections at a time, and return the answers in the order of the requests."""
    answers: list[tuple[int, bytes]] = [(0, b"no answer")] * len(requests)
    waiting = deque(range(len(requests)))
    left = len(requests)
    finished = asyncio.get_running_loop().create_future()

    def done(connection: Connection, status: int, body: bytes) -> None:
        nonlocal left
        answers[connection.number] = (status, body)
        connection.number = -1
        left -= 1
        if left == 0 and not finished.done():
            finished.set_result(None)
        elif waiting and connection.transport is not None:
            number = waiting.popleft()
            connection.send(number, requests[number])

    opened = await connect(port, min(connections, len(requests)), done)
    for connection in opened:
        number = waiting.popleft()
        connection.send(number, requests[number])
    try:
        await asyncio.wait_for(finished, patience)
    except TimeoutError:
        pass
    finally:
        await close(opened)
    return answers


async def by_the_clock(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int
) -> Latencies:
    """Send at a fixed rate; a request for which no connection is free waits, and its latency counts that."""
    count = max(1, round(rate * seconds))
    free: deque[Connection] = deque()
    latencies: list[float] = []
    lags: list[float] = []
    failed = answered = due = sent = 0
    clock = time.perf_counter

    def done(connection: Connection, status: int, _: bytes) -> None:
        nonlocal failed, answered
        answered += 1
        latencies.append(clock() - began - connection.number / rate)
        failed += status != OK
        connection.number = -1
        if connection.transport is not None:
            free.append(connection)

    opened = await connect(port, connections, done)
    free.extend(opened)
    gc.disable()
    began = clock()
    while answered < count and clock() - began < count / rate + PATIENCE:
        now = clock() - began
        # A timer of the loop would round to a millisecond; this process has a core for itself and looks at the clock instead.
        while due < count and due / rate <= now:
            due += 1
            lags.append(now - (due - 1) / rate)
        while sent < due and free:
            free.popleft().send(sent, requests[sent % len(requests)])
            sent += 1
        await asyncio.sleep(0)
    gc.enable()
    await close(opened)
    unanswered = count - answered
    waited = clock() - began
    # What never was answered counts as having taken until now.
    latencies += [waited - number / rate for number in range(count - unanswered, count)]
    return Latencies(
        count,
        failed + unanswered,
        percentile(latencies, 50) * 1000,
        percentile(latencies, 99) * 1000,
        percentile(lags, 99) * 1000,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` percent of them do not exceed; 0 of nothing."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * int(share * 100) // 10000) - 1)]


def main() -> None:
    """Do what the JSON object on standard input says; print what came of it as JSON."""
    asked = json.load(sys.stdin)
    bodies = Path(asked["bodies"]).read_bytes().splitlines()
    requests = [request(asked["path"], body) for body in bodies]
    work = by_the_clock(asked["port"], requests, asked["rate"], asked["seconds"], asked["connections"])
    try:
        import uvloop  # noqa: PLC0415 - where there is none, asyncio's own loop does
    except ImportError:
        found = asyncio.run(work)
    else:
        found = uvloop.run(work)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
