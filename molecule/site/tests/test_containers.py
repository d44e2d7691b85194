"""Every container against the CIS Docker Benchmark, and that the audit would see what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import cis
from instance import Instance


def test_every_container_fulfils_the_benchmark(instance: Instance, figure: Callable[[str], None]) -> None:
    looked_at, found = cis.audit(instance)
    figure(
        f"CIS Docker Benchmark on {instance.name}: {looked_at} items looked at, {len(found)} do not hold, {len(cis.WAIVERS)} are waived"
    )
    assert found == []


def test_a_careless_container_is_found(instance: Instance) -> None:
    instance.sh(
        "docker run --detach --name careless --user root --cap-add NET_ADMIN --security-opt seccomp=unconfined --publish 0.0.0.0:8123:8000"
        " --pid host --volume /var/run/docker.sock:/var/run/docker.sock --volume /etc:/host/etc:ro mlflow-anywhere/base:13 sleep 600"
    )
    try:
        _, found = cis.audit(instance)
    finally:
        instance.sh("docker rm --force careless")
    items = {line.split(": ")[1].partition(" ")[0] for line in found}
    assert items >= {"4.1", "4.6", "5.4", "5.6", "5.11", "5.13", "5.14", "5.16", "5.22", "5.29", "5.30", "5.32"}
