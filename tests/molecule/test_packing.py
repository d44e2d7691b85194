"""Which scenario starts next."""

from __future__ import annotations

import pytest
from runner.packing import Capacity, Job, next_job, seconds_of, turned

TWO_CORES = Capacity(cores=2, memory=16_000)


def test_the_longest_comes_first() -> None:
    short, long = Job("short", seconds=10), Job("long", seconds=500)
    assert next_job([short, long], [], [], TWO_CORES) == long


def test_what_others_wait_for_comes_before_the_longest() -> None:
    maker, long = Job("maker", seconds=10, rank=-1), Job("long", seconds=500)
    assert next_job([long, maker], [], [], TWO_CORES) == maker


def test_nothing_starts_before_what_it_needs_is_there() -> None:
    copy = Job("copy", needs=frozenset({"golden"}))
    assert next_job([copy], [], [], TWO_CORES) is None
    assert next_job([copy], [], ["golden"], TWO_CORES) == copy


def test_idle_cores_are_filled_by_what_they_were_measured_to_need() -> None:
    running = [Job("busy", cores=1.3), Job("waits", cores=0.4)]
    assert next_job([Job("light", seconds=5, cores=0.5), Job("heavy", cores=1.2)], running, [], TWO_CORES) == Job(
        "light", seconds=5, cores=0.5
    )
    assert next_job([Job("heavy", cores=1.2)], running, [], TWO_CORES) is None


def test_memory_is_not_overcommitted() -> None:
    running = [Job("large", cores=0.1, memory=12_000)]
    assert next_job([Job("other", cores=0.1, memory=5_000)], running, [], TWO_CORES) is None
    assert next_job([Job("other", cores=0.1, memory=4_000)], running, [], TWO_CORES) is not None


def test_what_needs_more_than_the_machine_has_runs_alone() -> None:
    giant = Job("giant", cores=7, memory=90_000)
    assert next_job([giant], [Job("other", cores=0.1)], [], TWO_CORES) is None
    assert next_job([giant], [], [], TWO_CORES) == giant


@pytest.mark.parametrize(("text", "seconds"), [("80m", 4800), ("90s", 90), ("2h", 7200), ("75", 4500), ("1.5h", 5400)])
def test_limits(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "soon", "1d"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="LIMIT is"):
        seconds_of(text)


def test_each_commit_begins_elsewhere() -> None:
    names = ["c", "a", "b"]
    assert turned(names, "00000000") == ["a", "b", "c"]
    assert turned(names, "00000001aaaa") == ["b", "c", "a"]
    assert {turned(names, f"{number:08x}")[-1] for number in range(3)} == {"a", "b", "c"}
    assert turned([], "12ab") == []
