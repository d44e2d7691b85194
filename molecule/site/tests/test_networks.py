"""What a model's container reaches, and that a test would see it reach more."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import reach
from instance import Instance

OLD = "mlflow-anywhere"


@pytest.fixture
def attached(instance: Instance) -> Iterator[str]:
    """A model's container that is on the platform's network as well."""
    container = reach.models(instance)[0]
    instance.sh(f"docker network connect {OLD} {container}")
    yield container
    instance.sh(f"docker network disconnect --force {OLD} {container}")


def test_models_reach_nothing(instance: Instance, figure: Callable[[str], None]) -> None:
    containers = reach.models(instance)
    assert len(containers) >= 3
    for container in containers:
        assert reach.reached(instance, container) == [], container
    figure(f"{len(containers)} containers of models on {instance.name} reach nothing but themselves")


def test_a_model_on_the_network_of_the_platform_would_reach_it(instance: Instance, attached: str) -> None:
    found = " ".join(reach.reached(instance, attached))
    for part in ("tracking:5000 (by name)", "edge:8404 (by name)", "the name tracking"):
        assert part in found, found


def test_the_database_is_with_the_tracking_server_alone(instance: Instance) -> None:
    members = instance.inspect("mlflow-anywhere-database")[0]["Containers"].values()
    names = {member["Name"] for member in members if not member["Name"].endswith("-endpoint")}
    assert names == {"mlflow-anywhere-postgres", "mlflow-anywhere-tracking"}
    assert list(instance.inspect("mlflow-anywhere-postgres")[0]["NetworkSettings"]["Networks"]) == [
        "mlflow-anywhere-database"
    ]
