"""What tests of served models ask, and what they need to know of the scenario."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.traffic import Load, Reply, ask, request
from instance import Instance
from pace import too_late

# The verb that an operator uses after an alias has moved.
SERVE = "../../playbooks/serve.yml"
PREFIX = "mlflow-anywhere-model-"
RUNTIME = "mlflow-anywhere/runtime:3.17.2"
FACTOR = "prod.test.factor"
NAMES = {"iris": 2, "flowers": 1, "torn": 1, "slow": 1, "unbuildable": 1, "digits": 1}
FLOWERS = {"inputs": {"sepal length (cm)": [5.1, 6.3], "sepal width (cm)": [3.5, 3.3], "petal length (cm)": [1.4, 6.0],
                      "petal width (cm)": [0.2, 2.5]}}  # fmt: skip
DIGIT = {"inputs": [[0.0] * 784]}
NUMBERS = {"inputs": [[0.1, 0.2], [1e-3, 1 / 3]]}


def containers(instance: Instance, name: str) -> dict[str, str]:
    """The running containers of a model, and when each was started."""
    ids = instance.sh(
        f"docker ps --quiet --no-trunc --filter label=com.docker.swarm.service.name={PREFIX}{name}"
    ).split()
    return {found["Id"]: found["State"]["StartedAt"] for found in instance.inspect(*ids)} if ids else {}


def images(instance: Instance) -> dict[str, str]:
    """The images of models, by name and version, with their ids and dates."""
    lines = instance.sh(
        "docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.CreatedAt}}'"
    ).splitlines()
    return dict(line.split(" ", 1) for line in lines if "/model-" in line)


def version_image(instance: Instance, model: str, version: str) -> str:
    """The image of a version."""
    [found] = [name for name in images(instance) if f"/model-{model}:v{version}-" in name]
    return found


def set_alias(instance: Instance, model: str, alias: str, version: str) -> None:
    """Point an alias at a version."""
    answer = instance.http("http://127.0.0.1:5000/api/2.0/mlflow/registered-models/alias",
                           {"name": model, "alias": alias, "version": version})  # fmt: skip
    assert answer.status == 200, answer.body


def predict(instance: Instance, name: str, body: Any) -> Reply:
    """What a model answers."""
    [reply] = ask(instance, request(f"/models/{name}/invocations", "POST", body=json.dumps(body),
                                    headers={"Content-Type": "application/json"}))  # fmt: skip
    return reply


def wait_for_replicas(instance: Instance, name: str, count: int, seconds: float = 60) -> float:
    """Wait until so many replicas are healthy; return how long it took."""
    began = time.monotonic()
    command = f"docker ps --quiet --filter health=healthy --filter label=com.docker.swarm.service.name={PREFIX}{name}"
    while len(instance.sh(command).split()) != count:
        assert not too_late(began, seconds), instance.sh(f"docker service ps --no-trunc {PREFIX}{name}")
        time.sleep(0.5)
    return time.monotonic() - began


def play(host: str, **variables: Any) -> list[str]:
    """The command that serves what the aliases say on one host."""
    inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    playbook = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / SERVE
    return ["ansible-playbook", "--inventory", str(inventory), "--limit", host, "--extra-vars",
            json.dumps(variables), str(playbook)]  # fmt: skip


@dataclass
class Rollout:
    """A run that promoted one model and failed with three others, and what was there before."""

    code: int = 0
    output: str = ""
    before: dict[str, dict[str, str]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    promoted: Load = field(default_factory=Load)
    broken: Load = field(default_factory=Load)
