"""The short way of a prediction gives the answers of the long one, and leaves the connection as uvicorn does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from serving.app import Application
from serving.batching import Batcher, Limits
from serving.errors import InvalidInput, Problem
from serving.frames import kind, matrix
from serving.lane import Connection
from serving.model import Answer, ServedModel
from serving.signature import Batch
from tests.serving.transport import DENSE, FLOWER, NAMES, application

BODY = json.dumps({"dataframe_records": [FLOWER]}).encode()
NEGATIVE = json.dumps({"dataframe_records": [dict.fromkeys(NAMES, -1)]}).encode()
DATE = (b"date", b"now")


class Adder:
    """A compiled model: the sum of a row; it refuses a negative one, breaks at 1000 and gives what is no JSON at 2000."""

    compiled = object()
    has_probabilities = False

    def kind(self, batch: Batch) -> Any:
        return kind(batch)

    def answer(self, batches: Sequence[Batch], **_: Any) -> list[Answer]:
        sums = [matrix(DENSE, batch).sum(axis=1).tolist() for batch in batches]
        if any(value < 0 for part in sums for value in part):
            raise InvalidInput([Problem((), "negative", "value")])
        if [1000.0] in sums:
            raise ZeroDivisionError
        return [Answer([object()] if part == [2000.0] else part) for part in sums]


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Line:
    """One connection to an application."""

    def __init__(self, *, limits: Limits | None = None, wrapped: bool = False, **settings: Any) -> None:
        self.app: Application = application(**settings)
        self.batchers: list[Batcher] = []
        self.app._make_predictor = self.batcher(limits)
        self.app.start()
        config = uvicorn.Config(
            self.app, http=Connection, ws="none", lifespan="off", log_config=None, proxy_headers=wrapped
        )
        config.load()
        self.state = ServerState()
        self.state.default_headers = [DATE]
        self.connection = Connection(config, self.state, {}, asyncio.get_running_loop())
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def batcher(self, limits: Limits | None) -> Callable[[], Batcher]:
        def make() -> Batcher:
            self.batchers.append(Batcher(cast("ServedModel", Adder()), limits))
            return self.batchers[-1]

        return make

    async def send(self, *parts: bytes) -> bytes:
        """Send the parts one after the other; what comes back until nothing goes on."""
        for part in parts:
            self.connection.data_received(part)
            await asyncio.sleep(0)
        turns = 0
        while turns < 100:
            turns = 0 if self.state.tasks else turns + 1
            await asyncio.sleep(0.001 if self.state.tasks else 0)
        return b"".join(self.transport.written)


def request(body: bytes = BODY, path: str = "/invocations", version: str = "1.1", **headers: str) -> bytes:
    fields = {"host": "x", "content-type": "application/json", "content-length": str(len(body)),
              **{name.replace("_", "-"): value for name, value in headers.items()}}  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + body


def plain(answer: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body, without the request id."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    identity = headers.pop(b"x-request-id")
    return status, headers, body.replace(identity, b"ID")


def test_a_request_that_comes_whole_is_answered_without_a_task_and_in_one_piece() -> None:
    async def main() -> None:
        line = Line()
        line.connection.data_received(request())
        assert not line.state.tasks
        assert line.app.in_flight == 1
        assert line.app.bodies.held == len(BODY)
        await asyncio.sleep(0)
        assert len(line.transport.written) == 1
        status, headers, body = plain(line.transport.written[0])
        assert (status, body) == (b"HTTP/1.1 200 OK", b'{"predictions": [8.6]}')
        assert headers == {b"date": b"now", b"content-type": b"application/json", b"content-length": b"22",
                           b"x-model-name": b"flowers", b"x-model-version": b"3"}  # fmt: skip
        assert (line.app.in_flight, line.app.bodies.held, line.transport.closed) == (0, 0, False)
        assert line.connection.timeout_keep_alive_task is not None
        assert b'status="200",version="3"} 1.0' in line.app.metrics.text()
        line.state.default_headers = [(b"date", b"later")]
        assert b"date: later" in await line.send(request())

    asyncio.run(main())


CASES = {
    "records": request(),
    "predict": request(json.dumps(FLOWER).encode(), "/predict"),
    "infer": request(
        json.dumps({"inputs": [{"name": n, "shape": [1], "datatype": "FP64", "data": [2]} for n in NAMES]}).encode(),
        "/v2/models/flowers/infer",
    ),
    "csv": request(b"sepal length (cm),sepal width (cm)\n1,2\n", content_type="text/csv"),
    "many rows": request(json.dumps({"dataframe_records": [FLOWER] * 5}).encode()),
    "close": request(connection="close"),
    "1.0": request(version="1.0"),
    "query": request(path="/invocations?a=b"),
    "escaped": request(path="/invoc%61tions"),
    "no json": request(b"{"),
    "wrong type": request(json.dumps({"dataframe_records": [dict.fromkeys(NAMES, "a")]}).encode()),
    "deep": request(b'{"a":' * 10_000),
    "too large": request(b" " * 2000),
    "packed": request(content_encoding="gzip"),
    "media type": request(content_type="text/plain"),
    "no path": request(path="/nothing"),
    "not post": request(path="/health"),
    "refused by the model": request(NEGATIVE),
    "the model breaks": request(json.dumps({"dataframe_records": [dict.fromkeys(NAMES, 500)]}).encode()),
    "no json comes back": request(json.dumps({"dataframe_records": [dict.fromkeys(NAMES, 1000)]}).encode()),
}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_that_of_the_long_way(name: str) -> None:
    async def answer(*parts: bytes) -> tuple[Any, ...]:
        line = Line(limits=Limits(inline_rows=4), max_body=60_000 if name == "deep" else 1000)
        got = await line.send(*parts)
        # The errors that uvicorn itself reports would have no request id.
        found = plain(got)
        metrics = re.findall(r"(serving_(?:requests_total|validation)\S* \S+)", line.app.metrics.text().decode())
        return *found, line.transport.closed, metrics, line.app.in_flight, line.app.bodies.held

    data = CASES[name]
    whole = asyncio.run(answer(data))
    # In two pieces nothing takes the short way.
    parts = asyncio.run(answer(data[:-1], data[-1:]))
    assert whole == parts
    assert whole[-2:] == (0, 0)


def test_requests_that_are_pipelined_are_answered_in_their_order() -> None:
    async def main() -> bytes:
        rows = [json.dumps({"dataframe_records": [dict.fromkeys(NAMES, value)]}).encode() for value in (1, 2, 3)]
        return await Line().send(b"".join(map(request, rows)))

    assert re.findall(rb"\[([\d.]+)\]", asyncio.run(main())) == [b"2.0", b"4.0", b"6.0"]


def test_connections_of_one_tick_are_one_call_and_only_the_culprit_fails() -> None:
    async def main() -> list[bytes]:
        first = Line()
        others = [Line() for _ in range(3)]
        for line in others:
            line.app.predictor = first.app.predictor
        for line, body in zip([first, *others], (BODY, NEGATIVE, BODY, BODY), strict=True):
            line.connection.data_received(request(body))
        return [await line.send() for line in (first, *others)]

    assert [answer[9:12] for answer in asyncio.run(main())] == [b"200", b"422", b"200", b"200"]


def test_a_client_that_waits_to_be_told_to_go_on_is_told() -> None:
    async def main() -> bytes:
        return await Line().send(request(expect="100-continue"))

    assert asyncio.run(main()).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_a_client_that_leaves_gets_nothing_and_leaves_nothing() -> None:
    async def main() -> None:
        line = Line()
        line.connection.data_received(request())
        line.connection.connection_lost(None)
        assert await line.send() == b""
        assert (line.app.in_flight, line.app.bodies.held) == (0, 0)

    asyncio.run(main())


def test_429_when_the_queue_is_full() -> None:
    async def main() -> None:
        line, other = Line(limits=Limits(queue=1)), Line()
        other.app.predictor = line.app.predictor
        line.connection.data_received(request())
        assert (await other.send(request())).startswith(b"HTTP/1.1 429")
        assert (await line.send()).startswith(b"HTTP/1.1 200")

    asyncio.run(main())


def test_a_shutdown_lets_the_request_end_and_closes_the_connection() -> None:
    async def main() -> None:
        line = Line()
        line.connection.data_received(request())
        line.connection.shutdown()
        status, headers, _ = plain(await line.send())
        assert (status, headers[b"connection"], line.transport.closed) == (b"HTTP/1.1 200 OK", b"close", True)

    asyncio.run(main())


def test_the_long_way_where_every_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        line = Line(access_log=True)
        line.connection.data_received(request())
        assert line.state.tasks
        await line.send()

    with caplog.at_level("INFO", "serving.access"):
        asyncio.run(main())
    assert [record.name for record in caplog.records if record.name == "serving.access"] == ["serving.access"]


def test_the_long_way_where_uvicorn_wraps_the_application() -> None:
    async def main() -> None:
        line = Line(wrapped=True)
        line.connection.data_received(request())
        assert line.state.tasks
        assert (await line.send()).startswith(b"HTTP/1.1 200")

    asyncio.run(main())
