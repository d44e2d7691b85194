"""What tests of several hosts ask: where replicas run, runs over all hosts, and a client's view through one edge."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import testinfra
import yaml
from edge.traffic import put
from instance import Answer, Instance
from public.traffic import ask, get, load

# The one that tests take away; the edge that clients use meanwhile; the one with the data, which has an edge as well.
NAMES = LOST, EDGE, DATA = ("ma-fleet-one", "ma-fleet-two", "ma-fleet-three")
SERVICE = "mlflow-anywhere-model-factor"
PREDICTION = {
    "path": "/models/factor/invocations",
    "method": "POST",
    "body": json.dumps({"inputs": [[0.1, 0.2], [1e-3, 1 / 3]]}),
}
PLAYBOOKS = Path(__file__).parents[2] / "playbooks"


def hosts() -> list[Instance]:
    """All three hosts."""
    return [Instance(testinfra.get_host(f"docker://{name}")) for name in NAMES]


def replicas(manager: Instance) -> Counter[str]:
    """How many replicas are healthy, by host, as far as the manager knows and wants them to go on; none while the managers choose a leader."""
    listed = manager.host.run(
        f"docker service ps --filter desired-state=running --format '{{{{.Node}}}} {{{{.CurrentState}}}}' {SERVICE}"
    )
    return Counter(line.split()[0] for line in listed.stdout.splitlines() if line.split()[1] == "Running")


def states(manager: Instance) -> dict[str, tuple[str, str, str]]:
    """State, availability and role of every node."""
    ids = manager.sh("docker node ls --quiet").split()
    nodes: list[dict[str, Any]] = json.loads(manager.sh(f"docker node inspect {' '.join(ids)}"))
    return {
        node["Description"]["Hostname"]: (node["Status"]["State"], node["Spec"]["Availability"], node["Spec"]["Role"])
        for node in nodes
    }


def managers() -> set[str]:
    """Those whom the inventory makes managers: one, or all three."""
    inventory: dict[str, Any] = yaml.safe_load(Path(os.environ["MOLECULE_INVENTORY_FILE"]).read_text())
    return set(inventory["managers"]["hosts"])


def role(name: str) -> str:
    """What a host is in the Swarm."""
    return "manager" if name in managers() else "worker"


def leader(manager: Instance) -> str:
    """The manager that the others follow."""
    listed = manager.sh("docker node ls --format '{{.Hostname}} {{.ManagerStatus}}'")
    [name] = [line.split()[0] for line in listed.splitlines() if line.endswith(" Leader")]
    return name


def secret(name: str) -> str:
    """A secret that the roles generated on the control machine."""
    return (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets" / name).read_text().strip()


def trusting(host: Instance) -> Instance:
    """The same host, whose clients trust the certificate of the edges."""
    put(host, Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "edge.pem", "/run/ca.pem")
    return host


def through(edge: Instance, *paths: str) -> list[Answer]:
    """What a client of the models gets by HTTPS through an edge."""
    return ask(trusting(edge), *(get(path, secret("api_key_app_k1")) for path in paths))


@dataclass
class Traffic:
    """What came of the predictions that were asked for meanwhile."""

    sent: int = 0
    failed: dict[str, int] = field(default_factory=dict)


@contextmanager
def predictions(edge: Instance) -> Iterator[Traffic]:
    """A client asks for predictions by HTTPS through an edge, as long as the block lasts."""
    headers = {"Authorization": f"Bearer {secret('api_key_app_k1')}", "Content-Type": "application/json"}
    found = Traffic()
    with load(trusting(edge), headers=headers, **PREDICTION) as result:
        yield found
    found.sent = sum(result["counts"].values())
    found.failed = {status: count for status, count in result["counts"].items() if status != "200"}


def play(
    playbook: str, inventory: Path | None = None, options: tuple[str, ...] = (), **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the product over all hosts, however it ends."""
    chosen = inventory or Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    return subprocess.run(
        [
            "ansible-playbook",
            "--inventory",
            str(chosen),
            "--extra-vars",
            json.dumps(variables),
            *options,
            str(PLAYBOOKS / playbook),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
    )


def changes(playbook: str, *options: str, **variables: Any) -> int:
    """How much a run that must succeed changed."""
    ran = play(playbook, options=options, **variables)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return sum(map(int, re.findall(r"\bchanged=(\d+)", ran.stdout)))


def docker(*arguments: str) -> None:
    """Do something to a host from outside: the test host's engine runs it."""
    subprocess.run(["docker", *arguments], check=True, capture_output=True)
