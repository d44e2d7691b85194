"""Bodies are decoded in a process that the kernel ends, not in the server that others use."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pace import slowness, too_late

from serving import cage as cage_module
from serving import limits
from serving.cage import Budget, Cage, dump, load
from serving.errors import Busy, InvalidInput, ModelFailed, Problem, ServingError, TooLarge
from serving.scoring import CSV, Scoring
from serving.settings import Settings
from serving.signature import Batch
from tests.serving.transport import DENSE, MIXED, NAMES, application, call, information

HEADERS = {b"content-type": CSV.encode()}
TABLE = (",".join(f'"{name}"' for name in NAMES) + "\n1,2\n").encode()


def caged(read: Callable[..., Any] | None = None, body: bytes = TABLE, **settings: Any) -> Any:
    """What comes of a body whose reader does this."""
    with pytest.MonkeyPatch.context() as patch:
        if read is not None:
            patch.setattr(Scoring, "read", read)
        cage = Cage()
        cage.prepare(information(DENSE), Settings(**settings))
        return asyncio.run(cage.read("invocations", body, HEADERS))


def test_what_a_reader_gives_comes_back() -> None:
    batch = caged()
    assert {name: values.tolist() for name, values in batch.data.items()} == {NAMES[0]: [1.0], NAMES[1]: [2.0]}


def test_memory_is_refused_by_the_kernel() -> None:
    def greedy(*_: Any) -> Batch:
        return Batch({None: np.ones(limits.memory(len(TABLE)), np.uint8)}, 1)

    def frugal(*_: Any) -> Batch:
        np.ones(limits.memory(len(TABLE)) // 2, np.uint8)
        return Batch({}, 1)

    with pytest.raises(TooLarge, match=f"more than {limits.memory(len(TABLE))} bytes of memory; send"):
        caged(greedy)
    assert caged(frugal).rows == 1


def test_a_result_is_bounded_too() -> None:
    def much(*_: Any) -> Batch:
        return Batch({None: np.ones(limits.result(len(TABLE)) + 1, np.uint8)}, 1)

    with pytest.raises(TooLarge):
        caged(much)


def test_a_process_that_dies_is_an_answer() -> None:
    with pytest.raises(TooLarge):
        caged(lambda *_: os.kill(os.getpid(), 9))


def test_a_process_that_does_not_end_is_ended(tmp_path: Any) -> None:
    mark = tmp_path / "pid"

    def endless(*_: Any) -> Batch:
        mark.write_text(str(os.getpid()))
        while True:
            time.sleep(0.01)

    with pytest.raises(TooLarge):
        # Long enough for the process to have begun.
        caged(endless, timeout=0.3 * slowness())
    assert gone(int(mark.read_text()))


def test_a_process_ends_when_nobody_waits_for_it(tmp_path: Any) -> None:
    mark = tmp_path / "pid"

    def endless(*_: Any) -> Batch:
        mark.write_text(str(os.getpid()))
        time.sleep(60)
        return Batch({}, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scoring, "read", endless)
        cage = Cage()
        cage.prepare(information(DENSE), Settings(timeout=60))

        async def leave() -> None:
            task = asyncio.ensure_future(cage.read("invocations", TABLE, HEADERS))
            while not mark.exists() or not mark.read_text():  # noqa: ASYNC110 - the other process has no event
                await asyncio.sleep(0.01)
            task.cancel()

        asyncio.run(leave())
    assert gone(int(mark.read_text()))


def gone(pid: int) -> bool:
    """Whether the process ends within some seconds."""
    began = time.monotonic()
    while not too_late(began, 5):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("error", [InvalidInput([Problem(("body", 3), "no", "type")]), TooLarge("much")])
def test_errors_come_back_as_they_were(error: ServingError) -> None:
    def fail(*_: Any) -> Batch:
        raise error

    with pytest.raises(type(error)) as caught:
        caged(fail)
    assert caught.value.body() == error.body()


def test_a_reader_that_fails_is_logged_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> Batch:
        raise ZeroDivisionError("/opt/secret")

    with pytest.raises(ModelFailed) as caught:
        caged(fail)
    assert "secret" not in caught.value.message
    assert "secret" in caplog.text


def test_arrays_are_not_copied_and_objects_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cage_module, "PIECE", 2)
    words = np.array(["a", None, "c", "d", "e"], dtype=object)
    numbers = np.arange(5.0)
    parts = dump(Batch({"words": words, "numbers": numbers}, 5))
    view = memoryview(b"".join(parts))[cage_module.SIZE.size :]
    found = load(memoryview(bytearray(view)))
    assert found.data["words"].tolist() == words.tolist()
    assert found.data["numbers"].tolist() == numbers.tolist()
    assert not found.data["numbers"].flags.owndata
    assert found.data["numbers"].flags.writeable


def test_the_small_process_ends_with_its_users() -> None:
    def who(*_: Any) -> Batch:
        return Batch({None: np.array([os.getppid()])}, 1)

    # The cage is gone after the call.
    assert gone(int(caged(who).data[None][0]))


def test_a_cage_whose_process_is_gone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scoring, "read", lambda *_: Batch({None: np.array([os.getppid()])}, 1))

    async def main() -> None:
        cage = Cage()
        cage.prepare(information(DENSE), Settings())
        batch = await cage.read("invocations", TABLE, HEADERS)
        os.kill(int(batch.data[None][0]), 9)
        assert gone(int(batch.data[None][0]))
        with pytest.raises(Busy, match="started anew"):
            await cage.read("invocations", TABLE, HEADERS)
        # The platform replaces a server that is not healthy.
        app = application()
        app._cage = cage
        reply = await call(app, "/ping")
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")

    asyncio.run(main())


def test_bodies_wait_for_their_turn_and_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cage_module, "PATIENCE", 0.05)

    async def main() -> None:
        budget = Budget(10)
        await budget.take(6)
        late = asyncio.ensure_future(budget.take(5))
        left = asyncio.ensure_future(budget.take(1))
        await asyncio.sleep(0)
        assert not left.done()
        left.cancel()
        with pytest.raises(Busy) as caught:
            await late
        assert (caught.value.status, caught.value.headers["retry-after"]) == (503, "1")
        first, second = asyncio.ensure_future(budget.take(5)), asyncio.ensure_future(budget.take(4))
        await asyncio.sleep(0)
        budget.give(6)
        await asyncio.gather(first, second)
        assert budget.used == 9
        budget.give(9)
        await budget.take(10)
        # One that leaves when its turn has come gives it back.
        gone = asyncio.ensure_future(budget.take(1))
        await asyncio.sleep(0)
        budget.give(10)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert (budget.used, len(budget.waiting)) == (0, 0)

    asyncio.run(main())


def test_a_worker_has_a_budget_for_one_body_of_the_largest_size() -> None:
    app = application(MIXED, max_body=1000)
    assert app.budget.most == 1000 + limits.EXTRA_BYTES
    assert limits.EXTRA_BYTES * limits.MEMORY_PER_BYTE == limits.MEMORY_BYTES


def test_parquet_that_says_too_little_of_itself() -> None:
    import pyarrow as pa
    from pyarrow import parquet

    text, rows = "x" * 1_000_000, 20_000
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))
    file = io.BytesIO()
    parquet.write_table(pa.table({"a": column}), file, store_schema=False)
    body = file.getvalue()
    assert len(body) < 200_000

    async def main() -> Any:
        cage = Cage()
        cage.prepare(information(DENSE), Settings())
        return await cage.read("invocations", body, {b"content-type": b"application/vnd.apache.parquet"})

    with pytest.raises(TooLarge, match="bytes of memory"):
        asyncio.run(main())
