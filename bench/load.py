"""A steady load over HTTP that notes what came of every single request. Needs Python alone, so it runs inside a test instance.

python3 load.py '{"port": 8000, "path": "/models/iris/invocations", "body": "..."}'

It sends until its standard input ends, or as long and as much as the plan says, and prints a line per request as it goes:
number, start (Unix time), seconds, status (0: no answer), version (the header X-Model-Version), and what was wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OK = 200
NUMBER = "@N@"
FLUSH_SECONDS = 0.5


@dataclass
class Plan:
    """What to send. `@N@` in the body stands for the number of the request.

    clients    connections at the same time; every second one opens a new connection for each request
    large      every other pair of clients fills its bodies up to so many bytes with blanks; 0: no client does
    pause      seconds that a client waits after each answer
    key_file   the API key that the requests carry is in this file; without one they carry none
    factors    answers are checked: by version, what the model multiplies the number of the request by
    """

    port: int
    path: str
    body: str = ""
    method: str = "POST"
    host: str = "127.0.0.1"
    clients: int = 4
    large: int = 0
    pause: float = 0.0
    timeout: float = 70.0
    requests: int = 0
    seconds: float = 0.0
    key_file: str = ""
    factors: dict[str, float] = field(default_factory=dict)

    def fresh(self, client: int) -> bool:
        """Whether a client opens a connection for every request."""
        return client % 2 == 1

    def content(self, client: int, number: int) -> bytes:
        """The body of one request."""
        body = self.body.replace(NUMBER, str(number)).encode()
        return body.ljust(self.large) if client // 2 % 2 else body


@dataclass(frozen=True)
class Record:
    """What came of one request. A status of 0: nobody answered, and `wrong` says why."""

    number: int
    start: float
    seconds: float
    status: int
    version: str = ""
    wrong: str = ""

    @property
    def end(self) -> float:
        """When the answer was there."""
        return self.start + self.seconds

    @property
    def good(self) -> bool:
        """Whether the answer was right."""
        return self.status == OK and not self.wrong

    def line(self) -> str:
        """The record as a line of text."""
        return json.dumps(dataclasses.astuple(self), separators=(",", ":"))

    @classmethod
    def parse(cls, line: str) -> Record:
        """The record of a line."""
        return cls(*json.loads(line))


class Broken(Exception):  # noqa: N818 - not an error of this program
    """The server broke off or did not speak HTTP."""


@dataclass
class Connection:
    """One connection that can take several requests."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def usable(self) -> bool:
        """Whether the server has not closed it meanwhile, as far as one can see without writing."""
        return not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        """Close it without waiting."""
        with contextlib.suppress(OSError, RuntimeError):
            self.writer.close()


async def exchange(connection: Connection, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a request and read its answer: status, headers in lower case, body."""
    connection.writer.write(request)
    await connection.writer.drain()
    head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    parts = head[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1") or not parts[1].isdigit():  # noqa: PLR2004 - protocol, status
        raise Broken(f"not an answer: {head[0][:80]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    return int(parts[1]), headers, await read_body(connection.reader, headers)


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Read a body of a known length, in chunks, or up to the end."""
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()


def fault(plan: Plan, number: int, status: int, version: str, body: bytes) -> str:
    """Say what is wrong with an answer; nothing if it is right."""
    if status != OK:
        return body[:200].decode(errors="replace") or "no reason given"
    if not plan.factors:
        return ""
    if version not in plan.factors:
        return f"version {version!r} is none of {', '.join(plan.factors)}"
    try:
        answer = float(json.loads(body)["predictions"][0][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return f"not a prediction: {body[:100].decode(errors='replace')}"
    wanted = number * plan.factors[version]
    return "" if answer == wanted else f"version {version} makes {wanted} of {number}, the answer is {answer}"


class Sender:
    """Sends what a plan says and hands every record on."""

    def __init__(self, plan: Plan, record: Callable[[Record], None], stop: Callable[[], bool] = lambda: False) -> None:
        self.plan, self.record, self.stop = plan, record, stop
        self.numbers = itertools.count(1)
        key = Path(plan.key_file).read_text().strip() if plan.key_file else ""
        self.authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self.until = time.monotonic() + plan.seconds if plan.seconds else float("inf")

    async def run(self) -> None:
        """Send until told to stop."""
        await asyncio.gather(*(self.client(number) for number in range(self.plan.clients)))

    async def client(self, client: int) -> None:
        """Send one request after the other."""
        connection: Connection | None = None
        while not self.stop() and time.monotonic() < self.until:
            number = next(self.numbers)
            if self.plan.requests and number > self.plan.requests:
                break
            record, connection = await self.request(client, number, connection)
            self.record(record)
            # Where nobody listens, a client without a pause would do nothing but fail.
            await asyncio.sleep(self.plan.pause if record.status else max(self.plan.pause, 0.05))
        if connection:
            connection.close()

    async def request(
        self, client: int, number: int, connection: Connection | None
    ) -> tuple[Record, Connection | None]:
        """Send one request; return what came of it, and the connection if it can take another one."""
        plan = self.plan
        content = plan.content(client, number)
        fresh = plan.fresh(client)
        head = (
            f"{plan.method} {plan.path} HTTP/1.1\r\nHost: localhost:{plan.port}\r\nX-Request-Id: load-{number}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n{self.authorization}"
            f"{'Connection: close' + chr(13) + chr(10) if fresh else ''}\r\n"
        )
        if connection and not connection.usable:
            connection.close()
            connection = None
        start, began = time.time(), time.monotonic()
        status, version, wrong, keep = 0, "", "", False
        try:
            async with asyncio.timeout(plan.timeout):
                if connection is None:
                    connection = Connection(*await asyncio.open_connection(plan.host, plan.port))
                status, headers, body = await exchange(connection, head.encode() + content)
            version = headers.get("x-model-version", "")
            wrong = fault(plan, number, status, version, body)
            keep = not fresh and headers.get("connection", "").lower() != "close"
        except TimeoutError:
            wrong = f"no answer in {plan.timeout:g} s"
        except (OSError, EOFError, Broken, ValueError, asyncio.LimitOverrunError) as error:
            wrong = f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        if connection and not keep:
            connection.close()
            connection = None
        return Record(number, start, seconds, status, version, wrong), connection


@dataclass
class Outage:
    """A time in which requests failed: when it began, seconds until the first good answer after it, requests that failed."""

    start: float
    seconds: float
    failed: int


def outages(records: Iterable[Record]) -> list[Outage]:
    """Times in which every request failed, in order; one without an end lasts to the last record."""
    found: list[Outage] = []
    current: Outage | None = None
    for record in sorted(records, key=lambda record: record.end):
        if current is None and not record.good:
            current = Outage(record.start, record.seconds, 1)
            found.append(current)
        elif current is not None:
            current.seconds = max(current.seconds, record.end - current.start)
            current.failed += not record.good
            if record.good:
                current = None
    return found


@dataclass
class Summary:
    """Figures of many records."""

    sent: int
    failed: int
    versions: dict[str, int]
    median: float
    p99: float
    slowest: float
    down: float
    reasons: dict[str, int]


def summary(records: Sequence[Record]) -> Summary:
    """Sum records up; `down` is the length of the longest time without a good answer."""
    seconds = sorted(record.seconds for record in records) or [0.0]
    versions: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for record in records:
        if record.good:
            versions[record.version] = versions.get(record.version, 0) + 1
        else:
            reason = f"{record.status}: {record.wrong}"
            reasons[reason] = reasons.get(reason, 0) + 1
    return Summary(
        sent=len(records),
        failed=sum(reasons.values()),
        versions=versions,
        median=statistics.median(seconds),
        p99=seconds[int(0.99 * (len(seconds) - 1))],
        slowest=seconds[-1],
        down=max((outage.seconds for outage in outages(records)), default=0.0),
        reasons=reasons,
    )


def misplaced(records: Iterable[Record], old: str, new: str, began: float, ended: float) -> list[Record]:
    """Good answers with a version that they must not have: another one than the old before a rollout began, or than the new after it ended."""
    return [
        record
        for record in records
        if record.good
        and (
            record.version not in {old, new}
            or (record.end < began and record.version != old)
            or (record.start > ended and record.version != new)
        )
    ]


def live_at(records: Iterable[Record], version: str) -> float | None:
    """Start of the first request from which on only this version answered; None if another one answered last."""
    since: float | None = None
    for record in sorted(records, key=lambda record: record.start):
        if record.good:
            since = None if record.version != version else record.start if since is None else since
    return since


def main() -> int:
    """Send what the argument says, and print the records."""
    plan = Plan(**json.loads(sys.argv[1]))
    ended = threading.Event()

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdin.read()
        ended.set()

    flushed = time.monotonic()

    def note(record: Record) -> None:
        nonlocal flushed
        sys.stdout.write(record.line() + "\n")
        if time.monotonic() > flushed + FLUSH_SECONDS:
            flushed = time.monotonic()
            sys.stdout.flush()

    threading.Thread(target=wait, daemon=True).start()
    asyncio.run(Sender(plan, note, ended.is_set).run())
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
