"""One run that promotes one model and fails with three others, for all tests that look at what became of it."""

from __future__ import annotations

import pytest
from edge.traffic import load
from instance import Instance
from serving.models import FACTOR, FLOWERS, NAMES, NUMBERS, SERVE, Rollout, containers, images, set_alias

_ROLLOUTS: dict[str, Rollout] = {}


@pytest.fixture
def rollout(instance: Instance) -> Rollout:
    """Once on each instance, under load: a good version of one model and three bad ones of another go live."""
    if instance.name not in _ROLLOUTS:
        _ROLLOUTS[instance.name] = roll_out(instance)
    return _ROLLOUTS[instance.name]


def roll_out(instance: Instance) -> Rollout:
    """Move the aliases and serve."""
    found = Rollout(before={name: containers(instance, name) for name in NAMES}, images=images(instance))
    set_alias(instance, "iris", "champion", "2")
    for alias, version in {"torn": "2", "slow": "3", "unbuildable": "4"}.items():
        set_alias(instance, FACTOR, alias, version)
    with (
        load(instance, "/models/iris/invocations", FLOWERS, pause=0.2, clients=3) as found.promoted,
        load(instance, "/models/slow/invocations", NUMBERS, pause=0.3, clients=2) as found.broken,
    ):
        ran = instance.play(SERVE)
    found.code, found.output = ran.returncode, ran.stdout + ran.stderr
    return found
