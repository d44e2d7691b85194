"""What a scenario costs: seconds, processor seconds, memory and Ansible tasks of each step, and how fast the machine is meanwhile."""

from __future__ import annotations

import json
import re
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import docker
import psutil
import requests
import yaml

from runner import ROOT

# Seconds that 10^7 additions take on the machine for which shares are stated; others may take as much longer as theirs do.
REFERENCE = 0.5
_ADDITIONS = 1_000_000
_SAMPLE_SECONDS = 2.0
# The machine's speed is not the same from one minute to the next.
_CALIBRATE_SECONDS = 30.0
_TASK = re.compile(r"^[^|]*\| (?:TASK|RUNNING HANDLER) \[", re.MULTILINE)


def calibration() -> float:
    """Processor seconds that 10^7 additions take now; the middle of three tries."""
    tries = []
    for _ in range(3):
        began, total = time.thread_time(), 0
        for number in range(_ADDITIONS):
            total += number
        tries.append((time.thread_time() - began) * 1e7 / _ADDITIONS)
    return statistics.median(tries)


@dataclass
class Step:
    """One step of a scenario: seconds, processor seconds of its processes and of its instances, tasks of Ansible."""

    name: str
    seconds: float
    processes: float
    instances: float
    tasks: int

    @property
    def cpu(self) -> float:
        """Processor seconds in all."""
        return self.processes + self.instances


@dataclass
class Cost:
    """What a run of a scenario took; memory is the most that its processes and instances held at a time, in MiB."""

    scenario: str
    passed: bool
    seconds: float
    memory: int
    calibration: float
    steps: list[Step] = field(default_factory=list)

    @property
    def cpu(self) -> float:
        """Processor seconds of all steps."""
        return sum(step.cpu for step in self.steps)


class Meter:
    """Reads the processor time of a process with all that it started, and of the instances of a scenario."""

    def __init__(self, scenario: str, pid: int, log: Path) -> None:
        """Take the scenario's name, the process that tests it and the file to which Ansible writes for it."""
        self.log = log
        self.memory = 0
        self.calibrations = [calibration()]
        self._process = psutil.Process(pid)
        self._of_process = 0.0
        self._engine = docker.from_env()
        self._label = f"ma-scenario={scenario}"
        # By container, and of each since it was started last.
        self._of_instances: dict[str, float] = {}
        self._before_reboots = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Read now and then, since instances may be made and removed within a step."""
        sampler = threading.Thread(target=self._sample, daemon=True)
        sampler.start()
        try:
            yield
        finally:
            self._ended.set()
            sampler.join()
            self.calibrations.append(calibration())

    def _sample(self) -> None:
        calibrated = time.monotonic()
        while not self._ended.wait(_SAMPLE_SECONDS):
            self.cpu()
            if time.monotonic() - calibrated > _CALIBRATE_SECONDS:
                self.calibrations.append(calibration())
                calibrated = time.monotonic()

    def cpu(self) -> tuple[float, float]:
        """Processor seconds of the processes and of the instances up to now, of what has ended as well."""
        with self._lock:
            memory = self._read_processes() + self._read_instances()
            self.memory = max(self.memory, memory // 2**20)
            return self._of_process, self._before_reboots + sum(self._of_instances.values())

    def tasks(self) -> int:
        """Tasks that Ansible has begun up to now, those of playbooks that tests run as well."""
        return len(_TASK.findall(self.log.read_text(errors="replace"))) if self.log.exists() else 0

    def _read_processes(self) -> int:
        spent, memory = 0.0, 0
        try:
            family = [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        for process in family:
            try:
                spent += sum(process.cpu_times()[:4])
                memory += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        # A process that ends between two reads takes its time along until its parent is told.
        self._of_process = max(self._of_process, spent)
        return memory

    def _read_instances(self) -> int:
        memory = 0
        # An engine that is too busy to answer will do so the next time.
        with suppress(docker.errors.DockerException, requests.RequestException):
            for container in self._engine.containers.list(filters={"label": self._label}, ignore_removed=True):
                memory += self._read_instance(container)
        return memory

    def _read_instance(self, container: Any) -> int:
        try:
            stats: Any = container.stats(stream=False, one_shot=True)
            spent = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
            used, detail = stats["memory_stats"]["usage"], stats["memory_stats"].get("stats", {})
        except (docker.errors.APIError, requests.RequestException, KeyError):
            # One that ends just now has nothing to say.
            return 0
        self._count(str(container.id), spent)
        return int(used - detail.get("total_inactive_file", detail.get("inactive_file", 0)))

    def _count(self, container: str, spent: float) -> None:
        """Take what a container spent; one that was started anew begins at nothing."""
        last = self._of_instances.get(container, 0.0)
        if spent < last:
            self._before_reboots += last
        self._of_instances[container] = spent


def write(file: Path, costs: list[Cost]) -> None:
    """Keep the newest figures of every scenario."""
    known = {cost.scenario: cost for cost in read(file)} | {cost.scenario: cost for cost in costs}
    file.write_text(json.dumps([asdict(known[name]) for name in sorted(known)], indent=1) + "\n")


def read(file: Path) -> list[Cost]:
    """Return the figures that earlier runs left; those of another version of this program are none."""
    try:
        entries = json.loads(file.read_text())
        return [Cost(**{**entry, "steps": [Step(**step) for step in entry["steps"]]}) for entry in entries]
    except (FileNotFoundError, json.JSONDecodeError, TypeError, KeyError):
        return []


@dataclass(frozen=True)
class Share:
    """What a scenario may take on the machine of reference: seconds when it runs alone, and processor seconds."""

    seconds: float
    cpu: float


def budget() -> dict[str, Share]:
    """The share of each scenario."""
    stated = yaml.safe_load((ROOT / "molecule" / "budget.yml").read_text())
    return {name: Share(**share) for name, share in stated.items()}


def budget_line(cost: Cost) -> str:
    """What a scenario took of its share, as if the machine had been the one of reference."""
    spent, share = cost.cpu * REFERENCE / cost.calibration, budget()[cost.scenario].cpu
    over = "   over its share: CONTRIBUTING.md says how to pay for more" if spent > share else ""
    here = f"{cost.cpu:.0f} here, where 10^7 additions take {cost.calibration:.2f} s"
    return f"{cost.scenario:<10} {spent:5.0f} of {share:4.0f} processor seconds ({here}){over}"
