#!/usr/bin/env python3
"""Run Molecule scenarios, as many at a time as the machine takes, and say what each of them cost.

molecule/run.py [--keep] [SCENARIO ...]     --keep leaves the instances for `molecule login`
molecule/run.py --affected [--base REV]     what a change since REV, or since each scenario's last green run, can touch; with --limit as far as it fits
molecule/run.py --limit 80m [--began SECONDS]   begin what a change can touch, then nothing that does not end in time

Scenarios that are named run all of their tests; a run of all scenarios leaves out the tests marked `campaign`, which take minutes.
"""

# ruff: noqa: T201 (its output is for the terminal)
from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import docker
from runner import CACHE, ROOT, golden
from runner.affected import UNIT_TESTS, choose, choose_units, show, stamp
from runner.costs import REFERENCE, Cost, budget, budget_line, calibration, read, write
from runner.inputs import TREE, fingerprint, scenarios
from runner.packing import Capacity, Job, next_job, seconds_of, turned
from runner.scenario import Result, Scenario, run, sweep
from runner.store import Store

# What every scenario took when it ran last.
FIGURES = CACHE / "figures.json"
GOLDEN = "golden"


class Run:
    """One run of some scenarios: what waits, what runs, what there is to start from."""

    def __init__(self, ranks: dict[str, int], arguments: argparse.Namespace, deadline: float) -> None:
        """Take how early each scenario should begin (of the same rank the longest comes first), and when time is up."""
        names = list(ranks)
        self.keep = arguments.keep
        self.verbose = len(names) == 1
        self.deadline = deadline
        self.there: set[str] = set()
        self.results: list[Result] = []
        self.late: list[str] = []
        self.failed: list[str] = []
        self.children: list[subprocess.Popen[str]] = []
        self.scenarios = {name: Scenario.read(name) for name in names}
        self.files = {name: fingerprint(name) for name in names}
        self.waiting = self._jobs(ranks)

    def _jobs(self, ranks: dict[str, int]) -> list[Job]:
        known = {cost.scenario: cost for cost in read(FIGURES)}
        releases = sorted(set().union(*(found.releases for found in self.scenarios.values())))
        jobs = [Job(f"images {release}", seconds=120, rank=-2) for release in releases]
        wanted = any(found.golden for found in self.scenarios.values())
        if wanted and golden.MAKER not in ranks:
            jobs.append(Job(GOLDEN, needs=frozenset({f"images {golden.release()}"}), rank=-1))
        for name, stated in ranks.items():
            needs = {f"images {release}" for release in self.scenarios[name].releases}
            needs |= {GOLDEN} if self.scenarios[name].golden else set()
            rank = -1 if name == golden.MAKER and wanted else stated
            jobs.append(_measured(Job(name, needs=frozenset(needs), rank=rank), known.get(name)))
        return jobs

    def all(self) -> None:
        """Run everything; print each result when it is there."""
        running: dict[Future[Result | None], Job] = {}
        with ThreadPoolExecutor(len(self.waiting)) as pool:
            try:
                while self.waiting or running:
                    while job := self._next(list(running.values())):
                        self.waiting.remove(job)
                        running[pool.submit(self._one, job)] = job
                    if not running:
                        # What they wait for was not begun.
                        self.late += [job.name for job in self.waiting]
                        break
                    # Something may be there before the job that makes it has ended.
                    for future in wait(running, timeout=2, return_when=FIRST_COMPLETED).done:
                        self._ended(running.pop(future), future.result())
            except BaseException:
                for child in self.children:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
                raise

    def _next(self, running: list[Job]) -> Job | None:
        """The next job that fits the machine and the time that is left; what does not fit the time any more is not begun."""
        left = self.deadline - time.monotonic()
        for job in [job for job in self.waiting if job.name in self.scenarios and job.seconds > left]:
            self.waiting.remove(job)
            self.late.append(job.name)
        for job in [job for job in self.waiting if job.needs & set(self.failed)]:
            self.waiting.remove(job)
            self.failed.append(job.name)
            print(f"FAILED  {job.name}: {', '.join(sorted(job.needs & set(self.failed)))} failed", flush=True)
        return next_job(self.waiting, running, self.there, Capacity.of_this_machine())

    def _one(self, job: Job) -> Result | None:
        if job.name in self.scenarios:
            return run(job.name, self.children, self._passed, keep=self.keep, verbose=self.verbose)
        began = time.monotonic()
        copies = [name for name, found in self.scenarios.items() if found.golden]
        command = [sys.executable, "-m", "runner.golden", "make", *copies]
        if job.name != GOLDEN:
            wanted = f'{{"molecule_wanted": [{job.name.split()[1]}]}}'
            command = ["ansible-playbook", "--extra-vars", wanted, "molecule/shared/images.yml"]
        log = CACHE / f"{job.name.replace(' ', '-')}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "molecule")}
        with (
            log.open("w") as file,
            subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment
            ) as child,
        ):
            self.children.append(child)
        if child.returncode:
            print(log.read_text(), flush=True)
            self.failed.append(job.name)
        else:
            self.there.add(job.name)
            if job.name == f"images {golden.release()}" and golden.ready():
                self.there.add(GOLDEN)
            print(f"ready   {job.name:<10} {time.monotonic() - began:4.0f} s", flush=True)
        return None

    def _passed(self, name: str, step: str) -> None:
        if name == golden.MAKER and step == golden.KEPT_AFTER:
            self.there.add(GOLDEN)

    def _ended(self, job: Job, result: Result | None) -> None:
        if result is None:
            return
        self.results.append(result)
        write(FIGURES, [result.cost])
        print(result, flush=True)
        if result.cost.passed:
            stamp(job.name, self.files[job.name])
        else:
            self.failed.append(job.name)
        if job.name == golden.MAKER and GOLDEN not in self.there:
            self.failed.append(GOLDEN)


def _measured(job: Job, cost: Cost | None) -> Job:
    """The job with what it took when it ran last, else with its share."""
    if cost and cost.passed:
        return replace(job, seconds=cost.seconds, cores=cost.cpu / cost.seconds, memory=cost.memory)
    share = budget()[job.name]
    return replace(job, seconds=share.seconds * calibration() / REFERENCE, cores=share.cpu / share.seconds)


def main() -> int:
    """Choose the scenarios, run them, sum up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--keep", action="store_true", help="leave the instances running")
    parser.add_argument("--affected", action="store_true", help="only what a change can touch")
    parser.add_argument("--base", help="the revision since which it counts as a change; default: the last green run")
    parser.add_argument("--limit", help="begin nothing that would not end within this time, such as 80m")
    parser.add_argument("--began", type=float, help="when that time began, in seconds since 1970; default: now")
    arguments = parser.parse_args()
    if unknown := set(arguments.scenarios) - set(scenarios()):
        parser.error(f"{', '.join(sorted(unknown))}: no such scenario; there are {', '.join(scenarios())}")
    try:
        limit = seconds_of(arguments.limit) if arguments.limit else float("inf")
    except ValueError as error:
        parser.error(str(error))
    waited = time.time() - arguments.began if arguments.began else 0.0
    deadline = time.monotonic() + limit - waited

    ranks = dict.fromkeys(arguments.scenarios or scenarios(), 0)
    late: list[str] = []
    choices = choose(ranks, arguments.base) if arguments.affected or arguments.limit else []
    left_out = [choice.scenario for choice in choices if not choice.run]
    if arguments.affected:
        show(choices)
        ranks = {name: 0 for name in ranks if name not in left_out}
        if status := _unit(arguments.base):
            return status
        # What others would wait for is not begun either: they start from the platform of an earlier run, where that is close enough.
        late = _too_long(ranks, deadline - time.monotonic())
        ranks = {name: 0 for name in ranks if name not in late}
    else:
        ranks |= {name: place for place, name in enumerate(turned(left_out, _commit()), 1)}
    status = _run(ranks, arguments, deadline) if ranks else 0
    if late:
        print(f"{len(late)} scenarios take longer than the time that was left: {', '.join(late)}")
    return status


def _too_long(names: Iterable[str], left: float) -> list[str]:
    """Those of the scenarios that take longer than so many seconds, by what they took when they ran last."""
    known = {cost.scenario: cost for cost in read(FIGURES)}
    return sorted(name for name in names if _measured(Job(name), known.get(name)).seconds > left)


def _unit(base: str | None) -> int:
    """Run the unit tests that a change can touch."""
    tests, files = choose_units(base), TREE.digests(TREE.files)
    print(
        f"unit tests: {'all' if tests is None else len(tests)} of the files, the others import and read nothing that changed",
        flush=True,
    )
    if tests == []:
        return 0
    command = [sys.executable, "-m", "pytest", "--quiet", "--numprocesses=2", *(tests or [])]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode == 0 and base is None:
        stamp(UNIT_TESTS, files)
    return done.returncode


def _run(ranks: dict[str, int], arguments: argparse.Namespace, deadline: float) -> int:
    names = list(ranks)
    # Molecule finds its programs and its configuration from here.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.chdir(ROOT)
    CACHE.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    began = time.monotonic()
    print(f"calibration: 10^7 additions take {calibration():.2f} s", flush=True)
    with _locks(names):
        if not _engine_answers():
            return 1
        os.environ["MOLECULE_IMAGES_READY"] = "yes"
        if arguments.scenarios:
            # Later than what pytest.ini says, which leaves them out.
            os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -m ''"
        store = Store()
        store.open()
        if store.slow:
            print(store.slow, flush=True)
        this = Run(ranks, arguments, deadline)
        try:
            this.all()
        finally:
            if not arguments.keep:
                sweep(names)
                store.close()
    print("\n".join(["", *map(str, this.results), "", *(budget_line(result.cost) for result in this.results)]))
    failed = sorted({name for name in this.failed if name in names})
    print(
        f"{len(this.results)} scenarios in {time.monotonic() - began:.0f} s, {len(failed)} failed: {', '.join(failed) or 'none'}"
    )
    if this.late:
        print(f"{len(this.late)} scenarios did not run for lack of time: {', '.join(sorted(this.late))}")
    return 1 if this.failed else 0


@contextlib.contextmanager
def _locks(names: list[str]) -> Iterator[None]:
    """Two runs of a scenario would share its instances' names."""
    with contextlib.ExitStack() as stack:
        for name in names:
            lock = stack.enter_context((CACHE / f"{name}.lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.exit(f"{name} is being run already; wait for it, or name other scenarios")
        yield


def _engine_answers() -> bool:
    """Have an engine on this host: the product's own role installs or starts it."""
    playbook = ["ansible-playbook", "--extra-vars", '{"molecule_wanted": []}', "molecule/shared/images.yml"]
    if subprocess.run(playbook, check=False).returncode:
        return False
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        print(
            f"The engine of this host does not answer you ({error}). Run as root, or join the group docker and log in again."
        )
        return False
    return True


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "0"


if __name__ == "__main__":
    sys.exit(main())
