"""A second run under load: one model goes to its second version, three versions of another are broken."""

from __future__ import annotations

import pytest
from edge.traffic import ask, request
from instance import Instance
from pace import slowness
from serving.models import FACTOR, FLOWERS, NUMBERS, Rollout, containers, images, predict, version_image


def test_a_promotion_under_load_fails_nobody(rollout: Rollout) -> None:
    assert rollout.promoted.failed == []
    assert rollout.promoted.count("1") > 20
    assert rollout.promoted.count("2") > 20
    assert {(kind.name, kind.version) for kind in rollout.promoted.kinds} == {("iris", "1"), ("iris", "2")}
    # Each version says one thing, and the two say different things.
    assert len({kind.body for kind in rollout.promoted.kinds}) == len(rollout.promoted.kinds) == 2
    # Two replicas, one after the other: both versions answer while they are replaced, then only the new one.
    assert rollout.promoted.last("1") < rollout.promoted.last("2")
    assert rollout.promoted.first("1") < rollout.promoted.first("2")
    assert rollout.promoted.last("1") - rollout.promoted.first("2") < 60 * slowness()


def test_both_names_are_promoted(instance: Instance, rollout: Rollout) -> None:
    assert rollout.before
    for name, replicas in {"iris": 2, "flowers": 1}.items():
        assert predict(instance, name, FLOWERS).headers["x-model-version"] == "2"
        assert len(containers(instance, name)) == replicas
        assert not set(containers(instance, name)) & set(rollout.before[name])


@pytest.mark.parametrize("name", ["torn", "slow", "unbuildable"])
def test_what_breaks_leaves_its_predecessor_serving(instance: Instance, rollout: Rollout, name: str) -> None:
    assert containers(instance, name) == rollout.before[name]
    reply = predict(instance, name, NUMBERS)
    assert (reply.status, reply.headers["x-model-version"]) == (200, "1")
    assert rollout.broken.failed == []
    assert {(kind.name, kind.version) for kind in rollout.broken.kinds} == {("slow", "1")}
    [listed] = ask(instance, request("/models"))
    assert {model["name"]: model["version"] for model in listed.json()} == {
        "iris": "2",
        "flowers": "2",
        "torn": "1",
        "slow": "1",
        "unbuildable": "1",
        "digits": "1",
    }


def test_the_run_ends_red_and_says_why(instance: Instance, rollout: Rollout) -> None:
    assert rollout.code == 2
    # A build that failed is a message of its own; the last one of this instance sums up.
    message = [part for part in rollout.output.split("fatal: ")[1:] if part.startswith(f"[{instance.name}]")][-1]
    for name, version in {"torn": "2", "slow": "3", "unbuildable": "4"}.items():
        assert (
            f"{name}: version {version} of {FACTOR} (alias {name}) is not served. Version 1 goes on serving." in message
        )
    assert "the weights are torn" in message
    assert "the weights of factor 5.0" in message
    assert "health check" in message
    assert "scikit-learn==0.0.7" in message
    assert "iris: version" not in message


def test_a_version_is_built_once_and_adds_only_itself(instance: Instance, rollout: Rollout) -> None:
    now = images(instance)
    assert rollout.images
    assert {name: now.get(name) for name in rollout.images} == rollout.images
    # Of this model both have the same requirements; the platform that the scenario started from had trained the first iris.
    first, second = (instance.inspect(version_image(instance, "prod-test-factor", version))[0] for version in "13")
    layers = [image["RootFS"]["Layers"] for image in (first, second)]
    differing = [number for number, pair in enumerate(zip(*layers, strict=True)) if pair[0] != pair[1]]
    assert len(differing) == 1
