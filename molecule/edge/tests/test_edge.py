"""The edge on each release and its engine: who reaches it, what it may do, and what it survives."""

from __future__ import annotations

import json
import time

import pytest
from edge.servers import DIRECTORY, EDGE, wait_for_all
from edge.traffic import ask, load, request
from instance import Instance
from pace import too_late

pytestmark = pytest.mark.usefixtures("servers")


def test_listens_on_the_promised_ports_of_the_loopback_address_alone(instance: Instance) -> None:
    published = instance.inspect(EDGE)[0]["HostConfig"]["PortBindings"]
    assert published == {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}] for port in (5000, 8000, 9201)}
    sockets = {line.split()[3] for line in instance.sh("ss -Hltn").splitlines()}
    edge = {socket for socket in sockets if socket.rpartition(":")[2] in {"5000", "8000", "8080", "8404", "9201"}}
    assert edge == {"127.0.0.1:5000", "127.0.0.1:8000", "127.0.0.1:9201"}
    assert not [socket for socket in sockets if not socket.startswith(("127.", "[::1]"))]


def test_its_container_may_do_nothing_but_route(instance: Instance) -> None:
    container = instance.inspect(EDGE)[0]
    settings = container["HostConfig"]
    assert container["Config"]["User"] == "10001"
    assert settings["ReadonlyRootfs"]
    assert settings["CapDrop"] == ["ALL"]
    assert not settings["CapAdd"]
    assert not settings["Privileged"]
    assert "no-new-privileges" in " ".join(settings["SecurityOpt"])
    assert settings["Memory"] == 768 * 2**20
    assert settings["PidsLimit"] == 64
    assert settings["RestartPolicy"]["Name"] == "unless-stopped"
    assert [(mount["Source"], mount["RW"]) for mount in container["Mounts"]] == [(DIRECTORY, False)]
    status = instance.sh(f"cat /proc/{container['State']['Pid']}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    writable = "import os; print([p for p in ('/', '/edge', '/etc', '/tmp', '/usr') if os.access(p, os.W_OK)])"
    assert instance.sh(f'docker exec {EDGE} python3 -c "{writable}"').strip() == "[]"


def test_a_reload_under_load_loses_nothing(instance: Instance) -> None:
    sizes = [100, 70_000, 300_000]
    with (
        load(instance, "/models/iris/invocations", {}, clients=6, sizes=sizes) as models,
        load(instance, "/api/2.0/mlflow/runs/create", {}, port=5000, clients=6, sizes=sizes) as tracking,
    ):
        for number in range(3):
            instance.sh(f"echo '# {number}' >>{DIRECTORY}/style.css")
            assert instance.sh(f"docker exec {EDGE} edge reload").strip() == "reloaded"
            time.sleep(0.5)
    assert models.failed == tracking.failed == []
    assert models.sent > 100
    assert tracking.sent > 100
    assert instance.converge().changed > 0
    assert ask(instance, request("/style.css"))[0].body.count("\n# ") == 0


def test_is_back_within_seconds_of_its_death(instance: Instance) -> None:
    edge = instance.inspect(EDGE)[0]["State"]
    # `docker kill` counts as a wish, which a restart policy respects.
    instance.sh(f"kill -9 {edge['Pid']}")
    began = time.monotonic()
    while not all(
        reply.status == 200 for reply in ask(instance, request("/models/iris/ping"), request("/version", port=5000))
    ):
        assert not too_late(began, 10)
        time.sleep(0.1)
    assert instance.inspect(EDGE)[0]["RestartCount"] == 1
    wait_for_all(instance)


def test_survives_a_restart_of_the_engine(instance: Instance) -> None:
    instance.sh("systemctl restart docker")
    wait_for_all(instance)


def test_finds_servers_by_name_and_forgets_them(instance: Instance) -> None:
    with load(instance, "/models/iris/invocations", {}, clients=4) as traffic:
        # One leaves without a word and comes back at another address.
        instance.sh(
            "docker stop --time 0 iris-2 && docker run --detach --rm --name in-between --network mlflow-anywhere mlflow-anywhere/base:13 sleep 60"
        )
        time.sleep(3)
        instance.sh("docker start iris-2")
        wait_for_all(instance)
        instance.sh("docker rm --force in-between")
    assert traffic.failed == []
    log = instance.logs(EDGE, 200).splitlines()
    entries = [json.loads(line) for line in log if line.startswith("{")]
    assert {"request_id", "method", "path", "model", "status", "server", "total_ms"} <= set(entries[-1])
