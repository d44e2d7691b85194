"""The batcher: one call per tick, one call at a time in the thread, nobody waits for ever, only the culprit fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Sequence
from typing import Any, cast

import pytest

from serving.batching import Batcher, Limits
from serving.errors import DeadlineExceeded, InvalidInput, ModelFailed, NotReady, Problem, QueueFull
from serving.model import Answer, ServedModel
from serving.signature import Batch


class Fake:
    """A model that gives back the first number of each row; -1 raises, and it waits while ``gate`` is closed."""

    def __init__(self, *, compiled: bool, rowwise: bool = True) -> None:
        self.compiled = object() if compiled else None
        self.rowwise = rowwise
        self.calls: list[list[int]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def kind(self, batch: Batch) -> Hashable | None:
        return "dense" if self.rowwise and batch.params is None else None

    def answer(self, batches: Sequence[Batch], *, probabilities: bool = False) -> list[Answer]:
        self.calls.append([batch.rows for batch in batches])
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(10)
        values = [[row[0] for row in batch.rows_list or ()] for batch in batches]
        if any(-1 in part for part in values):
            raise InvalidInput([Problem((), "negative", "value")])
        if any(-2 in part for part in values):
            raise RuntimeError("an answer that cannot be split")
        return [Answer(part, [[float(value)] for value in part] if probabilities else None) for part in values]


def rows(*values: float, params: dict[str, Any] | None = None) -> Batch:
    return Batch({}, len(values), rows_list=[[value] for value in values], params=params)


def batcher(fake: Fake, **limits: Any) -> Batcher:
    return Batcher(cast("ServedModel", fake), Limits(**limits))


@pytest.mark.parametrize("compiled", [True, False])
def test_one_tick_is_one_call_and_each_gets_its_own_rows(compiled: bool) -> None:
    fake = Fake(compiled=compiled)
    observed: list[tuple[int, int]] = []

    async def main() -> None:
        batches = Batcher(cast("ServedModel", fake), observe=lambda requests, count: observed.append((requests, count)))
        answers = await asyncio.gather(*(batches.submit(rows(value, value + 1)) for value in range(0, 20, 2)))
        assert [answer.predictions for answer in answers] == [[value, value + 1] for value in range(0, 20, 2)]

    asyncio.run(main())
    assert fake.calls == [[2] * 10]
    assert observed == [(10, 20)]
    assert fake.threads == {"MainThread" if compiled else "model"}


def test_probabilities_for_those_who_ask() -> None:
    async def main() -> None:
        batches = batcher(Fake(compiled=True))
        asking, other = await asyncio.gather(batches.submit(rows(1), probabilities=True), batches.submit(rows(2)))
        assert asking.probabilities == [[1.0]]
        assert other.probabilities is None

    asyncio.run(main())


def test_what_arrives_while_the_thread_is_busy_is_joined() -> None:
    fake = Fake(compiled=False)

    async def main() -> None:
        batches = batcher(fake, rows=5)
        fake.gate.clear()
        first = batches.submit(rows(0))
        await asyncio.sleep(0.02)
        later = [batches.submit(rows(1, 2)) for _ in range(3)]
        await asyncio.sleep(0.02)
        fake.gate.set()
        await asyncio.gather(first, *later)

    asyncio.run(main())
    # Five rows in one call are the limit.
    assert fake.calls == [[1], [2, 2], [2]]


def test_not_joined_unless_of_one_kind() -> None:
    fake = Fake(compiled=False)

    async def main() -> None:
        batches = batcher(fake)
        await asyncio.gather(*(batches.submit(batch) for batch in (rows(1), rows(2, params={"p": 1}), rows(3))))

    asyncio.run(main())
    assert fake.calls == [[1], [1], [1]]


def test_rows_of_a_function_are_not_joined() -> None:
    fake = Fake(compiled=False, rowwise=False)

    async def main() -> None:
        batches = batcher(fake)
        await asyncio.gather(*(batches.submit(rows(value)) for value in range(3)))

    asyncio.run(main())
    assert fake.calls == [[1], [1], [1]]


def test_many_rows_leave_the_loop_free() -> None:
    fake = Fake(compiled=True)

    async def main() -> None:
        batches = batcher(fake, inline_rows=4)
        answers = await asyncio.gather(*(batches.submit(rows(*range(count))) for count in (3, 2, 5)))
        assert [len(answer.predictions) for answer in answers] == [3, 2, 5]

    asyncio.run(main())
    assert sorted(fake.calls) == [[2], [3], [5]]
    assert fake.threads == {"MainThread", "model"}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("value", "error"), [(-1, InvalidInput), (-2, ModelFailed)])
def test_only_the_culprit_fails(compiled: bool, value: int, error: type[Exception]) -> None:
    async def main() -> None:
        batches = batcher(Fake(compiled=compiled))
        futures = [batches.submit(rows(number)) for number in (1, value, 3)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [result.predictions for result in results if isinstance(result, Answer)] == [[1], [3]]
        assert isinstance(results[1], error)

    asyncio.run(main())


@pytest.mark.parametrize("compiled", [True, False])
def test_a_full_queue_refuses(compiled: bool) -> None:
    async def main() -> None:
        batches = batcher(Fake(compiled=compiled), queue=2)
        kept = [batches.submit(rows(1)), batches.submit(rows(2))]
        with pytest.raises(QueueFull):
            batches.submit(rows(3))
        assert [(await future).predictions for future in kept] == [[1], [2]]
        assert (await batches.submit(rows(4))).predictions == [4]

    asyncio.run(main())


def test_a_client_that_left_is_not_predicted_and_makes_room() -> None:
    fake = Fake(compiled=False)

    async def main() -> None:
        batches = batcher(fake, queue=2)
        fake.gate.clear()
        running = batches.submit(rows(0))
        await asyncio.sleep(0.02)
        left = [batches.submit(rows(1, 1)), batches.submit(rows(2, 2))]
        for future in left:
            future.cancel()
        stays = batches.submit(rows(3, 3, 3))
        fake.gate.set()
        await asyncio.gather(running, stays)

    asyncio.run(main())
    assert fake.calls == [[1], [3]]


def test_a_client_that_left_in_the_same_tick() -> None:
    fake = Fake(compiled=True)

    async def main() -> None:
        batches = batcher(fake)
        left, stays = batches.submit(rows(1, 1)), batches.submit(rows(2))
        left.cancel()
        assert (await stays).predictions == [2]

    asyncio.run(main())
    assert fake.calls == [[1]]


def test_a_model_that_hangs_is_late_for_all_and_then_refused() -> None:
    fake = Fake(compiled=False)

    async def main() -> None:
        batches = batcher(fake, timeout=0.1)
        assert batches.stuck_seconds == 0
        fake.gate.clear()
        running = batches.submit(rows(0))
        await asyncio.sleep(0.02)
        waiting = batches.submit(rows(1))
        results = await asyncio.wait_for(asyncio.gather(running, waiting, return_exceptions=True), 5)
        assert [type(result) for result in results] == [DeadlineExceeded, DeadlineExceeded]
        assert batches.stuck_seconds >= 0.1
        assert batches.depth == 0
        with pytest.raises(NotReady):
            batches.submit(rows(2))
        # It comes back: what it answers now is for nobody, and it serves again.
        fake.gate.set()
        while batches.stuck_seconds:  # noqa: ASYNC110 - nothing tells when a model comes back
            await asyncio.sleep(0.01)
        assert (await batches.submit(rows(3))).predictions == [3]

    asyncio.run(main())
    assert fake.calls == [[1], [1]]
