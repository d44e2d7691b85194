#!/usr/bin/env python3
"""Run Molecule scenarios, as many instances at a time as the machine has cores, and say how long each step took.

molecule/run.py [--keep] [SCENARIO ...]     --keep leaves the instances for `molecule login`

Scenarios that are named run all of their tests; a run of all scenarios leaves out the tests marked `campaign`, which take minutes.
"""

# ruff: noqa: T201 (its output is for the terminal)
from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import yaml
from figures import Cost, Meter, Step, calibration, write

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / ".cache" / "molecule"
# What every scenario took when it ran last.
FIGURES = LOGS / "figures.json"
# Molecule writes `site ➜ create: Executing` or, where the terminal is a plain one, `[site > create] Executing`.
STEP = re.compile(r"(?:➜|>) (?P<step>\w+)[:\]] (?P<event>Executing|Executed)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Instances that do not take the time from one another in which their models must start.
CAPACITY = max(2, os.cpu_count() or 2)
# Of those with one instance; begun last, one of them would run alone at the end.
LONGEST = ("way", "serving", "site")


@dataclass
class Scenario:
    """What a scenario's molecule.yml says."""

    name: str
    instances: int
    images: list[str]


def scenario(name: str) -> Scenario:
    """Read a scenario's molecule.yml over what all of them share."""
    shared, own = (
        yaml.safe_load(file.read_text())
        for file in (ROOT / ".config" / "molecule" / "config.yml", ROOT / "molecule" / name / "molecule.yml")
    )
    variables = own.get("provisioner", {}).get("inventory", {}).get("group_vars", {}).get("all", {})
    # Tests that make their machines themselves have one at a time.
    instances = len(own.get("platforms", shared["platforms"])) or 1
    return Scenario(name, instances, variables.get("molecule_images", []))


@dataclass
class Result:
    """How a scenario ended."""

    cost: Cost
    figures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line of the summary, and one for each thing that was measured."""
        cost = self.cost
        steps = "  ".join(f"{step.name} {step.seconds:.0f}" for step in cost.steps if step.seconds >= 1)
        line = f"{'passed' if cost.passed else 'FAILED'}  {cost.scenario:<16} {cost.seconds:4.0f} s  cpu {cost.cpu:4.0f} s   {steps}"
        return "\n        ".join([line, *self.figures])


def sweep(scenarios: list[str]) -> None:
    """Remove what runs of these scenarios left on the engine; nothing else carries their label."""
    engine = docker.from_env()
    for scenario in scenarios:
        ours: dict[str, Any] = {"label": f"ma-scenario={scenario}"}
        for container in engine.containers.list(all=True, filters=ours):
            container.remove(force=True, v=True)
        for volume in engine.volumes.list(filters=ours):
            volume.remove(force=True)
        for network in engine.networks.list(filters=ours):
            network.remove()


def run(scenario: str, children: list[subprocess.Popen[str]], *, keep: bool, verbose: bool) -> Result:
    """Test one scenario; its whole output goes to a log, the failed step's to the terminal as well."""
    sweep([scenario])
    # Molecule remembers the instances of an interrupted run, and would not make them again.
    subprocess.run(["molecule", "reset", "--scenario-name", scenario], check=True, capture_output=True)
    began = time.monotonic()
    steps, figures, lines = [], [], []
    step, at = "", (began, 0.0, 0)
    command = [
        "molecule",
        "test",
        "--scenario-name",
        scenario,
        "--no-command-borders",
        f"--destroy={'never' if keep else 'always'}",
    ]
    log, tasks = LOGS / f"{scenario}.log", LOGS / f"{scenario}.ansible.log"
    tasks.unlink(missing_ok=True)
    # In a session of its own: whatever ends this program, the playbooks of the child end with it.
    with (
        log.open("w", buffering=1) as file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "ANSIBLE_LOG_PATH": str(tasks)},
        ) as child,
    ):
        children.append(child)
        meter = Meter(scenario, child.pid, tasks)
        with meter.sampling():
            for line in child.stdout or ():
                file.write(COLOUR.sub("", line))
                lines.append(line)
                if line.startswith("figure: "):
                    figures.append(COLOUR.sub("", line.removeprefix("figure: ")).strip())
                if verbose:
                    print(line, end="", flush=True)
                if match := STEP.search(COLOUR.sub("", line)):
                    now = time.monotonic(), meter.cpu(), meter.tasks()
                    if match["event"] == "Executing":
                        step, at, lines = match["step"], now, []
                    elif step:
                        steps.append(Step(step, now[0] - at[0], now[1] - at[1], now[2] - at[2]))
                        if "Failed" in line and not verbose:
                            print("".join(lines), flush=True)
                        step = ""
    cost = Cost(
        scenario,
        child.returncode == 0,
        time.monotonic() - began,
        sum(step.cpu for step in steps),
        meter.memory,
        statistics.median(meter.calibrations),
        steps,
    )
    if not cost.passed:
        print(f"The whole output is in {log.relative_to(ROOT)}.")
    return Result(cost, figures)


def run_all(scenarios: list[Scenario], *, keep: bool) -> Iterator[Result]:
    """Test the scenarios side by side, those with the most instances and the longest ones first; yield each one's result when it ends."""
    waiting = sorted(scenarios, key=lambda scenario: (-scenario.instances, scenario.name not in LONGEST))
    running: dict[Future[Result], int] = {}
    children: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(CAPACITY) as pool:
        try:
            while waiting or running:
                free = CAPACITY - sum(running.values())
                # One that needs more than the machine has runs alone.
                fitting = next((item for item in waiting if min(item.instances, CAPACITY) <= free), None)
                if fitting:
                    waiting.remove(fitting)
                    future = pool.submit(run, fitting.name, children, keep=keep, verbose=len(scenarios) == 1)
                    running[future] = min(fitting.instances, CAPACITY)
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    yield future.result()
        except BaseException:
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            raise


def main() -> int:
    """Build the images, run the scenarios, sum up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--keep", action="store_true", help="leave the instances running")
    arguments = parser.parse_args()

    known = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    names = arguments.scenarios or known
    if unknown := set(names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: no such scenario; there are {', '.join(known)}")

    # Molecule finds its programs and its configuration from here.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.chdir(ROOT)
    LOGS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))

    # Two runs of a scenario share its instances' names.
    locks = [(LOGS / f"{name}.lock").open("w") for name in names]
    for name, lock in zip(names, locks, strict=True):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error(f"{name} is being run already; wait for it, or name other scenarios")

    began = time.monotonic()
    print(f"calibration: 10^7 additions take {calibration():.2f} s", flush=True)
    scenarios = [scenario(name) for name in names]
    wanted = json.dumps({"molecule_archives": sorted({tuple(item.images) for item in scenarios if item.images})})
    images = ["ansible-playbook", "--extra-vars", wanted, "molecule/shared/images.yml"]
    if subprocess.run(images, check=False).returncode:
        return 1
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        print(
            f"The engine of this host does not answer you ({error}). Run as root, or join the group docker and log in again."
        )
        return 1
    os.environ["MOLECULE_IMAGES_READY"] = "yes"
    if arguments.scenarios:
        # Later than what pytest.ini says, which leaves them out.
        os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -m ''"
    print(f"images ready after {time.monotonic() - began:.0f} s", flush=True)

    results: list[Result] = []
    try:
        for result in run_all(scenarios, keep=arguments.keep):
            results.append(result)
            write(FIGURES, [result.cost])
            print(result, flush=True)
    finally:
        if not arguments.keep:
            sweep(names)
    failed = [result.cost.scenario for result in results if not result.cost.passed]
    print(
        "\n".join(
            [
                "",
                *map(str, results),
                f"{len(results)} scenarios in {time.monotonic() - began:.0f} s, {len(failed)} failed",
            ]
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
