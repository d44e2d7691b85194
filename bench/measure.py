"""The figures of `make bench`, each measured as a client or an operator would notice it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.figures import GIB, Figure, at_most
from bench.load import Plan, Summary, live_at, misplaced, summary
from bench.machine import REPOSITORY, Failure, Machine, Run, median

MIB = 1 << 20
MB = 1_000_000
OK = 200
IRIS = {
    "dataframe_split": {
        "columns": ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"],
        "data": [[5.1, 3.5, 1.4, 0.2]],
    }
}
DIGITS = {"inputs": [[0.0] * 784]}
IRIS_PATH, DIGITS_PATH = "/models/iris/invocations", "/models/digits/invocations"
IMAGE_LIMIT_MB = 1100
KEPT_SHARE = 0.67
DIRECT, THROUGH = "one replica, directly", "through the edge"

Say = Callable[[str], None]
# Per connections and way: requests per second and the 99th percentile in milliseconds, one pair for each round.
Rates = dict[tuple[int, str], list[tuple[float, float]]]

# Proportional set size of every container's processes, and of the engine's; runs in the instance.
MEMORY = r"""
import json, re, subprocess
from pathlib import Path

def pss(pid):
    try:
        return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) * 1024
    except (OSError, TypeError):
        return 0

found = {}
for name in subprocess.check_output(["docker", "ps", "--format", "{{.Names}}"], text=True).split():
    pids = subprocess.check_output(["docker", "top", name, "-eo", "pid"], text=True).split()[1:]
    found[name] = sum(map(pss, pids))
engine = 0
for command in Path("/proc").glob("[0-9]*/comm"):
    try:
        if command.read_text().strip() in {"dockerd", "containerd", "containerd-shim", "docker-proxy", "containerd-shim-runc-v2"[:15]}:
            engine += pss(command.parent.name)
    except OSError:
        pass
print(json.dumps({"containers": found, "engine": engine}))
"""

# Images, their layers and sizes as the engine's API tells them.
IMAGES = r"""
import http.client, json, socket

class Engine(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")

def ask(path):
    engine = Engine("docker", timeout=120)
    engine.request("GET", path)
    return json.loads(engine.getresponse().read())

usage = ask("/system/df")
images = [
    {"name": tag, "size": image["Size"], "layers": ask("/images/" + image["Id"] + "/json")["RootFS"]["Layers"]}
    for image in usage["Images"] for tag in image["RepoTags"] or [] if tag != "<none>:<none>"
]
print(json.dumps({"images": images, "disk": usage["LayersSize"]}))
"""

# One client that logs one metric after the other and waits for every answer.
LOG_METRIC = """
import sys, time
import mlflow
mlflow.set_experiment("bench")
with mlflow.start_run():
    for step in range(20):
        mlflow.log_metric("warm", step, step=step)
    began, step = time.monotonic(), 0
    while time.monotonic() - began < float(sys.argv[1]):
        mlflow.log_metric("bench", step, step=step)
        step += 1
    rate = step / (time.monotonic() - began)
print(rate)
"""

COPY_VERSION = """
import sys
import mlflow
client = mlflow.MlflowClient()
model = sys.argv[1]
print(client.copy_model_version(f"models:/{model}@champion", model).version)
"""

WRK = """
wrk.method, wrk.body = "POST", [==[%s]==]
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  local wrong = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout
  io.write(string.format("RESULT %%f %%d %%f\\n", summary.requests / summary.duration * 1e6, wrong, latency:percentile(99) / 1000))
end
"""


@dataclass
class Settings:
    """How long to measure."""

    runs: int = 3
    rounds: int = 3
    seconds: float = 5.0
    connections: tuple[int, ...] = (1, 8, 32)
    rest: float = 20.0


def bring_up(machine: Machine, say: Say) -> list[Figure]:
    """From a bare host to the first prediction, with the commands of the README."""
    machine.install("ca-certificates", "git", "make", "python3")
    clone = machine.clone()
    load = Plan(8000, IRIS_PATH, json.dumps(IRIS), clients=1, pause=0.2)
    with machine.load(load) as predictions:
        run = machine.stream(f"cd {REPOSITORY} && make up", show=lambda line: show_play(line, say))
    if run.code:
        raise Failure(f"make up ended with {run.code}\n{run.text[-4000:]}")
    first = next((record.end for record in predictions.records if record.good), None)
    if first is None:
        raise Failure(f"make up is done and iris does not answer: {predictions.records[-1].wrong}")
    return first_prediction_figures(run, clone, first)


def show_play(line: str, say: Say) -> None:
    """Say which play begins."""
    if line.startswith(("PLAY [", "Installing")):
        say(f"  {line.strip().rstrip('* ')}")


def first_prediction_figures(run: Run, clone: float, first: float) -> list[Figure]:
    """Figures of a run of `make up`; the last one is what counts."""
    plays = run.phases
    environment = run.seconds - sum(seconds for _, seconds in plays)
    whole = clone + run.seconds
    phases = [
        ("git clone (from a local file)", clone),
        ("make up: the environment that runs the playbooks", environment),
    ]
    phases += [(f"make up: {name}", seconds) for name, seconds in plays]
    return [
        *(Figure(name, f"{seconds:.1f} s, {seconds / whole:.0%}") for name, seconds in phases),
        at_most("all of it, checks of the last phase included", whole),
        at_most("bare host to first prediction", clone + first - run.began, 240),
    ]


def second_run(machine: Machine, settings: Settings, say: Say) -> list[Figure]:
    """Runs of `make up` that have nothing to do."""
    seconds, changes = [], []
    for number in range(settings.runs):
        run = machine.stream(f"cd {REPOSITORY} && make up")
        if run.code:
            raise Failure(f"run {number + 2} ended with {run.code}\n{run.text[-4000:]}")
        seconds.append(run.seconds)
        changes.append(-1 if run.changed is None else run.changed)
        say(f"  {run.seconds:.1f} s, changed={run.changed}")
    return [
        at_most(f"`make up` again, median of {settings.runs}", median(seconds), 20),
        Figure("tasks that changed something, in each run", ", ".join(map(str, changes)), "0", not any(changes)),
    ]


def memory(machine: Machine, settings: Settings) -> list[Figure]:
    """What all containers take once both models have answered and nobody asks any more."""
    for model, body in (("iris", IRIS), ("digits", DIGITS)):
        answer = machine.predict(model, body)
        if answer.status != OK:
            raise Failure(f"{model} answers {answer.status}: {answer.body[:500]}")
    time.sleep(settings.rest)
    found = machine.python(MEMORY)
    return memory_figures(found["containers"], found["engine"])


def memory_figures(containers: dict[str, int], engine: int) -> list[Figure]:
    """A line per container, the sum, and the engine itself."""
    lines = [
        at_most(re.sub(r"^mlflow-anywhere-|\.[a-z0-9]{25}$", "", name), taken / MIB, unit="MiB", digits=0)
        for name, taken in sorted(containers.items())
    ]
    return [
        *lines,
        at_most("sum of the containers", sum(containers.values()) / GIB, 1.2, "GiB", 2),
        at_most("besides: the engine with its helpers", engine / MIB, unit="MiB", digits=0),
    ]


def new_version(machine: Machine, say: Say) -> list[Figure]:
    """A second version of digits whose requirements did not change goes live under a small load."""
    old = machine.champion("digits")
    new = machine.client(COPY_VERSION, "digits").split()[-1]
    say(f"  version {old} to {new}")
    plan = Plan(8000, DIGITS_PATH, json.dumps(DIGITS), clients=4, pause=0.05)
    with machine.load(plan) as load:
        time.sleep(3)
        machine.alias("digits", new)
        run = machine.play("playbooks/serve.yml")
        time.sleep(3)
    live = live_at(load.records, new)
    if live is None:
        raise Failure(f"version {new} of digits is not live after the run\n{run.text[-3000:]}")
    wrong = misplaced(load.records, old, new, run.began, run.ended)
    return version_figures(run, live, summary(load.records), len(wrong))


def version_figures(run: Run, live: float, found: Summary, wrong: int) -> list[Figure]:
    """Figures of one rollout under load."""
    build = [seconds for name, _, seconds in run.tasks if re.search(r": Build the image\b", name)]
    began = run.began_task("Build an image or go on") or run.began_task("Fetch the files of ") or run.began
    rolled = run.began_task("Roll the services out") or run.ended
    return [
        at_most("build of the image", sum(build), 3),
        at_most("fetch of the model's files and build, all tasks", rolled - began),
        at_most("begin of the rollout to all replicas answering as the new version", live - rolled, 20),
        at_most("begin of the command to all replicas answering as the new version", live - run.began),
        at_most("the whole command, with the watch over the new replicas", run.seconds),
        Figure("requests meanwhile", f"{found.sent:,}, slowest {found.slowest:.2f} s"),
        Figure("failed requests", str(found.failed), "0", found.failed == 0),
        Figure("answers of a version that must not answer", str(wrong), "0", wrong == 0),
    ]


def images(machine: Machine) -> list[Figure]:
    """Size and layers of every image of the platform."""
    found = machine.python(IMAGES)
    return image_figures(found["images"], found["disk"])


def image_figures(found: list[dict[str, Any]], disk: int) -> list[Figure]:
    """A line per image with what it has in common with the runtime, and what all of it takes together."""
    ours = [image for image in found if image["name"].startswith("mlflow-anywhere/")]
    runtime = next((image for image in ours if image["name"].startswith("mlflow-anywhere/runtime:")), None)
    if runtime is None:
        raise Failure("there is no runtime image")
    figures, strangers = [], []
    for image in sorted(ours, key=lambda image: str(image["name"])):
        size, name = image["size"] / MB, image["name"].removeprefix("mlflow-anywhere/")
        shared = image["layers"][: len(runtime["layers"])] == runtime["layers"]
        note = (
            f"of these {(image['size'] - runtime['size']) / MB:,.0f} MB over the runtime"
            if shared
            else "not over the runtime"
        )
        figures.append(
            Figure(
                name,
                f"{size:,.0f} MB, {len(image['layers'])} layers, {note}",
                f"at most {IMAGE_LIMIT_MB} MB",
                size <= IMAGE_LIMIT_MB,
            )
        )
        if not shared and re.match(r"(tracking|training|model-)", name):
            strangers.append(name)
    return [
        *figures,
        Figure(
            "tracking, training and models that do not share the runtime's layers",
            ", ".join(strangers) or "none",
            "none",
            not strangers,
        ),
        at_most("all images on disk", disk / MB, unit="MB", digits=0),
    ]


def logging(machine: Machine, settings: Settings, say: Say) -> list[Figure]:
    """How many metrics one client of the tracking server logs."""
    rates = []
    for _ in range(settings.rounds):
        rates.append(float(machine.client(LOG_METRIC, str(settings.seconds)).split()[-1]))
        say(f"  {rates[-1]:.0f} per second")
    return [
        Figure(
            f"`mlflow.log_metric`, one client through the edge, median of {settings.rounds}",
            f"{median(rates):,.0f} per second",
        )
    ]


def predictions(machine: Machine, settings: Settings, say: Say) -> list[Figure]:
    """Predictions per second straight at a replica and through the edge, in turns, so that a slow minute hits both."""
    machine.install("wrk")
    edge = machine.sh("docker inspect --format '{{.State.Pid}}' mlflow-anywhere-edge").strip()
    figures: list[Figure] = []
    wrong = 0
    for model, body in (("iris", IRIS), ("digits", DIGITS)):
        machine.put((WRK % json.dumps(body)).encode(), f"/opt/bench/{model}.lua")
        replica = machine.sh(
            "docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}'"
            f" $(docker ps --quiet --filter name=mlflow-anywhere-model-{model}.)"
        ).split()[0]
        # The overlay network is not the host's: what asks a replica sits in the edge's network.
        ways = {
            DIRECT: (f"nsenter --net --target {edge} ", f"http://{replica}:8080/invocations"),
            THROUGH: ("", f"http://127.0.0.1:8000/models/{model}/invocations"),
        }
        found: Rates = {}
        for _ in range(settings.rounds):
            for connections in settings.connections:
                for way, (prefix, url) in ways.items():
                    text = machine.sh(
                        f"{prefix}wrk --threads 1 --connections {connections} --duration {settings.seconds:.0f}s"
                        f" --timeout 30s --script /opt/bench/{model}.lua {url}"
                    )
                    rate, failed, slow = wrk_result(text)
                    found.setdefault((connections, way), []).append((rate, slow))
                    wrong += failed
                    say(f"  {model}, {connections} connections, {way}: {rate:.0f} per second")
        figures += prediction_figures(model, found)
    return [*figures, Figure("failed requests", str(wrong), "0", wrong == 0)]


def prediction_figures(model: str, found: Rates) -> list[Figure]:
    """The rates of one model, and what the edge leaves of them: no point may lose more than a third."""
    figures = []
    for connections in sorted({connections for connections, _ in found}):
        title = f"{model}, one row, {connections} {'connection' if connections == 1 else 'connections'}"
        for way in (DIRECT, THROUGH):
            rates = found[connections, way]
            figures.append(
                Figure(
                    f"{title}, {way}",
                    f"{median([rate for rate, _ in rates]):,.0f} per second, 99 % within {median([slow for _, slow in rates]):.1f} ms",
                )
            )
        share = ratio(found, connections)
        figures.append(Figure(f"{title}, edge to direct", f"{share:.2f}", "at least 0.67", share >= KEPT_SHARE))
    return figures


def ratio(found: Rates, connections: int) -> float:
    """Median of the rounds' ratios: predictions per second through the edge to those of a replica alone."""
    pairs = zip(found[connections, THROUGH], found[connections, DIRECT], strict=True)
    return median([edge / direct for (edge, _), (direct, _) in pairs])


def wrk_result(text: str) -> tuple[float, int, float]:
    """Requests per second, failed requests and the 99th percentile in milliseconds, as WRK prints them."""
    match = re.search(r"^RESULT (\S+) (\d+) (\S+)$", text, re.MULTILINE)
    if not match:
        raise Failure(f"wrk said:\n{text[-1000:]}")
    return float(match[1]), int(match[2]), float(match[3])
