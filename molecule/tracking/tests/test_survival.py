"""Containers that go."""

from __future__ import annotations

import pytest
from instance import Instance, wait_until
from tracking.clients import client, ready


@pytest.mark.parametrize("event", ["engine", "removal"])
def test_runs_and_artifacts_survive(instance: Instance, event: str) -> None:
    run = client(instance, "log_run.py")["run"]
    if event == "engine":
        instance.sh("systemctl restart docker")
        wait_until(lambda: ready(instance), 90, "the tracking server is not back")
    else:
        instance.sh("docker ps --all --quiet | xargs docker rm --force")
        instance.converge()
    assert client(instance, "read_run.py", run) == {"metrics": {"accuracy": 0.75}, "note": "written by a client"}
