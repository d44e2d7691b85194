"""Clients of the tracking server on the platform's network and on its host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from instance import Instance
from postgres.database import encoded, healthy

CONTAINER = "mlflow-anywhere-tracking"
NETWORK = "mlflow-anywhere"
RUNTIME = "mlflow-anywhere/runtime:3.17.2"
BASE = "mlflow-anywhere/base:13"
SECRETS = "/var/lib/mlflow-anywhere/tracking/secrets"
FILES = Path(__file__).parent / "files"


def client(instance: Instance, program: str, *arguments: str) -> Any:
    """The JSON that a program prints last, run in a container that has the plain MLflow client and nothing of the platform."""
    text = (FILES / program).read_text()
    # Arguments may be secrets, and a container's command can be inspected: they come with the program.
    text = f"import sys; sys.argv[1:] = {list(arguments)!r}\n{text}"
    run = f"docker run --rm --interactive --network {NETWORK} --env MLFLOW_TRACKING_URI=http://tracking:5000 {RUNTIME} python -"
    output = instance.sh(f"{encoded(text)} | {run} 2>/run/client.log || {{ cat /run/client.log >&2; exit 1; }}")
    return json.loads(output.strip().splitlines()[-1])


def address(instance: Instance) -> str:
    """URL at which the host itself reaches the server, past the edge."""
    networks = instance.inspect("docker_gwbridge")[0]["Containers"]
    mine = networks[instance.inspect(CONTAINER)[0]["Id"]]["IPv4Address"].split("/")[0]
    return f"http://{mine}:5000"


def ready(instance: Instance) -> bool:
    """Whether the health check of the tracking server succeeds."""
    return healthy(instance, CONTAINER)


def starts(instance: Instance) -> tuple[str, int]:
    """When the container's process was started and how often the engine restarted it."""
    found = instance.inspect(CONTAINER)[0]
    return found["State"]["StartedAt"], found["RestartCount"]
