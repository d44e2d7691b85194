"""A client that gives up frees its query, and no other one's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool, QueuePool

from roles.tracking.files import gate, queries
from tests.tracking.test_gate import SEARCH


class Connection:
    """A connection of the driver, whose query goes on until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.times = 0

    def cancel_safe(self, timeout: float) -> None:
        assert timeout
        self.times += 1
        self.cancelled.set()

    def rollback(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def pool() -> Iterator[QueuePool]:
    queries.watch_pools()
    yield QueuePool(Connection, pool_size=5)
    event.remove(Pool, "checkout", queries._checkout)
    event.remove(Pool, "checkin", queries._checkin)


class Handler:
    """Stands for MLflow: reads the body, then asks the database in a thread."""

    def __init__(self, pool: QueuePool) -> None:
        self.pool = pool
        self.asking = asyncio.Event()
        self.connection: Any = None
        self.ended = False

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        loop = asyncio.get_running_loop()

        def work() -> None:
            taken = self.pool.connect()
            self.connection = taken.dbapi_connection
            loop.call_soon_threadsafe(self.asking.set)
            self.ended = self.connection.cancelled.wait(0.5)
            taken.close()

        await asyncio.to_thread(work)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def ask(handler: Handler, leaves: asyncio.Event, method: str = "POST", path: str = SEARCH) -> None:
    """Ask, and go away when the event says so."""
    first = True
    body = b'{"query": "{ test }"}' if path == "/graphql" else b"{}"

    async def receive() -> gate.Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(_message: gate.Message) -> None: ...

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(b"content-length", str(len(body)).encode())],
    }
    await gate.Gate(handler, gate.Settings(working=queries.working))(scope, receive, send)


async def asks(handler: Handler, task: asyncio.Task[None]) -> None:
    """Wait until the database is asked; raise what kept the handler from it."""
    waits = asyncio.create_task(handler.asking.wait())
    await asyncio.wait([waits, task], return_when=asyncio.FIRST_COMPLETED)
    if not waits.done():
        waits.cancel()
        await task
        raise AssertionError("it ended without asking")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", SEARCH), ("GET", "/api/2.0/mlflow/runs/get"), ("POST", "/graphql")]
)
def test_a_client_that_gives_up_frees_its_query_alone(pool: QueuePool, method: str, path: str) -> None:
    async def both() -> tuple[Handler, Handler]:
        gone, stays = Handler(pool), Handler(pool)
        leaves = asyncio.Event()
        tasks = [
            asyncio.create_task(ask(gone, leaves, method, path)),
            asyncio.create_task(ask(stays, asyncio.Event(), method, path)),
        ]
        await asks(gone, tasks[0])
        await asks(stays, tasks[1])
        leaves.set()
        await asyncio.gather(*tasks)
        return gone, stays

    gone, stays = asyncio.run(both())
    assert gone.ended
    assert not stays.ended
    assert gone.connection is not stays.connection


def test_what_is_changed_is_changed_whoever_waits_for_it(pool: QueuePool) -> None:
    async def change() -> Handler:
        handler, leaves = Handler(pool), asyncio.Event()
        task = asyncio.create_task(ask(handler, leaves, path="/api/2.0/mlflow/runs/create"))
        await asks(handler, task)
        leaves.set()
        await task
        return handler

    assert not asyncio.run(change()).ended


def test_an_answer_that_is_complete_cancels_nothing(pool: QueuePool) -> None:
    """A server says disconnect as well when it has sent everything."""

    async def answered() -> int:
        leaves = asyncio.Event()

        async def app(_scope: Any, receive: Any, send: Any) -> None:
            await receive()
            taken = pool.connect()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
            leaves.set()
            await asyncio.sleep(0.05)
            app.times = taken.dbapi_connection.times  # type: ignore[attr-defined]
            taken.close()

        await ask(app, leaves)  # type: ignore[arg-type]
        return int(app.times)  # type: ignore[attr-defined]

    assert asyncio.run(answered()) == 0


@pytest.mark.usefixtures("pool")
def test_a_connection_goes_back_only_when_the_database_has_answered() -> None:
    """Else the next request with this connection would be the one that is ended."""
    began, answers = threading.Event(), threading.Event()

    class Slow(Connection):
        def cancel_safe(self, timeout: float) -> None:
            assert timeout
            began.set()
            answers.wait(5)

    pool = QueuePool(Slow, pool_size=1)
    with queries.working() as cancel, ThreadPoolExecutor(2) as threads:
        taken = pool.connect()
        asked = threads.submit(cancel)
        assert began.wait(5)
        returned = threads.submit(taken.close)
        with pytest.raises(TimeoutError):
            returned.result(0.2)
        assert pool.checkedin() == 0
        answers.set()
        asked.result(5)
        returned.result(5)
        assert pool.checkedin() == 1


def test_a_connection_that_went_back_is_left_alone(pool: QueuePool) -> None:
    with queries.working() as cancel:
        taken = pool.connect()
        connection: Any = taken.dbapi_connection
        taken.close()
        cancel()
    assert connection.times == 0


@pytest.mark.usefixtures("pool")
def test_a_cancellation_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Connection):
        def cancel_safe(self, timeout: float) -> None:
            raise OSError(f"password in the text after {timeout}")

    with queries.working() as cancel:
        taken = QueuePool(Broken, pool_size=1).connect()
        cancel()
        taken.close()
    assert "OSError" in caplog.text
    assert "password" not in caplog.text


@pytest.mark.usefixtures("pool")
def test_drivers_that_cannot_cancel_are_not_asked_to(caplog: pytest.LogCaptureFixture) -> None:
    class Other:
        def rollback(self) -> None: ...

        def close(self) -> None: ...

    with queries.working() as cancel:
        taken = QueuePool(Other, pool_size=1).connect()
        cancel()
        taken.close()
    assert caplog.text == ""
