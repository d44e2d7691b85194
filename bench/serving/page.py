"""The page docs/speed.md: what was measured, between marks; what a person wrote around them stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bench.figures import table
from bench.machine import ROOT
from bench.serving import targets
from bench.serving.models import KINDS
from bench.serving.peer import OURS, PEERS, STOCK
from bench.serving.plan import FOOTPRINT, RATES, SHARES, Point
from bench.serving.samples import CLOCK, LOAD, WEIGHT, Samples, Spread

PAGE = ROOT / "docs" / "speed.md"
PICTURE = "images/serving-speed.png"
BEGIN, END = "<!-- measured by `python -m bench serving` -->", "<!-- end of what was measured -->"
# Where a peer failed that could not even be installed.
INSTALLATION = "installation"
HEADER = f"""\
# Speed of the prediction API

`python -m bench serving` (part of `make bench`) replaces what is between the marks below.

{BEGIN}
{END}
"""
NOTE = """\
Requests per second: median of the rounds, times the stock server's, and least to most of the rounds. The servers of a table run at the same time, each
is stopped (SIGSTOP) while another is measured, and every round measures each of them once, in an order that moves on by one. The server has one core,
the client another. Every body of the pool is sent once before every run, over as many connections, and each predicted class compared with what the model
itself says; an answer other than 200 during a run counts as failed. Rows are distinct: iris flowers at random, digits from the data set."""


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table from rows, the first of which is its head."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def point(key: str) -> Point:
    """The point of a key."""
    model, rows, connections, *quiet = key.split("/")
    return Point(model, int(rows), int(connections), bool(quiet))


def number(value: float) -> str:
    """A figure with as many digits as mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"  # noqa: PLR2004


def whole(key: str) -> str:
    """What servers of a point are called together: its model, and whether they are silent."""
    return point(key).model + ("/quiet" if point(key).quiet else "")


def cell(samples: Samples, key: str, peer: str) -> str:
    """Requests per second of a peer at a point, or why there are none."""
    rate = samples.spread(LOAD, key, peer, "rate")
    failures = samples.failures()
    if rate is None:
        failed_at = {(key, peer), (whole(key), peer), (INSTALLATION, peer)} & set(failures)
        return "could not run, see below" if failed_at else "-"
    ratio = samples.ratio(key, peer, STOCK)
    text = f"{number(rate.median)}"
    if ratio is not None and peer != STOCK:
        text += f" ({ratio.median:,.1f}x)"
    text += f"<br>{number(rate.least)} to {number(rate.most)}"
    failed = samples.failed(key, peer)
    return text + (f"<br>**{failed} failed**" if failed else "")


def loads(samples: Samples) -> list[str]:
    """A table for each model, number of rows and way of logging; the columns are connections."""
    keys = {sample.point for sample in samples.all if sample.kind == LOAD}
    found = sorted({(p.model, p.rows, p.quiet) for p in map(point, keys)}, key=order)
    lines = []
    for model, rows, quiet in found:
        here = sorted((p for p in map(point, keys) if (p.model, p.rows, p.quiet) == (model, rows, quiet)), key=width)
        peers = present(samples, [p.key for p in here])
        heading = f"{KINDS[model].title}; {'1 row' if rows == 1 else f'{rows} rows'} per request"
        heading += "; access logs off everywhere" if quiet else ""
        head = [
            "requests per second",
            *(f"c={p.connections}" for p in here),
            *(f"p99 ms, c={p.connections}" for p in here),
        ]
        body = [
            [
                PEERS[peer].title,
                *(cell(samples, p.key, peer) for p in here),
                *(slow(samples.spread(LOAD, p.key, peer, "p99")) for p in here),
            ]
            for peer in peers
        ]
        lines += [f"### {heading[0].upper()}{heading[1:]}", "", *markdown([head, *body]), ""]
    return lines


def order(what: tuple[str, int, bool]) -> tuple[int, bool, int]:
    """Models in their order, silent servers after the others, few rows first."""
    model, rows, quiet = what
    return list(KINDS).index(model), quiet, rows


def width(what: Point) -> int:
    """Connections of a point."""
    return what.connections


def slow(found: Spread | None) -> str:
    """A latency."""
    return "-" if found is None else f"{found.median:,.2f}"


def present(samples: Samples, keys: Sequence[str]) -> list[str]:
    """The peers that were measured at some of the points, or should have been."""
    found = {sample.peer for sample in samples.all if sample.kind == LOAD and sample.point in keys}
    places = {INSTALLATION, *keys, *map(whole, keys)}
    found |= {peer for (where, peer) in samples.failures() if where in places}
    return [name for name in PEERS if name in found]


def clocks(samples: Samples) -> list[str]:
    """Latency at fixed rates."""
    rows = [
        ["rate", "server", "requests per second", "p50 ms", "p99 ms", "least to most p99", "failed", "client late, ms"]
    ]
    names = [(f"open/{share}%", f"{share} % of the stock server's at c=32") for share in SHARES]
    names += [(f"open/{rate}", "") for rate in RATES]
    for key, name in names:
        for peer in (STOCK, OURS):
            p99, p50 = samples.spread(CLOCK, key, peer, "p99"), samples.spread(CLOCK, key, peer, "p50")
            rate, lag = samples.spread(CLOCK, key, peer, "rate"), samples.spread(CLOCK, key, peer, "lag")
            if p99 is None or p50 is None or rate is None or lag is None:
                continue
            failed = sum(samples.values(CLOCK, key, peer, "failed").values())
            rows.append([name or "fixed", PEERS[peer].title, number(rate.median), slow(p50), slow(p99)])
            rows[-1] += [f"{p99.least:,.2f} to {p99.most:,.2f}", f"{failed:.0f}", f"{lag.median:.2f}"]
    if len(rows) == 1:
        return []
    text = "iris, one row, sent by the clock whether or not answers come; every latency counts from the moment the request was due."
    return ["### Latency at fixed rates", "", text, "", *markdown(rows), ""]


def weights(samples: Samples) -> list[str]:
    """Memory and time to start."""
    rows = [["server", "one worker, MB", "a further worker, MB", "ready after, s"]]
    failures = samples.failures()
    for name, peer in PEERS.items():
        found = [samples.spread(WEIGHT, FOOTPRINT, name, value) for value in ("one", "further", "ready")]
        if not any(found):
            if {(FOOTPRINT, name), (INSTALLATION, name)} & set(failures):
                rows.append([peer.title, "could not run, see below", "-", "-"])
            continue
        scales = (targets.MB, targets.MB, 1.0)
        rows.append(
            [
                peer.title,
                *(
                    "-" if value is None else f"{value.median / scale:,.{1 if scale == 1 else 0}f}"
                    for value, scale in zip(found, scales, strict=True)
                ),
            ]
        )
    if len(rows) == 1:
        return []
    text = "iris; proportional set size of all processes of a server after some hundred requests, all parent processes included; started alone on one core."
    return ["### Memory and start", "", text, "", *markdown(rows), ""]


def peers(samples: Samples) -> list[str]:
    """Versions and tuning, and who could not run."""
    rows = [["server", "version", "as measured"]]
    rows += [
        [
            peer.title,
            ("this repository, " if peer.name == OURS else "")
            + (f"{peer.package} {peer.version()}" if peer.version() else "not installed"),
            peer.tuning,
        ]
        for peer in PEERS.values()
    ]
    lines = ["### The servers", "", *markdown(rows), ""]
    failures = samples.failures()
    if failures:
        lines += ["### Could not run", ""]
        lines += [
            f"- {PEERS[peer].title if peer in PEERS else peer}, {where}: {note}"
            for (where, peer), note in failures.items()
        ]
        lines.append("")
    return lines


def render(samples: Samples, command: str, *, picture: bool) -> str:
    """All that was measured, as Markdown."""
    figures = targets.check(samples)
    reached = sum(bool(figure.met) for figure in figures)
    lines = [f"`{command}`, {samples.circumstances()}", ""]
    lines += [f"![Requests per second]({PICTURE})", ""] if picture else []
    lines += [f"### Targets: {reached} of {len(figures)} reached", "", *table(figures), ""]
    lines += ["What the edge costs on top is in [figures.md](figures.md).", ""]
    lines += [*NOTE.splitlines(), "", *loads(samples), *clocks(samples), *weights(samples), *peers(samples)]
    return "\n".join(lines)


def write(text: str, page: Path) -> None:
    """Replace what is between the marks."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(merge(page.read_text() if page.exists() else HEADER, text))


def merge(page: str, text: str) -> str:
    """A page with new text between its marks, at its end if it has none."""
    section = f"{BEGIN}\n{text.strip()}\n{END}"
    found = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if found.search(page):
        return found.sub(lambda _: section, page)
    return f"{page.rstrip()}\n\n{section}\n"
