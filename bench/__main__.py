"""The command line.

python -m bench                 the figures of docs/figures.md, in about ten minutes
python -m bench campaign        rollouts, faults and kills, in hours
python -m bench fuzz            the prediction API under all that can be sent to it, in some minutes
python -m bench fleet           hosts of the scenario fleet, which molecule/run.py --keep fleet leaves, for docs/fleet.md, in a few minutes
python -m bench serving         the prediction API against its peers, for docs/speed.md, in about an hour

The first two make a test instance of their own, touch no platform that runs on this machine. They and the third write what they found to docs/figures.md.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import campaign, figures, fleet, measure
from bench.figures import Figure, Section
from bench.machine import Failure, Machine, alone
from bench.serving import command

RELEASES = {"12": "Debian 12", "13": "Debian 13"}
PARTS = ("rollouts", "faults", "kills")
TITLES = {"rollouts": "Rollouts under load", "faults": "Faults under load", "kills": "Runs killed in the middle",
          "fuzz": "Fuzzing of the prediction API"}  # fmt: skip
CASES = 50_000
FLEET_PAGE = figures.PAGE.with_name("fleet.md")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debian", choices=RELEASES, default="13", help="release of the instance; default: 13")
    common.add_argument("--keep", action="store_true", help="leave the instance running")
    common.add_argument(
        "--reuse", action="store_true", help="measure the instance that --keep left; skips the bring-up"
    )
    common.add_argument("--page", type=Path, default=figures.PAGE, help="file to write; default: docs/figures.md")
    common.add_argument("--quick", action="store_true", help="as little as possible of everything, to try the program")
    top = argparse.ArgumentParser(
        prog="python -m bench",
        description=(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    limits = campaign.Limits()
    commands = top.add_subparsers(dest="command")
    command.add(commands)
    long = commands.add_parser("campaign", parents=[common], help="the long runs")
    long.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="parts to run; default: all")
    long.add_argument(
        "--cycles", type=int, default=limits.cycles, help="promotions, each with its rollback; default: %(default)s"
    )
    long.add_argument(
        "--requests", type=int, default=limits.requests, help="predictions meanwhile; default: %(default)s"
    )
    long.add_argument("--every", type=int, default=limits.every, help="kill in every n-th task; default: every task")
    long.add_argument(
        "--minutes",
        type=float,
        default=limits.minutes,
        help="most that rollouts, faults and each kind of kills take; default: %(default)g",
    )
    fuzzing = commands.add_parser("fuzz", help="the prediction API under all that can be sent to it")
    fuzzing.add_argument("--cases", type=int, default=CASES, help="requests over all models; default: %(default)s")
    fuzzing.add_argument("--seed", type=int, default=8888, help="other cases; default: %(default)s")
    fuzzing.add_argument("--page", type=Path, default=figures.PAGE, help="file to write; default: docs/figures.md")
    many = commands.add_parser("fleet", help="throughput with one, two and three hosts")
    many.add_argument(
        "--seconds", type=float, default=20.0, help="of load, for each number of hosts; default: %(default)g"
    )
    many.add_argument("--page", type=Path, default=FLEET_PAGE, help="file to write; default: docs/fleet.md")
    return top


def command_line() -> str:
    """The command that runs, for the page."""
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])


def say(text: str) -> None:
    """Tell whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def finish(section: Section, options: argparse.Namespace) -> bool:
    """Print a section, keep it, and tell whether all its targets are met."""
    print("\n" + section.render(), flush=True)
    if options.quick and options.page == figures.PAGE:
        say("A quick try; docs/figures.md stays as it is.")
    else:
        figures.write(section, options.page)
    return all(figure.met is not False for _, table in section.tables for figure in table)


def bench(options: argparse.Namespace) -> bool:
    """Measure everything once."""
    settings = measure.Settings(runs=1, rounds=1, seconds=1, rest=2) if options.quick else measure.Settings()
    circumstances = figures.circumstances(RELEASES[options.debian])
    tables: list[tuple[str, list[Figure]]] = []
    machine = Machine(f"ma-bench-deb{options.debian}")
    section = Section("bench", "What `make bench` measures", command_line(), tables, circumstances)
    parts: list[tuple[str, Callable[[], list[Figure]]]] = [
        ("Second run", lambda: measure.second_run(machine, settings, say)),
        ("Memory at rest, proportional set size", lambda: measure.memory(machine, settings)),
        ("A new version of a model, requirements unchanged, two replicas", lambda: measure.new_version(machine, say)),
        ("Images", lambda: measure.images(machine)),
        ("Logging", lambda: measure.logging(machine, settings, say)),
        ("Predictions", lambda: measure.predictions(machine, settings, say)),
    ]
    try:
        if options.reuse:
            machine.put_tools()
        else:
            say("A bare instance")
            machine.create(f"ma-instance/bare:{options.debian}")
            say("Bare host to first prediction")
            tables.append(("Bare host to first prediction, all caches empty", measure.bring_up(machine, say)))
        for heading, part in parts:
            say(heading)
            tables.append((heading, attempt(part)))
    except BaseException:
        # What was stopped is shown and not kept: the page has the last whole measurement.
        print("\n" + section.render(), flush=True)
        raise
    else:
        return finish(section, options)
    finally:
        if not options.keep:
            machine.destroy()


def attempt(part: Callable[[], list[Figure]]) -> list[Figure]:
    """Figures of one part; what goes wrong in it must not cost the others theirs."""
    try:
        return part()
    except Exception as error:  # noqa: BLE001 - an unattended run says what failed and goes on
        say(f"{type(error).__name__}: {error}")
        return [Figure("could not be measured", f"{type(error).__name__}: {error}"[:300], "measured", met=False)]


def long_runs(options: argparse.Namespace) -> bool:
    """Run the parts of the campaign that were asked for."""
    limits = campaign.Limits(options.cycles, options.requests, options.every, options.minutes)
    if options.quick:
        limits = campaign.Limits(cycles=1, requests=1000, every=10, minutes=5, clients=4)
    machine = Machine(f"ma-bench-campaign-deb{options.debian}")
    parts = {"rollouts": campaign.rollouts, "faults": campaign.faults, "kills": campaign.kills}
    met = True
    try:
        if not options.reuse:
            say("a bare instance")
            machine.create(f"ma-instance/bare:{options.debian}")
            campaign.prepare(machine, say)
        else:
            machine.put_tools()
            campaign.add_stamps(machine)
        for part in (part for part in PARTS if part in options.only):
            say(part)
            circumstances = figures.circumstances(RELEASES[options.debian])
            try:
                tables = parts[part](machine, limits, say)
            except Exception as error:  # noqa: BLE001 - an unattended run says what failed and goes on
                say(f"{part}: {type(error).__name__}: {error}")
                met = False
                continue
            met &= finish(Section(part, TITLES[part], command_line(), tables, circumstances), options)
    finally:
        if not options.keep:
            machine.destroy()
    return met


def fuzzed(options: argparse.Namespace) -> bool:
    """Send the prediction API all that can be sent."""
    from bench import fuzz  # noqa: PLC0415 - brings hypothesis, MLflow and scikit-learn, which the other commands do without

    options.quick |= options.cases < CASES
    began = f"{figures.machine()}."
    return finish(
        Section("fuzz", TITLES["fuzz"], command_line(), fuzz.run(options.cases, options.seed, say), began), options
    )


def many_hosts(options: argparse.Namespace) -> bool:
    """Measure one, two and three hosts."""
    circumstances = figures.circumstances(RELEASES["13"])
    section = Section("fleet", "Throughput", command_line(), fleet.fleet(options.seconds, say), circumstances)
    print("\n" + section.render(), flush=True)
    fleet.keep(section, options.page)
    return all(figure.met is not False for _, table in section.tables for figure in table)


def main() -> int:
    """Measure; 0 if all targets are met, 1 if not, 2 if the platform did not come up."""
    options = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    if options.command == "serving" and options.estimate:
        say(command.forecast(options))
        return 0
    with alone():
        try:
            if options.command == "serving":
                return 0 if command.measure(options, command_line(), say) else 1
            if options.command == "fleet":
                return 0 if many_hosts(options) else 1
            if options.command == "fuzz":
                return 0 if fuzzed(options) else 1
            return 0 if (long_runs(options) if options.command == "campaign" else bench(options)) else 1
        except Failure as failure:
            say(str(failure))
            return 2


if __name__ == "__main__":
    sys.exit(main())
