"""Servers behind the edge, and the certificate that clients trust."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from edge.traffic import put
from instance import Instance
from pace import too_late
from public.traffic import ask, get

SERVERS = {
    "tracking": ("tracking", 5000, "", ""),
    "iris": ("mlflow-anywhere-model-iris", 8080, "iris", "3"),
    "digits": ("mlflow-anywhere-model-digits", 8080, "digits", "7"),
}


@pytest.fixture(scope="module", autouse=True)
def servers(host: Any) -> None:
    """The servers run, the edge knows them, and clients trust its certificate."""
    instance = Instance(host)
    put(instance, Path(__file__).parents[2] / "edge" / "files" / "backend.py", "/run/backend.py")
    secrets = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets"
    put(instance, secrets / "ca.pem", "/run/ca.pem")
    for name, (alias, port, model, version) in SERVERS.items():
        instance.sh(
            f"docker rm --force {name} >/dev/null 2>&1; docker run --detach --name {name} --network mlflow-anywhere --network-alias {alias}"
            f" --volume /run/backend.py:/backend.py:ro --env SERVER_NAME={name} --env PORT={port} --env MODEL={model}"
            f" --env VERSION={version} mlflow-anywhere/base:13 python3 -u /backend.py"
        )
    key = (secrets / "operator_key").read_text().strip()
    wanted = [get("/version", basic="a:b"), get("/models/iris/ping", key), get("/models/digits/ping", key)]
    began = time.monotonic()
    while any(answer.status != 200 for answer in ask(instance, *wanted)):
        assert not too_late(began, 30), ask(instance, *wanted)
