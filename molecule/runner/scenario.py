"""One scenario: what its molecule.yml says, a whole run of it, and what an interrupted run left."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import docker
import yaml

from runner import CACHE, ROOT, swap
from runner.costs import Cost, Meter, Step
from runner.golden import IMAGE
from runner.store import Store

# Molecule writes `site ➜ create: Executing` or, where the terminal is a plain one, `[site > create] Executing`.
_STEP = re.compile(r"(?:➜|>) (?P<step>\w+)[:\]] (?P<event>Executing|Executed)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Scenario:
    """Name, the Debian releases whose images it uses, and whether it starts from the golden platform or loads its images."""

    name: str
    releases: frozenset[str]
    golden: bool

    @classmethod
    def read(cls, name: str) -> Scenario:
        """Read a scenario's molecule.yml over what all of them share."""
        shared, own = (
            yaml.safe_load(os.path.expandvars(_defaults(file.read_text())))
            for file in (ROOT / ".config" / "molecule" / "config.yml", ROOT / "molecule" / name / "molecule.yml")
        )
        images = [platform["image"] for platform in (own or {}).get("platforms", shared["platforms"])]
        variables = (own or {}).get("provisioner", {}).get("inventory", {}).get("group_vars", {}).get("all", {})
        golden = any(image.startswith(f"{IMAGE}:") for image in images) or bool(variables.get("molecule_load"))
        # Without instances, the tests make machines of the newest release.
        return cls(name, frozenset(image.rpartition(":")[2] for image in images) or frozenset({"13"}), golden)


def _defaults(text: str) -> str:
    """Fill in ${NAME:-default} as Molecule does."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: os.environ.get(found[1]) or found[2], text)


@dataclass
class Result:
    """How a scenario ended."""

    cost: Cost
    figures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line of the summary, and one for each thing that was measured."""
        cost = self.cost
        steps = "  ".join(f"{step.name} {step.seconds:.0f}" for step in cost.steps if step.seconds >= 1)
        line = f"{'passed' if cost.passed else 'FAILED'}  {cost.scenario:<10} {cost.seconds:4.0f} s   {steps}"
        return "\n        ".join([line, *self.figures])


def sweep(names: list[str]) -> None:
    """Remove what runs of these scenarios left on the engine and in the store; nothing else carries their label."""
    engine, store = docker.from_env(), Store()
    for name in names:
        ours: dict[str, Any] = {"label": f"ma-scenario={name}"}
        for container in engine.containers.list(all=True, filters=ours):
            swap.off(container)
            container.remove(force=True, v=True)
        for volume in engine.volumes.list(filters=ours):
            volume.remove(force=True)
        for network in engine.networks.list(filters=ours):
            network.remove()
        for left in store.names():
            if left.startswith(f"ma-{name}-"):
                store.remove(left)


def run(
    name: str, children: list[subprocess.Popen[str]], passed: Callable[[str, str], None], *, keep: bool, verbose: bool
) -> Result:
    """Test one scenario and call `passed` with each step that succeeded; its whole output goes to a log, the failed step's to the terminal as well."""
    sweep([name])
    # Molecule remembers the instances of an interrupted run, and would not make them again.
    subprocess.run(["molecule", "reset", "--scenario-name", name], check=True, capture_output=True)
    began = time.monotonic()
    steps, figures, lines = [], [], []
    step, at = "", (began, 0.0, 0.0, 0)
    command = ["molecule", "test", "--scenario-name", name, "--no-command-borders"]
    command.append(f"--destroy={'never' if keep else 'always'}")
    log, tasks = CACHE / f"{name}.log", CACHE / f"{name}.ansible.log"
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
        meter = Meter(name, child.pid, tasks)
        with meter.sampling():
            for line in child.stdout or ():
                plain = _COLOUR.sub("", line)
                file.write(plain)
                lines.append(line)
                if line.startswith("figure: "):
                    figures.append(plain.removeprefix("figure: ").strip())
                if verbose:
                    print(line, end="", flush=True)  # noqa: T201
                if match := _STEP.search(plain):
                    now = time.monotonic(), *meter.cpu(), meter.tasks()
                    if match["event"] == "Executing":
                        step, at, lines = match["step"], now, []
                    elif step:
                        steps.append(Step(step, now[0] - at[0], now[1] - at[1], now[2] - at[2], now[3] - at[3]))
                        if "Failed" not in line:
                            passed(name, step)
                        elif not verbose:
                            print("".join(lines), flush=True)  # noqa: T201
                        step = ""
    cost = Cost(
        name,
        child.returncode == 0,
        time.monotonic() - began,
        meter.memory,
        statistics.median(meter.calibrations),
        steps,
    )
    if not cost.passed:
        print(f"The whole output is in {log.relative_to(ROOT)}.")  # noqa: T201
    return Result(cost, figures)
