"""What the worst bodies take of the memory, on running servers; tests/serving/hostile.py has the others, and prints a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pace import slowness

from bench.live import Live
from serving import limits
from tests.serving.hostile import MIB, Case, bound, cases, servers, take

# The bound is a multiple of the size, so a smaller body shows it too, sooner.
SIZE = 4 * MIB
WORST = [
    "JSON, rows of four digits",
    "JSON, lists of one list",
    "JSON, texts of one letter",
    "CSV, digits",
    "Parquet, the same with a false size",
    "Picture, 4 million pixels",
    "Pictures, 90,000 of one pixel",
    "Open Inference, two bytes each",
    "Open Inference, a shape of a million",
]


@pytest.fixture(scope="module")
def limited(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Live]]:
    with servers(models, tmp_path_factory.mktemp("logs")) as lives:
        yield lives


@pytest.mark.parametrize("name", WORST)
def test_a_body_takes_no_more_than_the_docs_say(name: str, limited: dict[str, Live]) -> None:
    case: Case = cases(SIZE)[name]()
    live = limited[case.model]
    taken = take(live, case)
    assert taken.reply.status in case.statuses, taken.reply.body[:200]
    assert taken.peak <= bound(len(case.body))
    # The same server goes on; a busy machine gets more than the 50 ms of an idle one.
    assert live.process.poll() is None
    assert taken.ping < 1 * slowness()


def test_the_bound_is_made_of_the_limits() -> None:
    """What decodes, the body in the worker, and what was made of it."""
    assert bound(0) == limits.memory(0) + limits.result(0)
    assert bound(MIB) == limits.memory(MIB) + MIB + limits.result(MIB)
