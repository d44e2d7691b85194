"""A Swarm of one host: what runs on it, who reaches it, and what it survives."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from instance import Instance

PYTHON = "/usr/bin/python3"
NETWORK = "mlflow-anywhere"


def state(instance: Instance) -> tuple[str, bool]:
    """State of the host in its Swarm, and whether it is a manager."""
    swarm = json.loads(instance.sh("docker info --format '{{json .Swarm}}'"))
    return swarm["LocalNodeState"], swarm["ControlAvailable"]


@pytest.fixture
def web(instance: Instance) -> Iterator[str]:
    """A service that answers HTTP on the network, and its name."""
    instance.sh(
        f"docker service create --quiet --name web --endpoint-mode dnsrr --no-resolve-image --network {NETWORK} {instance.python_image()}"
        f" {PYTHON} -m http.server --directory /usr/bin 8000"
    )
    yield "web"
    instance.sh("docker service rm web")


def ask(instance: Instance, service: str) -> str:
    """Status of the service for a plain container on the network."""
    client = f'import urllib.request as u; print(u.urlopen("http://{service}:8000", timeout=5).status)'
    return instance.sh(f"docker run --rm --network {NETWORK} python {PYTHON} -c '{client}'").strip()


def test_plain_containers_reach_services_by_name(instance: Instance, web: str) -> None:
    assert state(instance) == ("active", True)
    assert ask(instance, web) == "200"


@pytest.mark.parametrize("port", [2377, 7946])
def test_is_not_reachable_from_other_machines(instance: Instance, port: int) -> None:
    address = instance.sh("hostname --ip-address").split()[0]
    with socket.socket() as client:
        client.settimeout(5)
        assert client.connect_ex((address, port)) != 0


def test_survives_a_restart_of_the_engine(instance: Instance, web: str) -> None:
    instance.sh("systemctl restart docker")
    assert state(instance) == ("active", True)
    instance.sh(
        "for i in $(seq 60); do docker ps --quiet --filter name=web | grep -q . && exit 0; sleep 1; done; exit 1"
    )
    assert ask(instance, web) == "200"


def test_is_made_anew_when_its_address_is_gone(instance: Instance) -> None:
    address = "192.0.2.1"
    instance.sh(
        f"docker swarm leave --force && ip address add {address}/32 dev eth0"
        f" && docker swarm init --advertise-addr {address} --listen-addr {address}:2377"
        f" && ip address del {address}/32 dev eth0 && systemctl restart docker"
    )
    assert state(instance) == ("error", False)
    instance.converge()
    assert state(instance) == ("active", True)
    instance.sh(f"docker run --rm --network {NETWORK} python {PYTHON} -c ''")
