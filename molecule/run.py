#!/usr/bin/env python3
"""Run Molecule scenarios one after the other and say how long each step took.

molecule/run.py [--keep] [SCENARIO ...]     all scenarios without a name; --keep leaves the instances for `molecule login`
"""

# ruff: noqa: T201 (its output is for the terminal)
from __future__ import annotations

import argparse
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / ".cache" / "molecule"
# Molecule writes `site ➜ create: Executing` or, where the terminal is a plain one, `[site > create] Executing`.
STEP = re.compile(r"(?:➜|>) (?P<step>\w+)[:\]] (?P<event>Executing|Executed)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Result:
    """How a scenario ended."""

    scenario: str
    passed: bool = False
    seconds: float = 0
    steps: list[tuple[str, float]] = field(default_factory=list)

    def __str__(self) -> str:
        """One line of the summary."""
        steps = "  ".join(f"{step} {seconds:.0f}" for step, seconds in self.steps if seconds >= 1)
        return f"{'passed' if self.passed else 'FAILED'}  {self.scenario:<16} {self.seconds:4.0f} s   {steps}"


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


def run(scenario: str, *, keep: bool, verbose: bool) -> Result:
    """Test one scenario; its whole output goes to a log, the failed step's to the terminal as well."""
    result, began = Result(scenario), time.monotonic()
    step, step_began, lines = "", began, []
    command = [
        "molecule",
        "test",
        "--scenario-name",
        scenario,
        "--no-command-borders",
        f"--destroy={'never' if keep else 'always'}",
    ]
    log = LOGS / f"{scenario}.log"
    # In a session of its own: whatever ends this program, the playbooks of the child end with it.
    with (
        log.open("w", buffering=1) as file,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as child,
    ):
        try:
            for line in child.stdout or ():
                file.write(COLOUR.sub("", line))
                lines.append(line)
                if verbose:
                    print(line, end="", flush=True)
                if match := STEP.search(COLOUR.sub("", line)):
                    now = time.monotonic()
                    if match["event"] == "Executing":
                        step, step_began, lines = match["step"], now, []
                    elif step:
                        result.steps.append((step, now - step_began))
                        if "Failed" in line and not verbose:
                            print("".join(lines), flush=True)
                        step = ""
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    result.passed, result.seconds = child.returncode == 0, time.monotonic() - began
    if not result.passed:
        print(f"The whole output is in {log.relative_to(ROOT)}.")
    return result


def main() -> int:
    """Build the images, run the scenarios, sum up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--keep", action="store_true", help="leave the instances running")
    arguments = parser.parse_args()

    known = sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    scenarios = arguments.scenarios or known
    if unknown := set(scenarios) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: no such scenario; there are {', '.join(known)}")

    # Molecule finds its programs and its configuration from here.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.chdir(ROOT)
    LOGS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))

    # Two runs of a scenario share its instances' names.
    locks = [(LOGS / f"{scenario}.lock").open("w") for scenario in scenarios]
    for scenario, lock in zip(scenarios, locks, strict=True):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error(f"{scenario} is being run already; wait for it, or name other scenarios")

    began = time.monotonic()
    if subprocess.run(["ansible-playbook", "molecule/shared/images.yml"], check=False).returncode:
        return 1
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        print(
            f"The engine of this host does not answer you ({error}). Run as root, or join the group docker and log in again."
        )
        return 1
    os.environ["MOLECULE_IMAGES_READY"] = "yes"
    print(f"images ready after {time.monotonic() - began:.0f} s", flush=True)

    results: list[Result] = []
    try:
        for scenario in scenarios:
            sweep([scenario])
            # Molecule remembers the instances of an interrupted run, and would not make them again.
            subprocess.run(["molecule", "reset", "--scenario-name", scenario], check=True, capture_output=True)
            results.append(run(scenario, keep=arguments.keep, verbose=len(scenarios) == 1))
            print(results[-1], flush=True)
    finally:
        if not arguments.keep:
            sweep(scenarios)
    failed = [result.scenario for result in results if not result.passed]
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
