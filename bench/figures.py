"""Figures with their targets, and the page docs/figures.md that keeps the last of every kind."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.machine import ROOT

PAGE = ROOT / "docs" / "figures.md"
HEADER = """\
# Measured figures

<!-- Written by `python -m bench` (make bench), `python -m bench fuzz` and `python -m bench campaign` (make campaign); they replace their own sections. -->

What the platform takes and gives, measured on a test instance: a container with systemd and an engine of its own, made as the tests make theirs, without
any cache of the platform's. Figures depend on the machine and on the network; each section says where, when and how busy the machine was.

| command | what it does |
|---|---|
| `make bench` | everything under "What `make bench` measures", in about ten minutes; then [speed.md](speed.md), in about 100 |
| `make campaign` | fuzzing, rollouts under load, faults, kills, hostile requests, in some hours; every part ends by itself after the minutes it is given |
| `python -m bench fuzz --cases 50000` | fuzzing alone, without an instance, in some minutes |
| `python -m bench campaign --only rollouts --cycles 2 --requests 5000` | less of one part; `--help` lists the others |
| `python -m bench --quick --keep --page /tmp/figures.md` | a try of the program itself, which leaves its instance for `--reuse` |

The exit code is 0 if all targets are met, 1 if one is not or could not be measured, 2 if the platform did not come up.
A platform that runs on the machine is never touched; for figures that mean something nothing else should run.
"""
MARK = re.compile(r"<!-- section (?P<name>\w+) -->\n(?P<text>.*?)<!-- end of \1 -->\n", re.DOTALL)
GIB = 1 << 30
# In the order of the page.
SECTIONS = ("bench", "rollouts", "faults", "kills", "fuzz")


@dataclass
class Figure:
    """One figure. `target` says what it must be in words, `met` whether it is."""

    name: str
    measured: str
    target: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """The target and whether it is met."""
        return "" if self.met is None else f"{'yes' if self.met else '**no**'}: {self.target}"


def at_most(name: str, value: float, limit: float | None = None, unit: str = "s", digits: int = 1) -> Figure:
    """A figure that must not exceed a limit, if there is one."""
    measured = f"{value:,.{digits}f} {unit}".strip()
    if limit is None:
        return Figure(name, measured)
    return Figure(name, measured, f"at most {limit:g} {unit}".strip(), value <= limit)


@dataclass
class Section:
    """A part of the page: figures under headings, and what was run."""

    name: str
    title: str
    command: str
    tables: list[tuple[str, list[Figure]]]
    circumstances: str

    def render(self) -> str:
        """The section as Markdown, with its marks."""
        lines = [f"<!-- section {self.name} -->", f"## {self.title}", "", f"`{self.command}`, {self.circumstances}", ""]
        for heading, figures in self.tables:
            lines += [f"### {heading}", "", *table(figures), ""]
        return "\n".join([*lines, f"<!-- end of {self.name} -->", ""])


def table(figures: Sequence[Figure]) -> list[str]:
    """A Markdown table; the column of targets is left out where there are none."""
    targets = any(figure.met is not None for figure in figures)
    rows = [["figure", "measured"] + (["target met"] if targets else [])]
    rows += [[figure.name, figure.measured] + ([figure.verdict] if targets else []) for figure in figures]
    lines = [
        f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in row)} |" for row in rows
    ]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def write(section: Section, page: Path = PAGE) -> None:
    """Replace one section of the page, leave the others as they are."""
    sections: dict[str, str] = {}
    if page.exists():
        sections = {match["name"]: match[0] for match in MARK.finditer(page.read_text())}
    sections[section.name] = section.render()
    order = [name for name in SECTIONS if name in sections] + sorted(set(sections) - set(SECTIONS))
    page.write_text(text([sections[name] for name in order]))


def text(sections: Sequence[str]) -> str:
    """The whole page."""
    return "\n".join([HEADER, *(sections or ["Nothing has been measured yet.\n"])])


def circumstances(instance: str) -> str:
    """Where, when and under which conditions something is measured in a test instance, to be asked before it begins."""
    return f"{machine()}, instance of {instance}."


def machine() -> str:
    """Where, when and how busy this machine is."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    commit = subprocess.run(
        ["git", "describe", "--always"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit or 'unknown'}: {os.cpu_count()} cores"
        f" ({model[1] if model else platform.machine()}), {memory:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}; load average of the machine when it began: {os.getloadavg()[0]:.1f}"
    )
