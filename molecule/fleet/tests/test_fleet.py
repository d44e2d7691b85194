"""Three hosts in one Swarm: who does what, and what clients notice when a host dies, is cut off, drained, and comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import reach
import yaml
from fleet.hosts import (
    DATA,
    EDGE,
    LOST,
    NAMES,
    changes,
    docker,
    hosts,
    leader,
    managers,
    play,
    predictions,
    replicas,
    role,
    states,
    through,
)
from instance import Instance, wait_until
from pace import slowness

testinfra_hosts = [f"ansible://{DATA}"]
Figure = Callable[[str], None]
REGISTRY = "10.213.7.13:5443"
SPREAD = dict.fromkeys(NAMES, 1)
CONVERGE = str(Path(__file__).parents[1] / "converge.yml")
ROOT = Path(__file__).parents[3]
SCAN = ROOT / "molecule" / "shared" / "files" / "scan.py"


@pytest.fixture
def two() -> Instance:
    """The host whose edge the clients use: it stays when others go."""
    return hosts()[1]


@pytest.fixture
def lost() -> Iterator[Instance]:
    """The host that goes away; every test leaves it in service, with its share of the replicas."""
    host, _, manager = hosts()
    yield host
    docker("start", LOST)
    for chain in ("INPUT -i", "OUTPUT -o"):
        host.host.run(f"iptables -D {chain} eth0 -j DROP")
    wait_until(lambda: states(manager)[LOST][0] == "ready", 60, "the host is not back in the Swarm")


def test_every_host_is_what_its_groups_say(instance: Instance) -> None:
    assert states(instance) == {name: ("ready", "active", role(name)) for name in NAMES}
    for name in NAMES:
        labels = instance.inspect(name)[0]["Spec"]["Labels"]
        assert labels.get("mlflow-anywhere.serving") == "true"
        assert labels.get("mlflow-anywhere.tracking") == ("true" if name == DATA else None)


def test_replicas_are_spread_over_the_hosts(instance: Instance) -> None:
    assert replicas(instance) == SPREAD
    image = instance.service("mlflow-anywhere-model-factor")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    assert image.startswith(f"{REGISTRY}/mlflow-anywhere/model-factor:v1-")
    assert "@sha256:" in image


def test_a_model_reaches_nothing_on_any_host() -> None:
    for host in hosts():
        others = [other for other in hosts() if other.name != host.name]
        (container,) = reach.models(host)
        assert reach.reached(host, container, *others) == [], host.name


def test_every_edge_answers_the_same(instance: Instance, two: Instance, secrets: dict[str, str]) -> None:
    for edge in (instance, two):
        [listed, *replies] = through(edge, "/models", *["/models/factor/ping"] * 12)
        assert {reply.status for reply in replies} == {200}
        assert [(model["name"], model["version"]) for model in listed.json()] == [("factor", "1")]
        tracking = "http://127.0.0.1:5000/version"
        assert edge.http(tracking).status == 401
        assert edge.http(tracking, auth=("admin", secrets["admin_password"])).body == "3.17.2"
        assert edge.http("https://127.0.0.1/models/factor/ping").status == 401
    assert hosts()[0].http("http://127.0.0.1:8000/models").status == 0


def test_the_swarm_listens_on_private_addresses_alone(instance: Instance) -> None:
    assert instance.name == DATA
    for number, host in enumerate(hosts(), 1):
        ports = (7946, 2377) if host.name in managers() else (7946,)
        listening = {
            line.split()[3]
            for line in host.sh("ss -Hltn").splitlines()
            if line.split()[3].endswith((":2377", ":7946", ":5443"))
        }
        assert listening - {REGISTRY} == {f"10.213.7.1{number}:{port}" for port in ports}


def test_members_alone_reach_the_ports_of_the_swarm(instance: Instance, two: Instance, figure: Figure) -> None:
    assert instance.name == DATA
    command = [sys.executable, str(SCAN), *(f"10.213.7.1{number}" for number in range(1, 4))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = dict(zip(NAMES, json.loads(done.stdout), strict=True))
    assert found == {LOST: [22], EDGE: [22, 80, 443], DATA: [22, 80, 443]}
    for port in (2377, 7946, 5443):
        two.sh(f"python3 -c 'import socket; socket.create_connection((\"10.213.7.13\", {port}), 5)'")
    figure(f"65,535 ports of each host, seen by a machine that is no member: {found}")


@pytest.mark.campaign
def test_a_dry_run_on_the_converged_fleet_changes_nothing(instance: Instance) -> None:
    assert instance.name == DATA
    assert changes(CONVERGE, "--check", "--diff") == 0


def test_the_client_code_is_that_of_a_laptop(two: Instance, secrets: dict[str, str]) -> None:
    """The training package, unchanged, on a machine that is no member: only environment variables say where it logs."""
    assert two.name == EDGE
    environment = {
        **os.environ,
        "NO_PROXY": "*",
        "MLFLOW_TRACKING_URI": "https://10.213.7.12",
        "MLFLOW_TRACKING_USERNAME": "admin",
        "MLFLOW_TRACKING_PASSWORD": secrets["admin_password"],
        "MLFLOW_TRACKING_SERVER_CERT_PATH": str(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "edge.pem"),
    }
    command = [sys.executable, "-m", "training", "iris"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    registered = two.http(
        "http://127.0.0.1:5000/api/2.0/mlflow/registered-models/get?name=iris",
        auth=("admin", secrets["admin_password"]),
    )
    assert registered.status == 200, registered.body


def test_the_registry_wants_a_password(instance: Instance, two: Instance, secrets: dict[str, str]) -> None:
    url = f"https://{REGISTRY}/v2/_catalog"
    assert instance.http(url).status == 401
    assert two.http(url).status == 401
    assert two.http(url, auth=("mlflow-anywhere", "wrong")).status == 401
    answer = two.http(url, auth=("mlflow-anywhere", secrets["registry_password"]))
    assert "mlflow-anywhere/model-factor" in answer.json()["repositories"]


def test_the_registry_is_trusted_by_the_authority_of_the_platform_alone(instance: Instance, two: Instance) -> None:
    program = (
        "import ssl, sys, urllib.error, urllib.request as u\n"
        "context = ssl.create_default_context(cafile=sys.argv[1] if len(sys.argv) > 1 else None)\n"
        f"try: u.urlopen('https://{REGISTRY}/v2/', context=context)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
        "except urllib.error.URLError as error: print(error.reason)\n"
    )
    assert two.sh(f'python3 -c "{program}" /etc/docker/certs.d/{REGISTRY}/ca.crt').strip() == "401"
    assert "CERTIFICATE_VERIFY_FAILED" in instance.sh(f'python3 -c "{program}"')
    assert "CERTIFICATE_VERIFY_FAILED" in two.sh(f'python3 -c "{program}"')


def test_secrets_stand_in_no_readable_place(instance: Instance, secrets: dict[str, str]) -> None:
    # Of keys the first line says nothing.
    chosen = {
        name: value.splitlines()[value.startswith("-----")]
        for name, value in secrets.items()
        if "BEGIN CERTIFICATE" not in value
    }
    assert {"registry_password", "registry.key", "admin_password", "operator_key", "api_key_app_k1"} <= set(chosen)
    for host in hosts()[1:]:
        assert host.leaks(chosen) == {}
    tokens = instance.sh("docker swarm join-token --quiet worker; docker swarm join-token --quiet manager").split()
    logs = "".join(
        path.read_text() for path in Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]).glob(".cache/molecule/fleet.log")
    )
    assert len(tokens) == 2
    assert [token for token in tokens if token in logs] == []
    assert hosts()[1].leaks({"token": tokens[0]}) == {}
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets"
    assert {path.stat().st_mode & 0o777 for path in directory.glob("*.key")} == {0o600}


def test_a_host_dies_and_nobody_notices(instance: Instance, two: Instance, lost: Instance, figure: Figure) -> None:
    """Of three managers the one that the others follow: with two the platform can still be changed."""
    led = leader(instance)
    assert led == (LOST if role(LOST) == "manager" else DATA)
    with predictions(two) as traffic:
        docker("kill", lost.name)
        seconds = wait_until(
            lambda: (counts := replicas(instance)).total() == 3 and not counts[LOST], 60, "replicas are missing"
        )
        assert leader(instance) in {DATA, EDGE}
        without = ("--limit", f"!{LOST}")
        assert changes("serve.yml", *without, served_models=[{"name": "factor", "replicas": 4, "memory": "512m"}]) > 0
        assert replicas(instance) == {EDGE: 2, DATA: 2}
        docker("start", lost.name)
        back = wait_until(lambda: states(instance)[LOST][0] == "ready", 90, "the host is not back in the Swarm")
        assert changes("serve.yml") > 0
    failed, who = sum(traffic.failed.values()), "the leading manager" if led == LOST else "a worker"
    figure(
        f"host killed, {who}: {failed} of {traffic.sent} failed, {seconds:.1f} s until 3 replicas, back in {back:.1f} s"
    )
    assert traffic.failed == {}
    assert seconds <= 30 * slowness()
    assert replicas(instance) == SPREAD


def test_a_host_is_cut_off_and_comes_back(instance: Instance, two: Instance, lost: Instance, figure: Figure) -> None:
    with predictions(two) as traffic:
        lost.sh("iptables -I INPUT -i eth0 -j DROP; iptables -I OUTPUT -o eth0 -j DROP")
        began = time.monotonic()
        seconds = wait_until(
            lambda: (counts := replicas(instance)).total() == 3 and not counts[LOST], 60, "replicas are missing"
        )
        time.sleep(max(0.0, began + 30 - time.monotonic()))
        lost.sh("iptables -D INPUT -i eth0 -j DROP; iptables -D OUTPUT -o eth0 -j DROP")
        healed = wait_until(
            lambda: states(instance)[LOST][0] == "ready" and not lost.sh("docker ps -q --filter name=model-factor"),
            120, "the host is not back in the Swarm",
        )  # fmt: skip
    failed = sum(traffic.failed.values())
    figure(
        f"host cut off for 30 s, a {role(LOST)}: {failed} of {traffic.sent} failed, "
        f"{seconds:.1f} s until 3 replicas, healed in {healed:.1f} s"
    )
    assert traffic.failed == {}
    assert seconds <= 30 * slowness()
    # Managers wait 10 to 20 s, fixed in the engine, until they choose a leader, and one that comes back makes them choose anew (docs/fleet.md).
    assert healed <= (10 if role(LOST) == "worker" else 90) * slowness()


def test_a_host_is_drained_and_brought_back_and_nobody_notices(
    instance: Instance, two: Instance, figure: Figure
) -> None:
    assert changes("drain.yml", host=LOST, state="active") > 0, "it had no share after it was cut off"
    assert replicas(instance) == SPREAD
    with predictions(two) as traffic:
        changes("drain.yml", host=LOST)
        assert replicas(instance).total() == 3
        assert replicas(instance)[LOST] == 0
        assert states(instance)[LOST] == ("ready", "drain", role(LOST))
        changes("drain.yml", host=LOST, state="active")
        assert replicas(instance) == SPREAD
    figure(f"drained and brought back: {sum(traffic.failed.values())} of {traffic.sent} failed")
    assert traffic.failed == {}
    assert changes("drain.yml", host=LOST, state="active") == 0


@pytest.mark.campaign
def test_all_hosts_are_updated_one_by_one_and_nobody_notices(instance: Instance, two: Instance, figure: Figure) -> None:
    with predictions(two) as traffic:
        assert changes("update_hosts.yml", node_reboot=False) > 0
    assert replicas(instance) == SPREAD
    figure(f"three hosts updated: {sum(traffic.failed.values())} of {traffic.sent} failed")
    assert traffic.failed == {}


@pytest.mark.campaign
def test_a_host_is_removed_and_taken_in_again_and_nobody_notices(
    instance: Instance, two: Instance, figure: Figure
) -> None:
    with predictions(two) as traffic:
        assert changes("remove_host.yml", host=LOST) > 0
        assert set(states(instance)) == {DATA, EDGE}
        assert replicas(instance).total() == 3
        assert hosts()[0].sh("docker ps --quiet") == ""
        changes(CONVERGE)
    assert states(instance)[LOST] == ("ready", "active", role(LOST))
    assert replicas(instance) == SPREAD
    figure(f"a host removed and taken in again: {sum(traffic.failed.values())} of {traffic.sent} failed")
    assert traffic.failed == {}


@pytest.mark.campaign
def test_a_dead_host_is_removed_and_taken_in_again(instance: Instance, lost: Instance) -> None:
    docker("kill", lost.name)
    assert changes("remove_host.yml", host=LOST) > 0
    assert set(states(instance)) == {EDGE, DATA}
    docker("start", lost.name)
    wait_until(lambda: lost.host.run("docker info").rc == 0, 60, "the engine does not answer")
    changes(CONVERGE)
    assert states(instance)[LOST] == ("ready", "active", role(LOST))
    assert replicas(instance) == SPREAD


def test_the_host_of_the_data_cannot_be_removed(instance: Instance) -> None:
    ran = play("remove_host.yml", host=instance.name)
    assert ran.returncode != 0
    assert f"host is {DATA}, which holds the database" in " ".join(ran.stdout.split())


def test_the_data_is_not_moved_by_a_changed_inventory(instance: Instance, tmp_path: Path) -> None:
    assert instance.name == DATA
    source = Path(os.environ["MOLECULE_INVENTORY_FILE"])
    moved = tmp_path / "inventory"
    shutil.copytree(source.parent, moved, symlinks=False)
    inventory = yaml.safe_load(source.read_text())
    for group in ("managers", "tracking"):
        inventory[group]["hosts"] = {EDGE: inventory["serving"]["hosts"][EDGE]}
    (moved / source.name).write_text(yaml.safe_dump(inventory))
    ran = play("preflight.yml", moved, preflight_roles=["platform", "swarm"])
    output = " ".join(ran.stdout.split())
    assert ran.returncode != 0
    assert f"group tracking of the inventory names {EDGE}, but {DATA} holds the data" in output
    assert ran.stdout.count("changed=0") == 3
