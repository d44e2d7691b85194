"""One run that promotes one model and fails with three others, for all tests that look at what became of it."""

from __future__ import annotations

import os
import subprocess

import pytest
import testinfra
from edge.traffic import load
from instance import Instance
from serving.models import FACTOR, FLOWERS, NAMES, NUMBERS, Rollout, containers, images, play, set_alias


@pytest.fixture(scope="session")
def rollouts() -> dict[str, Rollout]:
    """On all instances at once, under load: a good version of one model and three bad ones of another go live."""
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    instances = [Instance(host) for host in testinfra.get_hosts(["ansible://all"], ansible_inventory=inventory)]
    found = {instance.name: Rollout() for instance in instances}
    loads = []
    for instance in instances:
        one = found[instance.name]
        one.before = {name: containers(instance, name) for name in NAMES}
        one.images = images(instance)
        set_alias(instance, "iris", "champion", "2")
        for alias, version in {"torn": "2", "slow": "3", "unbuildable": "4"}.items():
            set_alias(instance, FACTOR, alias, version)
        loads.append((one, load(instance, "/models/iris/invocations", FLOWERS, pause=0.1, clients=3)))
        loads.append((one, load(instance, "/models/slow/invocations", NUMBERS, pause=0.3, clients=2)))
    started = [context.__enter__() for _, context in loads]
    ran = subprocess.run(play(*found), capture_output=True, text=True, check=False, env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"})  # fmt: skip
    for number, (one, context) in enumerate(loads):
        context.__exit__(None, None, None)
        one.code, one.output = ran.returncode, ran.stdout + ran.stderr
        if number % 2:
            one.broken = started[number]
        else:
            one.promoted = started[number]
    return found


@pytest.fixture
def rollout(instance: Instance, rollouts: dict[str, Rollout]) -> Rollout:
    """The run on this instance."""
    return rollouts[instance.name]
