"""What the engine has to reach, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass

from bench.figures import Figure
from bench.serving.peer import FLOOR, OURS, RIVALS, STOCK
from bench.serving.plan import FOOTPRINT, IRIS_32, Point
from bench.serving.samples import LOAD, WEIGHT, Samples, Spread

MB = 1e6
MISSING = "not measured"


@dataclass(frozen=True)
class AtLeast:
    """So many times the requests per second of the stock server, or of another."""

    point: Point
    times: float
    base: str = STOCK


SPEED = (
    AtLeast(Point("iris", 1, 1), 15),
    AtLeast(IRIS_32, 50),
    AtLeast(Point("iris", 1, 128), 60),
    AtLeast(Point("forest", 1, 32), 30),
    AtLeast(Point("digits", 1, 1), 8),
    AtLeast(Point("digits", 1, 32), 25),
    AtLeast(Point("wide", 1, 1), 300),
    AtLeast(Point("iris", 100, 8), 25),
    AtLeast(Point("digits", 100, 8), 9),
)
OF_THE_FLOOR = 0.85
OF_THE_P99 = 1 / 20
ONE_WORKER_MB, FURTHER_WORKER_MB, READY_SECONDS = 240, 60, 4


def times(ratio: Spread, digits: int = 1) -> str:
    """A ratio with its spread."""
    return f"{ratio.median:,.{digits}f}x ({ratio.least:,.{digits}f} to {ratio.most:,.{digits}f})"


def check(samples: Samples) -> list[Figure]:
    """Every target with what was measured."""
    return [
        *(speed(samples, target) for target in SPEED),
        latency(samples),
        ahead(samples),
        floor(samples),
        *weight(samples),
    ]


def speed(samples: Samples, target: AtLeast) -> Figure:
    """Requests per second against the stock server."""
    name = f"{target.point.title}: requests per second"
    wanted = f"at least {target.times:g}x"
    ratio = samples.ratio(target.point.key, OURS, target.base)
    failed = samples.failed(target.point.key, OURS)
    if ratio is None:
        return Figure(name, MISSING, wanted, met=False)
    measured = times(ratio) + (f", {failed} failed" if failed else "")
    return Figure(name, measured, wanted, ratio.median >= target.times and not failed)


def latency(samples: Samples) -> Figure:
    """The 99th percentile at 32 connections."""
    name, wanted = f"{IRIS_32.title}: p99 against the stock server's", f"below {OF_THE_P99:g}x"
    ratio = samples.ratio(IRIS_32.key, OURS, STOCK, "p99")
    if ratio is None:
        return Figure(name, MISSING, wanted, met=False)
    return Figure(name, times(ratio, 3), wanted, ratio.median < OF_THE_P99)


def ahead(samples: Samples) -> Figure:
    """Whether nobody is faster anywhere."""
    name, wanted = "ahead of every peer at every point", "nowhere behind"
    keys = sorted({sample.point for sample in samples.all if sample.kind == LOAD})
    behind, closest = [], ("", float("inf"))
    compared = 0
    for key in keys:
        for rival in RIVALS:
            ratio = samples.ratio(key, OURS, rival)
            if ratio is None:
                continue
            compared += 1
            closest = min(closest, (f"{rival} at {key}", ratio.median), key=lambda pair: pair[1])
            if ratio.median <= 1:
                behind.append(f"{rival} at {key}: {ratio.median:.2f}x")
    if not compared:
        return Figure(name, MISSING, wanted, met=False)
    measured = "; ".join(behind) or f"{compared} comparisons; closest: {closest[0]}, {closest[1]:.1f}x"
    return Figure(name, measured, wanted, not behind)


def floor(samples: Samples) -> Figure:
    """How much of what the HTTP server can do at all."""
    name, wanted = f"{IRIS_32.title}: of a do-nothing endpoint's requests per second", f"at least {OF_THE_FLOOR:.0%}"
    ratio = samples.ratio(IRIS_32.key, OURS, FLOOR)
    if ratio is None:
        return Figure(name, MISSING, wanted, met=False)
    measured = f"{ratio.median:.0%} ({ratio.least:.0%} to {ratio.most:.0%})"
    return Figure(name, measured, wanted, ratio.median >= OF_THE_FLOOR)


def weight(samples: Samples) -> list[Figure]:
    """Memory and the time until it is ready."""
    limits = (
        ("memory of one worker", "one", ONE_WORKER_MB, "MB", MB),
        ("memory of a further worker", "further", FURTHER_WORKER_MB, "MB", MB),
        ("ready after start", "ready", READY_SECONDS, "s", 1.0),
    )
    figures = []
    for name, value, limit, unit, scale in limits:
        found = samples.spread(WEIGHT, FOOTPRINT, OURS, value)
        wanted = f"at most {limit} {unit}"
        if found is None:
            figures.append(Figure(name, MISSING, wanted, met=False))
            continue
        digits = 0 if unit == "MB" else 1
        measured = f"{found.median / scale:,.{digits}f} {unit}"
        figures.append(Figure(name, measured, wanted, found.median / scale <= limit))
    return figures
