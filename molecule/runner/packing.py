"""Which job starts next: those that others wait for and long ones first, as many at a time as cores and memory allow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import psutil

# A job that was never measured, until it is.
_SECONDS, _CORES, _MEMORY = 300.0, 1.0, 3072
# Jobs do not need their most at the same time; a core that waits for one of them is a core that nobody uses.
_OVERCOMMIT = 1.15


@dataclass(frozen=True)
class Job:
    """What runs as one: its cost as measured last, what it waits for, and how early it should begin (small is early)."""

    name: str
    seconds: float = _SECONDS
    cores: float = _CORES
    memory: int = _MEMORY
    needs: frozenset[str] = field(default_factory=frozenset)
    rank: int = 0


@dataclass(frozen=True)
class Capacity:
    """What the machine has: cores, and MiB of memory that jobs may take."""

    cores: float
    memory: int

    @classmethod
    def of_this_machine(cls) -> Self:
        """All of its cores, and four fifths of its memory."""
        return cls(float(max(2, psutil.cpu_count() or 2)), int(psutil.virtual_memory().total * 0.8) // 2**20)

    def takes(self, job: Job, running: Collection[Job]) -> bool:
        """Whether a job fits beside the others; alone it always does."""
        if not running:
            return True
        cores = sum(other.cores for other in running) + job.cores
        memory = sum(other.memory for other in running) + job.memory
        return cores <= self.cores * _OVERCOMMIT and memory <= self.memory


def next_job(
    waiting: Sequence[Job], running: Collection[Job], there: Collection[str], capacity: Capacity
) -> Job | None:
    """The job to start now, if one fits: lowest rank first, then the longest."""
    able = [job for job in waiting if job.needs <= set(there) and capacity.takes(job, running)]
    return min(able, key=lambda job: (job.rank, -job.seconds), default=None)


def seconds_of(text: str) -> float:
    """Seconds of a limit such as 80m, 90s or 2h; a bare number is minutes."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "m")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise ValueError(
            f"LIMIT is {text!r}; minutes such as 80m are allowed, seconds (90s) and hours (2h) too"
        ) from None


def turned(names: Iterable[str], commit: str) -> list[str]:
    """The names in an order that begins elsewhere with each commit, so that none of them is always the last."""
    ordered = sorted(names)
    start = int(commit[:8] or "0", 16) % max(1, len(ordered))
    return ordered[start:] + ordered[:start]
