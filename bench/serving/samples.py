"""What was measured, line by line in a file, so that a run that was stopped can go on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.machine import CACHE

FILE = CACHE / "serving" / "samples.jsonl"
# Kinds of samples, and what each has among its values.
LOAD, CLOCK, WEIGHT, FAILURE, CIRCUMSTANCES = "load", "clock", "weight", "failure", "circumstances"


@dataclass(frozen=True)
class Sample:
    """One measurement of a peer at a point in a round; `note` says why there is none."""

    kind: str
    point: str
    peer: str
    round: int
    values: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Spread:
    """A median with the least and the most of it."""

    median: float
    least: float
    most: float


def spread(values: Iterable[float]) -> Spread | None:
    """The spread of some values, None of none."""
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found)) if found else None


class Samples:
    """All samples of a run."""

    def __init__(self, path: Path = FILE, *, resume: bool = False) -> None:
        self.path = path
        self.all: list[Sample] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume and path.exists():
            self.all = read(path.read_text())
        elif path.exists():
            path.replace(path.with_suffix(".old"))

    def add(self, sample: Sample) -> None:
        """Keep a sample, in the file at once."""
        self.all.append(sample)
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(sample)) + "\n")

    def has(self, kind: str, point: str, peer: str, number: int) -> bool:
        """Whether something was measured already."""
        return any((s.kind, s.point, s.peer, s.round) == (kind, point, peer, number) for s in self.all)

    def of(self, kind: str, point: str, peer: str) -> list[Sample]:
        """The samples of a peer at a point, in the order of the rounds."""
        found = [s for s in self.all if (s.kind, s.point, s.peer) == (kind, point, peer)]
        return sorted(found, key=lambda sample: sample.round)

    def values(self, kind: str, point: str, peer: str, name: str) -> dict[int, float]:
        """One value of each round."""
        return {s.round: s.values[name] for s in self.of(kind, point, peer) if name in s.values}

    def spread(self, kind: str, point: str, peer: str, name: str) -> Spread | None:
        """The spread of a value over the rounds."""
        return spread(self.values(kind, point, peer, name).values())

    def ratio(self, point: str, peer: str, base: str, name: str = "rate") -> Spread | None:
        """The ratio of two medians, with the least and the most that a single round gave."""
        ours, theirs = self.values(LOAD, point, peer, name), self.values(LOAD, point, base, name)
        rounds = [ours[n] / theirs[n] for n in ours if theirs.get(n)]
        divisor = statistics.median(theirs.values()) if theirs else 0
        if not rounds or not divisor:
            return None
        return Spread(statistics.median(ours.values()) / divisor, min(rounds), max(rounds))

    def failed(self, point: str, peer: str) -> int:
        """How many requests failed in all rounds."""
        return int(sum(self.values(LOAD, point, peer, "failed").values()))

    def failures(self) -> dict[tuple[str, str], str]:
        """Why a peer has no figures, by point or part and peer; the last word counts."""
        return {(s.point, s.peer): s.note for s in self.all if s.kind == FAILURE}

    def circumstances(self) -> str:
        """Where and when this was measured; the first word counts."""
        return next((s.note for s in self.all if s.kind == CIRCUMSTANCES), "")


def read(text: str) -> list[Sample]:
    """The samples of a file; a last line that was cut off is left out."""
    found = []
    for line in text.splitlines():
        try:
            found.append(Sample(**json.loads(line)))
        except ValueError:
            continue
    return found
