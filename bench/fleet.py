"""Throughput with one, two and three hosts that serve, and the edge's share of the work.

The hosts are the instances of the scenario `fleet`, which `molecule/run.py --keep fleet` leaves. They share one machine, so each model server gets a
fixed part of a processor: what counts is the ratio.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.figures import MARK, Figure, Section
from bench.load import Plan, Record
from bench.machine import Failure

HOSTS = ("ma-fleet-one", "ma-fleet-two", "ma-fleet-three")
# The one with the data, which is a manager however many there are.
MANAGER = HOSTS[2]
SERVICE = "mlflow-anywhere-model-factor"
EDGE = "mlflow-anywhere-edge"
KEY = "/run/bench.key"
SHARE = 0.15
CLIENTS = 16
READY_SECONDS = 180.0
# The processor time of the containers on a host whose names begin so, in seconds; the engine counts it on every kind of host.
USED = """
import http.client, json, socket, sys
def ask(path):
    engine = http.client.HTTPConnection("docker")
    engine.sock = socket.socket(socket.AF_UNIX)
    engine.sock.connect("/var/run/docker.sock")
    engine.request("GET", path)
    return json.loads(engine.getresponse().read())
used = [ask(f"/containers/{c['Id']}/stats?stream=false&one-shot=true")["cpu_stats"]["cpu_usage"]["total_usage"]
        for c in ask("/containers/json") if c["Names"][0].startswith("/" + sys.argv[1])]
print(sum(used) / 1e9)
"""


@dataclass
class Measured:
    """What a number of hosts answered."""

    hosts: int
    rate: float
    failed: int
    edge: float
    models: float


def run(host: str, *command: str) -> str:
    """Run a command on a host; it must succeed."""
    ran = subprocess.run(["docker", "exec", host, *command], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Failure(f"{host}: {' '.join(command)[:80]} ended with {ran.returncode}: {ran.stderr[-300:]}")
    return ran.stdout


def used(host: str, prefix: str) -> float:
    """Processor seconds of containers so far."""
    return float(run(host, "python3", "-c", USED, prefix))


def serve_on(count: int) -> None:
    """Let so many hosts serve, with one replica each, and give each replica its part of a processor."""
    for number, host in enumerate(HOSTS):
        run(MANAGER, "docker", "node", "update", "--availability", "active" if number < count else "drain", host)
    run(MANAGER, "docker", "service", "scale", "--detach", f"{SERVICE}={count}")
    until = time.monotonic() + READY_SECONDS
    listing = (
        "docker",
        "service",
        "ps",
        "--filter",
        "desired-state=running",
        "--format",
        "{{.Node}} {{.CurrentState}}",
        SERVICE,
    )
    while True:
        found = [line.split()[0] for line in run(MANAGER, *listing).splitlines() if line.split()[1] == "Running"]
        if sorted(found) == sorted(HOSTS[:count]):
            break
        if time.monotonic() > until:
            raise Failure(f"the replicas run on {found}, not one on each of {HOSTS[:count]}")
        time.sleep(1)
    for host in HOSTS[:count]:
        [container] = run(host, "docker", "ps", "--quiet", "--filter", f"name={SERVICE}").split()
        run(host, "docker", "update", "--cpus", str(SHARE), container)


def measure(count: int, seconds: float) -> Measured:
    """Load an edge with more clients than the servers can serve, and count."""
    plan = Plan(
        port=8000,
        path="/models/factor/invocations",
        body=json.dumps({"inputs": [[0.1, 0.2], [0.3, 0.4]]}),
        clients=CLIENTS * len(HOSTS),
        seconds=seconds,
        key_file=KEY,
    )
    before = [used(HOSTS[1], EDGE), sum(used(host, SERVICE) for host in HOSTS)]
    lines = run(HOSTS[1], "sh", "-c", f"sleep {seconds + 5:g} | python3 /run/load.py '{json.dumps(plan.__dict__)}'")
    after = [used(HOSTS[1], EDGE), sum(used(host, SERVICE) for host in HOSTS)]
    records = [Record.parse(line) for line in lines.splitlines() if line.startswith("[")]
    good = sum(record.good for record in records)
    edge, models = (later - earlier for later, earlier in zip(after, before, strict=True))
    return Measured(count, good / seconds, len(records) - good, edge, models)


def fleet(seconds: float, say: Callable[[str], None]) -> list[tuple[str, list[Figure]]]:
    """Measure one, two and three hosts."""
    keys = sorted(
        Path.home().glob(".ansible/tmp/molecule.*.fleet/secrets/api_key_app_k1"), key=lambda path: path.stat().st_mtime
    )
    for source, target in ((Path(__file__).with_name("load.py"), "/run/load.py"), *((key, KEY) for key in keys[-1:])):
        with source.open("rb") as text:
            ran = subprocess.run(
                ["docker", "exec", "-i", HOSTS[1], "sh", "-c", f"umask 077; cat >{target}"], stdin=text, check=False
            )
        if ran.returncode or not keys:
            raise Failure(f"{HOSTS[1]} does not run. Bring the hosts up first: molecule/run.py --keep fleet")
    found = []
    try:
        for count in range(1, len(HOSTS) + 1):
            say(f"{count} of {len(HOSTS)} hosts serve")
            serve_on(count)
            measure(count, 3)
            found.append(measure(count, seconds))
    finally:
        serve_on(len(HOSTS))
    first = found[0].rate
    rates = [
        Figure(
            f"{one.hosts} {'host' if one.hosts == 1 else 'hosts'}",
            f"{one.rate:.0f} predictions/s, {one.rate / first:.2f} times one host, {one.failed} failed",
            "at least 0.85 times as many for each host",
            met=one.rate >= 0.85 * one.hosts * first and not one.failed,
        )
        for one in found
    ]
    shares = [
        Figure(
            f"edge, {one.hosts} {'host' if one.hosts == 1 else 'hosts'} behind it",
            f"{1000 * one.edge / (one.rate * seconds):.2f} ms per prediction, {one.edge / (one.edge + one.models):.1%} of edge and models together",
        )
        for one in found
    ]
    heading = f"Predictions through one edge, each model server with {SHARE:g} of a processor"
    return [(heading, rates), ("Processor time of the edge", shares)]


def keep(section: Section, page: Path) -> None:
    """Replace the section in a page that is written by hand."""
    text = page.read_text()
    if section.name not in {match["name"] for match in MARK.finditer(text)}:
        raise Failure(f"{page} has no place for the section {section.name}")
    page.write_text(MARK.sub(lambda match: section.render() if match["name"] == section.name else match[0], text))
