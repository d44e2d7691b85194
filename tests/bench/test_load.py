"""The load client against a server in the same process that does what a test tells it."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import load
from bench.load import Outage, Plan, Record, live_at, misplaced, outages, summary

# Number of the request on its connection, method and path, body; the bytes to answer; None closes the connection.
Behaviour = Callable[[int, str, bytes], bytes | None]


def answer(body: str, version: str = "1", status: int = 200, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Model-Version: {version}\r\n{more}\r\n"
    return (head + body).encode()


class Server:
    """An HTTP server; notes what it was asked, and over how many connections."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.bodies: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.talk(reader, writer)
        finally:
            writer.close()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                return
            length = next(
                int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
            )
            body = await reader.readexactly(length)
            self.bodies.append(body)
            count += 1
            said = self.behaviour(count, head.split("\r\n")[0], body)
            if said == b"hang":
                await asyncio.sleep(60)
            if said is None:
                return
            writer.write(said)
            await writer.drain()
            if "Connection: close" in head:
                return

    async def run(self, plan: Plan, then: Callable[[], bool] = lambda: False) -> list[Record]:
        records: list[Record] = []
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        plan.port = self.port = server.sockets[0].getsockname()[1]
        await load.Sender(plan, records.append, then).run()
        server.close()
        # The other ends learn of it.
        await asyncio.sleep(0.05)
        return records


def send(behaviour: Behaviour, **plan: object) -> tuple[list[Record], Server]:
    server = Server(behaviour)
    asked = {"port": 0, "path": "/x", "body": "@N@", "clients": 1, "requests": 10} | plan
    return asyncio.run(server.run(Plan(**asked))), server  # type: ignore[arg-type]


def times(factor: float) -> Behaviour:
    return lambda _count, _line, body: answer(json.dumps({"predictions": [[int(body) * factor]]}))


def test_every_request_is_sent_once_and_noted() -> None:
    records, server = send(times(3), clients=4, requests=40, factors={"1": 3.0})
    assert sorted(int(body) for body in server.bodies) == list(range(1, 41))
    assert sorted(record.number for record in records) == list(range(1, 41))
    assert all(record.good and record.version == "1" and record.seconds > 0 for record in records)


def test_the_first_client_keeps_its_connection_and_the_second_opens_new_ones() -> None:
    _, kept = send(times(1))
    assert kept.connections == 1
    _, both = send(times(1), clients=2, requests=20)
    assert both.connections > 5


def test_half_of_the_clients_send_large_bodies() -> None:
    _, server = send(times(1), clients=4, requests=40, large=65536)
    assert {len(body) > 60000 for body in server.bodies} == {True, False}
    assert all(len(body) in {1, 2, 65536} for body in server.bodies)


def test_a_kept_connection_that_the_server_closed_in_time_is_not_used_again() -> None:
    def once(count: int, _line: str, body: bytes) -> bytes | None:
        return answer(body.decode()) if count == 1 else None

    server = Server(once)

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        head = await reader.readuntil(b"\r\n\r\n")
        assert head
        await reader.read(100)
        writer.write(answer("1"))
        writer.close()

    server.serve = serve_one  # type: ignore[method-assign]
    records = asyncio.run(server.run(Plan(0, "/", "@N@", clients=1, requests=5, pause=0.05)))
    assert [record.wrong for record in records] == [""] * 5
    assert server.connections == 5


def test_a_server_that_announces_the_end_of_the_connection_is_believed() -> None:
    records, server = send(lambda *_: answer("1", more="Connection: close\r\n"))
    assert all(record.good for record in records)
    assert server.connections == 10


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        (lambda *_: answer('{"message": "no server"}', status=503), 503, "no server"),
        (lambda *_: None, 0, "IncompleteReadError"),
        (lambda *_: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", 0, "no answer in"),
        (lambda *_: b"nonsense\r\n\r\n", 0, "not an answer"),
        (lambda *_: b"hang", 0, "no answer in 0.3 s"),
        (times(4), 200, "makes 3.0 of 1, the answer is 4"),
        (lambda *_: answer('{"predictions": []}'), 200, "not a prediction"),
        (lambda *_: answer('{"predictions": [[3.0]]}', version="9"), 200, "version '9' is none of 1"),
    ],
)
def test_what_is_wrong_is_noted(behaviour: Behaviour, status: int, words: str) -> None:
    records, _ = send(behaviour, requests=1, timeout=0.3, factors={"1": 3.0})
    assert len(records) == 1
    assert not records[0].good
    assert records[0].status == status
    assert words in records[0].wrong


def test_chunked_answers_and_those_without_a_length_are_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"

    async def read(raw: bytes) -> bytes:
        reader = asyncio.StreamReader()
        reader.feed_data(raw)
        reader.feed_eof()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {"transfer-encoding": "chunked"} if "chunked" in head else {}
        return await load.read_body(reader, headers)

    assert asyncio.run(read(chunked)) == b"abcde"
    assert asyncio.run(read(b"HTTP/1.1 200 OK\r\n\r\nto the end")) == b"to the end"


def test_nobody_listens() -> None:
    records: list[Record] = []
    plan = Plan(1, "/", "x", clients=1, requests=2)
    asyncio.run(load.Sender(plan, records.append).run())
    assert [record.status for record in records] == [0, 0]
    assert "refused" in records[0].wrong.lower() or "connect" in records[0].wrong.lower()


def test_a_load_ends_when_told_and_when_its_time_is_up() -> None:
    records, _ = send(times(1), requests=0, seconds=0.3)
    assert records
    server = Server(times(1))
    seen: list[int] = []

    def enough() -> bool:
        seen.append(1)
        return len(seen) > 3

    assert len(asyncio.run(server.run(Plan(0, "/", "@N@", clients=1), enough))) == 3


def test_the_program_runs_with_nothing_but_python_and_ends_with_its_input() -> None:
    plan = Plan(1, "/", "x", clients=1, pause=0.05)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(load.__file__)), json.dumps(asdict(plan))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stdin
        first = Record.parse(child.stdout.readline())
        child.stdin.close()
        rest = [Record.parse(line) for line in child.stdout]
        assert child.wait(timeout=10) == 0
    assert first.number == 1
    assert [record.number for record in rest] == list(range(2, len(rest) + 2))


def test_a_record_survives_its_line() -> None:
    record = Record(7, 1.5, 0.25, 503, "", 'no "server"\nat all')
    assert "\n" not in record.line()
    assert Record.parse(record.line()) == record


def records_of(text: str) -> list[Record]:
    """One request per second that takes half of one; a dot is a good answer of version 1, a 2 one of version 2, an x a failure."""
    return [
        Record(at, float(at), 0.5, 200 if sign in ".2" else 503, "2" if sign == "2" else "1", "" if sign in ".2" else "no")
        for at, sign in enumerate(text)
    ]  # fmt: skip


def test_outages_last_until_the_next_good_answer() -> None:
    assert outages(records_of("....")) == []
    assert outages(records_of("..xx..x.")) == [Outage(2.0, 2.5, 2), Outage(6.0, 1.5, 1)]
    assert outages(records_of("..xx")) == [Outage(2.0, 1.5, 2)]


def test_a_summary_counts() -> None:
    found = summary(records_of("..22xx."))
    assert (found.sent, found.failed, found.versions) == (7, 2, {"1": 3, "2": 2})
    assert found.down == 2.5
    assert found.reasons == {"503: no": 2}
    assert summary([]).sent == 0


def test_a_version_may_answer_only_while_it_should() -> None:
    assert misplaced(records_of("...2.2222"), "1", "2", began=2.6, ended=5.9) == []
    early, late = records_of("2...2.22."), records_of("...2222.2")
    assert [record.start for record in misplaced(early, "1", "2", began=2.6, ended=7.9)] == [0.0, 8.0]
    assert [record.start for record in misplaced(late, "1", "2", began=2.6, ended=5.9)] == [7.0]
    assert len(misplaced(records_of("..22"), "1", "3", began=0.0, ended=10.0)) == 2


def test_a_version_is_live_once_only_it_answers() -> None:
    assert live_at(records_of("..2.x222"), "2") == 5.0
    assert live_at(records_of("..2.2."), "2") is None
    assert live_at([], "2") is None


def test_main_prints_nothing_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(1, "/", "x", clients=1, requests=3)
    monkeypatch.setattr(sys, "argv", ["load.py", json.dumps(asdict(plan))])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert load.main() == 0
    assert all(json.loads(line) for line in capsys.readouterr().out.splitlines())
