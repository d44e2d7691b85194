"""python -m bench serving: the prediction API against its peers, with the page docs/speed.md and its picture."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from bench import figures
from bench.figures import table
from bench.machine import CACHE
from bench.serving import page, picture, process, targets, wrk
from bench.serving.peer import PEERS
from bench.serving.plan import FOOTPRINT, OPEN, PARTS, Settings, estimate, groups
from bench.serving.run import Run
from bench.serving.samples import CIRCUMSTANCES, CLOCK, LOAD, WEIGHT, Sample, Samples

TRIED = CACHE / "serving" / "speed.md"
QUICK = Settings(rounds=1, seconds=1)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    settings = Settings()
    parser = commands.add_parser(
        "serving", help="the prediction API against its peers", description=(__doc__ or "").strip()
    )
    parser.add_argument("--rounds", type=int, default=settings.rounds, help="rounds; default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=settings.seconds, help="of each measurement; default: %(default)g"
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second, to try the program")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="parts to run; default: all")
    parser.add_argument("--peers", choices=PEERS, nargs="+", default=list(PEERS), help="servers to run; default: all")
    parser.add_argument(
        "--everything", action="store_true", help="every peer with 1 and 100 rows at every number of connections; hours"
    )
    parser.add_argument("--resume", action="store_true", help="keep what an earlier run measured, add what is missing")
    parser.add_argument("--page", type=Path, default=page.PAGE, help="file to write; default: docs/speed.md")
    parser.add_argument("--estimate", action="store_true", help="only say how long it takes")


def lasting(seconds: float) -> str:
    """A time as a person says it."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:.0f} s"  # noqa: PLR2004


def asked(options: argparse.Namespace) -> Settings:
    """How long to measure."""
    return QUICK if options.quick else Settings(options.rounds, options.seconds)


def forecast(options: argparse.Namespace) -> str:
    """How long a run takes."""
    settings = asked(options)
    took = lasting(estimate(groups(options.only, everything=options.everything), options.only, settings))
    each = f"rounds: {settings.rounds}, seconds of each measurement: {settings.seconds:g}"
    return f"About {took} once everything is installed; {each}."


def measure(options: argparse.Namespace, command: str, say: Callable[[str], None]) -> bool:
    """Measure, print, write; tell whether all targets are reached."""
    settings = asked(options)
    say(forecast(options))
    wrk.require()
    process.pin()
    samples = Samples(resume=options.resume)
    if not samples.circumstances():
        samples.add(
            Sample(
                CIRCUMSTANCES,
                "",
                "",
                0,
                note=f"rounds: {settings.rounds}, seconds of each measurement: {settings.seconds:g}; {figures.machine()}.",
            )
        )
    run = Run(settings, samples, say)
    began = time.monotonic()
    ended = False
    try:
        names = run.prepare(options.peers)
        for group in groups(options.only, everything=options.everything):
            run.group(group, names)
        if OPEN in options.only:
            run.by_the_clock(names)
        if FOOTPRINT in options.only:
            run.weigh(names)
        ended = True
    finally:
        say(f"Took {lasting(time.monotonic() - began)}.")
        publish(samples, options, command, say, ended=ended)
    return all(figure.met for figure in targets.check(samples))


def publish(
    samples: Samples, options: argparse.Namespace, command: str, say: Callable[[str], None], *, ended: bool
) -> None:
    """Print the targets; write the page: the real one only if nothing is missing."""
    goal: Path = options.page
    if goal == page.PAGE and (options.quick or not ended or not whole(samples)):
        goal = TRIED
        say(f"A try, or not all of it; docs/speed.md stays as it is, {goal} has what there is.")
    picture.draw(samples, goal.parent / page.PICTURE)
    page.write(page.render(samples, command, picture=True), goal)
    print("\n" + "\n".join(table(targets.check(samples))), flush=True)
    say(f"Written: {goal}")


def whole(samples: Samples) -> bool:
    """Whether every part has been measured at least in part by those who can run."""
    measured = {sample.point for sample in samples.all if sample.kind == LOAD}
    kinds = {sample.kind for sample in samples.all}
    return {CLOCK, WEIGHT} <= kinds and all(
        point.key in measured for group in groups(PARTS, everything=False) for point in group.points
    )
