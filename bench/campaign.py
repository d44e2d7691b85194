"""Long runs on a test instance of their own: rollouts under load, runs killed in every task, faults while clients ask."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from bench import measure
from bench.figures import Figure, at_most
from bench.load import Plan, Record, Summary, misplaced, summary
from bench.machine import REPOSITORY, TOOLS, Failure, Load, Machine, Run, median

Say = Callable[[str], None]
OK = 200
SERVED = "stamp"
PATH = f"/models/{SERVED}/invocations"
BODY = '{"inputs": [[@N@]]}'
SERVICE = f"mlflow-anywhere-model-{SERVED}"
LARGE = 64 * 1024
WELL_SECONDS = 3.0
MODELS = "/opt/bench/models.json"
# A task that takes so long is worth a run without images; moments in which the installation of the engine is killed.
LONG_SECONDS = 2.0
INSTALLATION_SECONDS = (4.0, 8.0, 12.0, 16.0)
FACTORS = {"1": 3.0, "2": 5.0}

# Registers two versions that tell which one answered; nothing has to be installed for them.
LOG_STAMPS = f"""
import json, os, sys
from importlib.metadata import version
import mlflow
import numpy as np
from mlflow.models import infer_signature
os.environ["MLFLOW_REQUIREMENTS_INFERENCE_RAISE_ERRORS"] = "false"
mlflow.set_experiment("campaign")
pinned = [name + "==" + version(name) for name in ("mlflow", "numpy")]
example = np.array([[1.0], [2.0]])
for factor in json.loads(sys.argv[1]):
    with mlflow.start_run():
        uri = mlflow.pyfunc.log_model(
            name="stamp", python_model="{TOOLS}/stamp.py", model_config={{"factor": factor}}, input_example=example,
            signature=infer_signature(example, example), pip_requirements=pinned).model_uri
    registered = mlflow.register_model(uri, "{SERVED}", await_registration_for=0)
mlflow.MlflowClient().set_registered_model_alias("{SERVED}", "champion", "1")
"""


@dataclass
class Limits:
    """How much of everything, and the minutes that each part may take at most."""

    cycles: int = 20
    requests: int = 100_000
    every: int = 1
    minutes: float = 60.0
    clients: int = 8
    pause: float = 0.03


@dataclass
class Watch:
    """The time that a part may take."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self.began > self.minutes * 60


def prepare(machine: Machine, say: Say) -> None:
    """Bring the platform up and serve a third model whose answers tell its version."""
    machine.install("ca-certificates", "git", "make", "python3")
    machine.clone()
    say("make up")
    run = machine.stream(f"cd {REPOSITORY} && make up", show=lambda line: measure.show_play(line, say))
    if run.code:
        raise Failure(f"make up ended with {run.code}\n{run.text[-4000:]}")
    add_stamps(machine)


def add_stamps(machine: Machine) -> None:
    """Register the model whose answers tell its version, if it is not there, and serve version 1 with two replicas."""
    if machine.http(f"http://127.0.0.1:5000/api/2.0/mlflow/registered-models/get?name={SERVED}").status != OK:
        machine.client(LOG_STAMPS, json.dumps(list(FACTORS.values())))
    machine.alias(SERVED, "1")
    served = [
        {"name": "iris", "engine": "mlflow"},
        {"name": "digits", "engine": "mlflow", "replicas": 2, "port": 9201},
        {"name": SERVED, "engine": "mlflow", "replicas": 2},
    ]
    machine.put(json.dumps({"served_models": served}).encode(), MODELS)
    serve(machine)


def serve(machine: Machine, *, check: bool = True) -> Run:
    """Make live what the aliases say."""
    return machine.play("playbooks/serve.yml", "-e", f"@{MODELS}", check=check)


def plan(limits: Limits, **more: Any) -> Plan:
    """The load: half of the clients over one connection, half with large bodies."""
    return Plan(8000, PATH, BODY, clients=limits.clients, large=LARGE, pause=limits.pause, factors=FACTORS, **more)


# Rollouts under load.


def rollouts(machine: Machine, limits: Limits, say: Say) -> list[tuple[str, list[Figure]]]:
    """Promote and roll back under load, until there were enough of both cycles and requests."""
    watch = Watch(limits.minutes)
    steps: list[Step] = []
    failures: list[str] = []
    cycles = 0
    with machine.load(plan(limits)) as load:
        time.sleep(WELL_SECONDS)
        while cycles < limits.cycles and not watch.over:
            cycles += 1
            for old, new in (("1", "2"), ("2", "1")):
                machine.alias(SERVED, new)
                run = serve(machine, check=False)
                steps.append(Step(old, new, run.began, run.ended))
                if run.code:
                    failures.append(f"cycle {cycles}, to version {new}: {failure(run)}")
                    say(failures[-1])
                time.sleep(1)
            say(f"  cycle {cycles}: {len(load.records):,} requests, {len(load.failed)} failed")
        while len(load.records) < limits.requests and not watch.over:
            time.sleep(1)
    show_failures(load, say)
    wrong = out_of_turn(load.records, steps)
    seconds = [step.ended - step.began for step in steps]
    return [("Rollouts under load", rollout_figures(load.records, wrong, seconds, cycles, failures, limits))]


@dataclass
class Step:
    """One rollout: from which version to which, and when its run began and ended."""

    old: str
    new: str
    began: float
    ended: float


def out_of_turn(records: Sequence[Record], steps: Sequence[Step]) -> list[Record]:
    """Good answers of a version that was not, or no longer, to answer; a request belongs to the rollouts on either side of it."""
    found: set[Record] = set()
    befores = [float("-inf"), *(step.ended for step in steps[:-1])]
    afters = [*(step.began for step in steps[1:]), float("inf")]
    for step, before, after in zip(steps, befores, afters, strict=True):
        around = [record for record in records if record.start > before and record.end < after]
        found.update(misplaced(around, step.old, step.new, step.began, step.ended))
    return sorted(found, key=lambda record: record.start)


def rollout_figures(  # noqa: PLR0913, PLR0917 - all that a rollout leaves behind
    records: Sequence[Record],
    wrong: Sequence[Record],
    seconds: Sequence[float],
    cycles: int,
    failures: Sequence[str],
    limits: Limits,
) -> list[Figure]:
    """Figures of the rollouts."""
    found = summary(records)
    numbers = [record.number for record in records]
    return [
        Figure("cycles of promotion and rollback by alias", str(cycles), str(limits.cycles), cycles >= limits.cycles),
        Figure(
            "POST /invocations, half with 64 KB, half over connections of their own",
            f"{found.sent:,}",
            f"{limits.requests:,}",
            found.sent >= limits.requests,
        ),
        Figure("failed requests, wrong answers among them", str(found.failed), "0", found.failed == 0),
        Figure(
            "requests answered twice", str(len(numbers) - len(set(numbers))), "0", len(numbers) == len(set(numbers))
        ),
        Figure("answers of a version that must not answer", str(len(wrong)), "0", not wrong),
        Figure("runs of serve.yml that failed", str(len(failures)), "0", not failures),
        Figure("answers by version", ", ".join(f"{name}: {count:,}" for name, count in sorted(found.versions.items()))),
        at_most("one answer, median", found.median * 1000, unit="ms"),
        at_most("one answer, 99 % within", found.p99 * 1000, unit="ms"),
        at_most("one answer, slowest", found.slowest, unit="s", digits=2),
        at_most("one run of serve.yml under this load, median", median(seconds)),
    ]


def show_failures(load: Load, say: Say) -> None:
    """Say why requests failed, and what the load client itself complained about."""
    for reason, count in sorted(summary(load.records).reasons.items(), key=lambda item: -item[1])[:5]:
        say(f"  {count} times {reason[:300]}")
    if load.trouble:
        say(f"  the load client said: {load.trouble[-500:]}")


# Faults while clients ask.


@dataclass
class Fault:
    """What is done to the platform, what undoes it after some seconds, and what clients may notice.

    `down` is the longest time in seconds without predictions that is allowed, `tracking` the same for the tracking server; a `down`
    of 0 allows no failed prediction at all.
    """

    name: str
    strike: str
    down: float
    tracking: float
    undo: str = ""
    lasts: float = 0.0


def replica(number: int) -> str:
    """Shell words that name the container of a replica."""
    return f"$(docker ps --quiet --filter name={SERVICE}.{number}.)"


FAULTS = [
    Fault("kill -9 of one of two replicas", f"docker kill {replica(1)}", 0, 0),
    Fault("kill -9 of both replicas", f"docker kill {replica(1)} {replica(2)}", 10, 0),
    Fault("one of two replicas hangs (docker pause, 20 s)", f"docker pause {replica(1)}", 0, 0,
          undo="docker ps --quiet --filter status=paused | xargs -r docker unpause", lasts=20),
    Fault("kill -9 of the edge", "docker kill mlflow-anywhere-edge; docker start mlflow-anywhere-edge", 5, 5),
    Fault("the edge's process dies by itself", "kill -9 $(docker inspect --format '{{.State.Pid}}' mlflow-anywhere-edge)", 2, 2),
    Fault("the tracking server dies", "kill -9 $(docker inspect --format '{{.State.Pid}}' mlflow-anywhere-tracking)", 0, 15),
    Fault("PostgreSQL dies (kill -9 of all its processes)",
          "docker top mlflow-anywhere-postgres -eo pid | tail -n +2 | xargs kill -9", 0, 15),
    Fault("PostgreSQL hangs (docker pause, 60 s)", "docker pause mlflow-anywhere-postgres", 0, 75,
          undo="docker unpause mlflow-anywhere-postgres", lasts=60),
    Fault("restart of the engine", "systemctl restart docker", 30, 60),
    Fault("kill -9 of the engine", "systemctl kill --signal SIGKILL docker", 30, 60),
]  # fmt: skip


@dataclass
class Damage:
    """What clients noticed of a fault."""

    fault: Fault
    predictions: Summary
    writes: Summary
    lost: int
    again: float | None

    @property
    def figure(self) -> Figure:
        """One line of the table."""
        asked, wrote, fault = self.predictions, self.writes, self.fault
        met = (
            self.lost == 0
            and self.again is not None
            and (asked.failed == 0 if fault.down == 0 else asked.down <= fault.down)
            and (wrote.failed == 0 if fault.tracking == 0 else wrote.down <= fault.tracking)
        )
        return Figure(
            fault.name,
            f"predictions: {asked.failed} of {asked.sent:,} failed, {asked.down:.1f} s without, slowest {asked.slowest:.1f} s;"
            f" writes: {wrote.failed} of {wrote.sent:,} failed, {wrote.down:.1f} s without, {self.lost} confirmed ones lost;"
            f" all replicas healthy after {'no time' if self.again is None else f'{self.again:.1f} s'}",
            f"predictions {allowed(fault.down)}, writes {allowed(fault.tracking)}, none lost",
            met,
        )


def allowed(seconds: float) -> str:
    """What a fault may do to clients, in words."""
    return f"{seconds:g} s without" if seconds else "0 failed"


def faults(machine: Machine, limits: Limits, say: Say) -> list[tuple[str, list[Figure]]]:
    """Break one thing after the other while clients ask and write."""
    watch = Watch(limits.minutes)
    found = []
    for fault in FAULTS:
        if watch.over:
            say(f"  no time for: {fault.name}")
            continue
        found.append(break_it(machine, fault, limits, say).figure)
        say(f"  {found[-1].name}: {found[-1].measured}; {found[-1].verdict}")
    return [("Faults under load", found)]


def break_it(machine: Machine, fault: Fault, limits: Limits, say: Say) -> Damage:
    """Strike, wait until everything answers again, and count."""
    settle(machine)
    run_id = machine.mlflow(
        "runs/create", {"experiment_id": "0", "start_time": int(time.time() * 1000), "run_name": fault.name}
    )["run"]["info"]["run_id"]
    write = {"run_id": run_id, "key": "written", "value": "@N@", "timestamp": 1, "step": "@N@"}
    body = json.dumps(write).replace('"@N@"', "@N@")
    with ExitStack() as stack:
        asked = stack.enter_context(machine.load(plan(limits)))
        wrote = stack.enter_context(
            machine.load(Plan(5000, "/api/2.0/mlflow/runs/log-metric", body, clients=1, pause=0.1, timeout=20))
        )
        time.sleep(WELL_SECONDS)
        struck = time.time()
        machine.sh(fault.strike, check=False)
        if fault.undo:
            time.sleep(fault.lasts)
            machine.sh(fault.undo, check=False)
        again = wait_until_well(machine, asked, wrote, deadline=time.time() + 120)
    show_failures(asked, say)
    return Damage(
        fault,
        summary(asked.records),
        summary(wrote.records),
        len(confirmed(wrote.records) - written(machine, run_id)),
        None if again is None else again - struck,
    )


def settle(machine: Machine, seconds: float = 120) -> None:
    """Wait until all replicas are healthy and both servers answer."""
    deadline = time.time() + seconds
    while not (
        healthy(machine) and machine.predict(SERVED, {"inputs": [[1.0]]}).status == OK
        and machine.http("http://127.0.0.1:5000/version").status == OK
    ):  # fmt: skip
        if time.time() > deadline:
            raise Failure(f"the platform is not well:\n{machine.sh('docker ps --all', check=False)}")
        time.sleep(0.5)


def healthy(machine: Machine) -> bool:
    """Whether both replicas are healthy."""
    command = f"docker ps --quiet --filter name={SERVICE}. --filter health=healthy | wc -l"
    return machine.sh(command, check=False).strip() == "2"


def wait_until_well(machine: Machine, asked: Load, wrote: Load, deadline: float) -> float | None:
    """When all replicas were healthy and both loads had had good answers alone for some seconds; None at the deadline."""
    again: float | None = None
    while time.time() < deadline:
        time.sleep(0.5)
        again = (again or time.time()) if healthy(machine) else None
        if again and time.time() > again + WELL_SECONDS and answers_well(asked) and answers_well(wrote):
            return again
    return None


def answers_well(load: Load) -> bool:
    """Whether there were good answers in the last seconds, and good ones alone."""
    recent = load.since(time.time() - WELL_SECONDS)
    return bool(recent) and all(record.good for record in recent)


def confirmed(records: Sequence[Record]) -> set[int]:
    """Numbers of the writes that the server confirmed."""
    return {record.number for record in records if record.good}


def written(machine: Machine, run_id: str) -> set[int]:
    """Numbers of the writes that the tracking server knows."""
    answer = machine.mlflow(f"metrics/get-history?run_id={run_id}&metric_key=written&max_results=25000")
    return {int(metric["step"]) for metric in answer.get("metrics", [])}


# Runs killed in every task.


@dataclass
class KillPoint:
    """A run killed in a task, and what one plain run made of it."""

    number: int
    task: str
    tree: bool
    code: int
    trouble: str
    seconds: float

    @property
    def converged(self) -> bool:
        """Whether the plain run made everything right."""
        return self.code == 0 and not self.trouble


def spread(numbers: Sequence[int], every: int = 1) -> list[int]:
    """Every n-th of the numbers, in an order that covers their whole range from the beginning."""
    chosen = numbers[::every]
    width = max(1, len(chosen) - 1).bit_length()
    return [chosen[index] for index in sorted(range(len(chosen)), key=lambda index: f"{index:0{width}b}"[::-1])]


def kills(machine: Machine, limits: Limits, say: Say) -> list[tuple[str, list[Figure]]]:
    """Kill rollouts, the bring-up of the whole platform, the building of its images, the installation of the engine."""
    return [
        ("serve.yml killed in every task, under load", kill_rollouts(machine, limits, say)),
        ("site.yml killed in every task, with engine and images there", kill_bring_up(machine, limits, say)),
        ("site.yml killed in every long task, without images", kill_builds(machine, limits, say)),
        ("docker.yml killed while it installs the engine on a bare host", kill_installation(machine.release, say)),
    ]


def kill_rollouts(machine: Machine, limits: Limits, say: Say) -> list[Figure]:
    """Kill `serve.yml` in every task, its image to be built included; the load must not notice."""
    watch = Watch(limits.minutes)
    arguments = ("playbooks/serve.yml", "-e", f"@{MODELS}")
    current = machine.champion(SERVED)

    def begin() -> str:
        wanted = "2" if current == "1" else "1"
        machine.alias(SERVED, wanted)
        # The image is built again, so that kills hit the build as well.
        machine.sh(
            f"docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep 'model-{SERVED}:v{wanted}-' | xargs -r docker rmi --force"
        )
        return wanted

    wanted = begin()
    reference = machine.play(*arguments)
    current = wanted
    points = []
    with machine.load(plan(limits)) as load:
        for number in spread(reference.worked, limits.every):
            if watch.over:
                break
            wanted = begin()
            point = kill_and_repeat(machine, reference, number, arguments)
            if point.converged:
                point.trouble = wrong_version(machine, wanted)
            current = machine.champion(SERVED)
            points.append(point)
            say_point(point, say)
    show_failures(load, say)
    found = summary(load.records)
    return [
        *kill_figures(points, len(reference.worked)),
        Figure("requests meanwhile", f"{found.sent:,}"),
        Figure("failed requests", str(found.failed), "0", found.failed == 0),
    ]


def wrong_version(machine: Machine, wanted: str) -> str:
    """What is wrong with the answers after a run; nothing if the wanted version gives them."""
    answer = machine.predict(SERVED, {"inputs": [[7.0]]})
    version = answer.headers.get("X-Model-Version", "")
    return (
        "" if answer.status == OK and version == wanted else f"{answer.status}, version {version} instead of {wanted}"
    )


def kill_bring_up(machine: Machine, limits: Limits, say: Say) -> list[Figure]:
    """Kill `site.yml` in every task on a host that has the engine and the images alone."""
    watch = Watch(limits.minutes)
    machine.play("playbooks/teardown.yml", "-e", "teardown_data=true")
    reference = machine.play()
    points = []
    for number in spread(reference.worked, limits.every):
        if watch.over:
            break
        machine.play("playbooks/teardown.yml", "-e", "teardown_data=true")
        point = kill_and_repeat(machine, reference, number, ("site.yml",))
        if point.converged:
            point.trouble = no_answers(machine)
        points.append(point)
        say_point(point, say)
    return kill_figures(points, len(reference.worked))


def kill_builds(machine: Machine, limits: Limits, say: Say) -> list[Figure]:
    """Kill `site.yml` in the tasks that take seconds, image builds above all, on a host that has the engine alone."""
    watch = Watch(limits.minutes)
    clear = ("playbooks/teardown.yml", "-e", "teardown_data=true", "-e", "teardown_images=true")
    machine.play(*clear)
    reference = machine.play()
    long = [number for number in reference.worked if reference.tasks[number - 1][2] >= LONG_SECONDS]
    points = []
    for number in spread(long, limits.every):
        if watch.over:
            break
        machine.play(*clear)
        point = kill_and_repeat(machine, reference, number, ("site.yml",))
        if point.converged:
            point.trouble = no_answers(machine)
        points.append(point)
        say_point(point, say)
    return kill_figures(points, len(long))


def kill_installation(release: str, say: Say) -> list[Figure]:
    """Kill the installation of the engine's packages, on a bare instance for each kill point."""
    points = []
    for number, delay in enumerate(INSTALLATION_SECONDS, 1):
        machine = Machine(f"ma-bench-install-deb{release}")
        try:
            machine.create(f"ma-instance/bare:{release}")
            machine.install("ca-certificates", "git", "make", "python3")
            machine.clone()
            machine.sh(f"cd {REPOSITORY} && make .venv/.up")
            machine.play_killed("playbooks/docker.yml", at="Install the engine", delay=delay)
            again = machine.play("playbooks/docker.yml", check=False)
            task = f"Install the engine, {delay:g} s after its begin"
            trouble = failure(again) if again.code else ""
            points.append(KillPoint(number, task, tree=True, code=again.code, trouble=trouble, seconds=again.seconds))
        finally:
            machine.destroy()
        say_point(points[-1], say)
    return kill_figures(points, len(INSTALLATION_SECONDS))


def no_answers(machine: Machine) -> str:
    """Models that do not answer; nothing if all do."""
    answers = {
        name: machine.predict(name, body).status for name, body in (("iris", measure.IRIS), ("digits", measure.DIGITS))
    }
    return ", ".join(f"{name} answers {status}" for name, status in answers.items() if status != OK)


def kill_and_repeat(machine: Machine, reference: Run, number: int, arguments: tuple[str, ...]) -> KillPoint:
    """Kill a run in the middle of a task, every second time without the processes it started, and run it once more."""
    name, _, seconds = reference.tasks[number - 1]
    tree = number % 2 == 0
    machine.play_killed(*arguments, after=number, delay=min(seconds / 2, 20), tree=tree)
    again = machine.play(*arguments, check=False)
    trouble = failure(again) if again.code else ""
    return KillPoint(number, name, tree, again.code, trouble, again.seconds)


def failure(run: Run) -> str:
    """The task that ended a run, and what it said."""
    text = run.text
    task = next((name for name, _, _ in reversed(run.tasks)), "")
    _, _, words = text.rpartition("fatal: ")
    return f"{task}: {words[:1500]}"


def say_point(point: KillPoint, say: Say) -> None:
    """Say what came of a kill point."""
    how = "all processes" if point.tree else "ansible alone"
    say(
        f"  task {point.number} ({point.task}), {how}: {'ok' if point.converged else 'FAILED ' + point.trouble}, {point.seconds:.0f} s"
    )


def kill_figures(points: Sequence[KillPoint], tasks: int) -> list[Figure]:
    """How many kill points there were, and each one that did not converge."""
    bad = [point for point in points if not point.converged]
    return [
        Figure("tasks that do something", str(tasks)),
        Figure("kill points", str(len(points))),
        Figure("kill points after which one plain run was not enough", str(len(bad)), "0", not bad),
        at_most("the plain run after a kill, median", median([point.seconds for point in points])),
        *(Figure(f"task {point.number}: {point.task}", point.trouble[-300:], "converges", met=False) for point in bad),
    ]
