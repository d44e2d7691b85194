"""What a scenario starts from: a copy of the golden platform that is a platform of its own, and there at once."""

from __future__ import annotations

from collections.abc import Callable

from instance import Instance
from runner.golden import IDENTITY, identity


def test_nothing_of_the_first_machine_is_carried_over(instance: Instance) -> None:
    first, here = (
        dict(line.split() for line in text.splitlines()) for text in (identity().read_text(), instance.sh(IDENTITY))
    )
    assert {"/etc/machine-id", "worker-token", "/var/lib/docker/swarm/certificates/swarm-node.key"} <= set(first)
    assert "/var/lib/mlflow-anywhere/postgres/secrets/password" in first
    assert "/var/lib/mlflow-anywhere/tracking/secrets/environment.json" in first
    empty = {
        "/var/lib/mlflow-anywhere/tracking/secrets/" + name for name in ("accounts.json", "auth.ini", "aws_credentials")
    }
    assert [name for name, value in here.items() if first.get(name) == value and name not in empty] == []


def test_the_first_prediction_comes_within_seconds(instance: Instance, figure: Callable[[str], None]) -> None:
    seconds, slowness = map(float, instance.sh("cat /run/first-prediction").split())
    figure(
        f"copy of the golden platform: first prediction {seconds:.0f} s after the start of a machine {slowness} times as slow as an idle good one"
    )
    assert seconds <= 25 * slowness
