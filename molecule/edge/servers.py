"""The servers behind the edge that stand for the tracking server and for models."""

from __future__ import annotations

import time

from edge.traffic import ask, request
from instance import Instance
from pace import too_late

EDGE = "mlflow-anywhere-edge"
DIRECTORY = "/var/lib/mlflow-anywhere/edge"

IMAGE = "mlflow-anywhere/base:13"
MODEL = "mlflow-anywhere-model-"
# Name: alias on the network, port, model and version that it says it is.
SERVERS = {
    "tracking": ("tracking", 5000, "", ""),
    "iris-1": (MODEL + "iris", 8080, "iris", "3"),
    "iris-2": (MODEL + "iris", 8080, "iris", "3"),
    "digits": (MODEL + "digits", 8080, "digits", "7"),
    "challenger": (MODEL + "digits--challenger", 8080, "digits", "8"),
}


def start(name: str) -> str:
    """The command that starts a server; one that dies is back within a second."""
    alias, port, model, version = SERVERS[name]
    return (
        f"docker run --detach --name {name} --network mlflow-anywhere --network-alias {alias} --restart always"
        f" --volume /run/backend.py:/backend.py:ro --env SERVER_NAME={name} --env PORT={port} --env MODEL={model} --env VERSION={version}"
        f" {IMAGE} python3 -u /backend.py"
    )


def wait_for_all(instance: Instance) -> None:
    """Wait until the edge sends requests to every server."""
    began = time.monotonic()
    missing = set(SERVERS)
    while missing:
        assert not too_late(began, 30), f"the edge does not find {missing}"
        asked = [request("/models/iris/ping"), request("/models/digits/ping")] * 8 + [request("/version", port=5000)]
        replies = ask(instance, *asked)
        missing = set(SERVERS) - {reply.json()["server"] for reply in replies if reply.status == 200}
