"""What is measured: points, in groups whose servers run together, and how long all of it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.serving.models import KINDS
from bench.serving.peer import FLOOR, OURS, PEERS, RIVALS, STOCK

CONNECTIONS = (1, 8, 32, 128)
# What comes on top of each run: waking the server, checking the pool; and starting a server.
BESIDES = 2.0
STARTING = 8.0
WEIGHING = 15.0
# Rates of the open loop: shares of what the stock server manages, and rates for this engine alone.
SHARES = (50, 80)
RATES = (2000, 10_000)
WEIGHED_STARTS = 3


@dataclass(frozen=True)
class Settings:
    """How long to measure."""

    rounds: int = 5
    seconds: float = 10.0

    @property
    def starts(self) -> int:
        """How often a server is started to be weighed."""
        return min(self.rounds, WEIGHED_STARTS)


@dataclass(frozen=True)
class Point:
    """One load: a model, rows in each request, connections, access logs off everywhere or as each server has them."""

    model: str
    rows: int
    connections: int
    quiet: bool = False

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.model}/{self.rows}/{self.connections}" + ("/quiet" if self.quiet else "")

    @property
    def title(self) -> str:
        """What a person reads."""
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"{self.model}, {rows}, c={self.connections}" + (", no access log" if self.quiet else "")


@dataclass(frozen=True)
class Group:
    """Points that are measured in the same rounds on the same servers."""

    name: str
    model: str
    points: tuple[Point, ...]
    peers: tuple[str, ...]
    quiet: bool = False

    def asked(self, peer: str, point: Point) -> bool:
        """Whether a peer is measured at a point: what does nothing is only compared with one row."""
        return peer in self.peers and (peer != FLOOR or point.rows == 1)

    def cells(self) -> int:
        """How many pairs of peer and point there are."""
        return sum(self.asked(peer, point) for peer in self.peers for point in self.points)


def able(peers: Sequence[str], model: str) -> tuple[str, ...]:
    """The peers that can serve a model at all."""
    return tuple(name for name in peers if KINDS[model].columns or PEERS[name].tensors)


def points(model: str, *loads: tuple[int, int], quiet: bool = False) -> tuple[Point, ...]:
    """Points of a model from pairs of rows and connections."""
    return tuple(Point(model, rows, connections, quiet) for rows, connections in loads)


ONE_ROW = tuple((1, connections) for connections in CONNECTIONS)
EVERYWHERE = ONE_ROW + tuple((100, connections) for connections in CONNECTIONS)
COMPARED = (*RIVALS, OURS)
IRIS_32 = Point("iris", 1, 32)
GROUPS = (
    Group("iris", "iris", points("iris", *ONE_ROW, (100, 8)), (*COMPARED, FLOOR)),
    Group("quiet", "iris", points("iris", (1, 1), (1, 32), quiet=True), COMPARED, quiet=True),
    Group("forest", "forest", points("forest", (1, 32)), COMPARED),
    Group("digits", "digits", points("digits", (1, 1), (1, 32), (100, 8)), able(COMPARED, "digits")),
    Group("wide", "wide", points("wide", (1, 1)), (STOCK, OURS)),
)
OPEN, FOOTPRINT = "open", "footprint"
PARTS = (*(group.name for group in GROUPS), OPEN, FOOTPRINT)


def groups(only: Sequence[str], *, everything: bool) -> list[Group]:
    """The groups that were asked for; `everything` asks every peer that can at every load."""
    chosen = [group for group in GROUPS if group.name in only]
    if not everything:
        return chosen
    return [
        replace(
            group,
            points=points(group.model, *EVERYWHERE, quiet=group.quiet),
            peers=able((*COMPARED, FLOOR) if group.name == "iris" else COMPARED, group.model),
        )
        for group in chosen
    ]


def estimate(chosen: Sequence[Group], only: Sequence[str], settings: Settings) -> float:
    """Seconds that a run takes, once everything is installed and trained."""
    turn = settings.seconds + BESIDES
    total = sum(group.cells() * settings.rounds * turn + len(group.peers) * STARTING for group in chosen)
    if OPEN in only:
        total += (2 * len(SHARES) + len(RATES)) * settings.rounds * turn + 2 * STARTING
    if FOOTPRINT in only:
        total += len(PEERS) * (settings.starts * STARTING + STARTING + WEIGHING)
    return total
