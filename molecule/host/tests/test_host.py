"""What another machine on the same network can do to a hardened one, and what the machine itself says. In the order of the tests."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shlex
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from instance import Instance, wait_until

ROOT = Path(__file__).parents[3]
NETWORK = NEIGHBOUR = "ma-host-neighbour"
LABEL = {"ma-scenario": "host"}
# Not one of those that the engine inside the instance takes for its own networks.
SUBNETS = f"10.214.{uuid.uuid4().int % 256}.0/24", f"fd00:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}::/64"
METADATA = "169.254.169.254"
# What the machine has to hide: a published port of each kind, and the Swarm's.
FORBIDDEN = [2377, 7946, 8080, 9000]

SERVE = "python /usr/bin/python3 -m http.server --directory /usr/lib"

ASK = """
import json, socket, sys
took = []
for port in map(int, sys.argv[2:]):
    try:
        socket.create_connection((sys.argv[1], port), timeout=1.5).close()
        took.append(port)
    except OSError:
        pass
print(json.dumps(took))
"""

# All at once: who waits for an answer gives the allowance time to grow.
BURST = """
import select, socket, sys, time
clients = []
for info in socket.getaddrinfo(sys.argv[1], 22, type=socket.SOCK_STREAM) * int(sys.argv[2]):
    client = socket.socket(*info[:3])
    client.setblocking(False)
    client.connect_ex(info[4])
    clients.append(client)
time.sleep(0.8)
poll = select.poll()
for client in clients:
    poll.register(client, select.POLLOUT)
print(sum(event == select.POLLOUT for _, event in poll.poll(0)))
"""


class Neighbour:
    """A second machine, in a network namespace of its own."""

    def __init__(self, instance: Instance) -> None:
        """Put it and the instance on one network."""
        self.engine = docker.from_env()
        self.instance = instance
        self.remove()
        pool = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet) for subnet in SUBNETS])
        network = self.engine.networks.create(NETWORK, enable_ipv6=True, ipam=pool, labels=LABEL)
        network.connect(instance.name)
        self.container = self.engine.containers.run(
            "ma-instance/droplet:13",
            ["infinity"],
            entrypoint="sleep",
            name=NEIGHBOUR,
            network=NETWORK,
            labels=LABEL,
            cap_add=["NET_ADMIN"],
            environment={name: value for name, value in os.environ.items() if name.upper().endswith("_PROXY")},
            detach=True,
        )
        self.sh("mkdir -p /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        self.key = self.sh("cat /root/.ssh/id_ed25519.pub").strip()

    def remove(self) -> None:
        """Remove what an earlier run left."""
        for container in self.engine.containers.list(all=True, filters={"name": f"^/{NEIGHBOUR}$"}):
            container.remove(force=True, v=True)
        for network in self.engine.networks.list(names=[NETWORK]):
            network.reload()
            for container in network.containers:
                network.disconnect(container, force=True)
            network.remove()

    def run(self, command: str) -> tuple[int, str]:
        """Status and both output streams of a shell command."""
        done = self.container.exec_run(["sh", "-c", command])
        output = done.output.decode() if isinstance(done.output, bytes) else ""
        return done.exit_code or 0, output

    def sh(self, command: str) -> str:
        """Output of a shell command that must succeed."""
        status, output = self.run(command)
        assert status == 0, f"{command!r} ended with {status}\n{output}"
        return output

    def address(self, family: str = "v4", of: str = "") -> str:
        """Address of the machine, or of the neighbour itself, on the network."""
        network = self.engine.containers.get(of or self.instance.name).attrs["NetworkSettings"]["Networks"][NETWORK]
        return str(network["IPAddress" if family == "v4" else "GlobalIPv6Address"])

    def took(self, address: str, ports: list[int]) -> list[int]:
        """The ports of these that take a connection."""
        arguments = " ".join([address, *map(str, ports)])
        return list(json.loads(self.sh(f"python3 -c {shlex.quote(ASK)} {arguments}")))

    def reached(self, ports: list[int]) -> dict[str, list[int]]:
        """The ports of the machine that take a connection."""
        return {family: self.took(self.address(family), ports) for family in ("v4", "v6")}

    def ssh(self, user: str, command: str, options: str = "") -> tuple[int, str]:
        """Sign in to the machine by key and run a command."""
        fixed = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=10"
        batch = "" if "Password" in options else "-o BatchMode=yes"
        return self.run(f"ssh {fixed} {batch} {options} {user}@{self.address()} {command}")


@pytest.fixture(scope="module")
def neighbour() -> Iterator[Callable[[Instance], Neighbour]]:
    """The machine that the first test makes."""
    made: list[Neighbour] = []

    def make(instance: Instance) -> Neighbour:
        if not made:
            made.append(Neighbour(instance))
        return made[0]

    yield make
    for machine in made:
        # A file that is in use as swap cannot be removed with its volume.
        machine.instance.host.run("swapoff /var/lib/docker/swapfile")
        machine.remove()


@pytest.fixture
def outside(neighbour: Callable[[Instance], Neighbour], instance: Instance) -> Neighbour:
    return neighbour(instance)


def fresh_ssh_budget(instance: Instance) -> None:
    """Forget how often whom SSH was asked by."""
    instance.sh("nft --file /etc/mlflow-anywhere/firewall.nft")


def test_before_the_first_container_only_ssh_answers(outside: Neighbour, figure: Callable[[str], None]) -> None:
    program = (ROOT / "molecule/shared/files/scan.py").read_text()
    outside.sh(f"printf %s {shlex.quote(program)} >/run/scan.py")
    assert json.loads(outside.sh(f"python3 /run/scan.py {outside.address('v4')} {outside.address('v6')}")) == [[22]] * 2
    figure("65,535 ports of a hardened machine without containers, IPv4 and IPv6: 22 alone")


def test_published_ports_are_not_reached_but_those_of_the_web(instance: Instance, outside: Neighbour) -> None:
    instance.python_image()
    instance.sh(f"docker swarm init --advertise-addr {outside.address()}")
    instance.sh(
        f"docker run --detach --name web --restart always --publish 80:80 --publish 443:80 --publish 8080:80 {SERVE} 80"
    )
    instance.sh(f"docker run --detach --name inner --restart always --publish 127.0.0.1:9000:443 {SERVE} 443")
    wait_until(lambda: outside.took(outside.address(), [80]) == [80], 20, "port 80 does not answer")
    assert outside.reached([22, 80, 443, *FORBIDDEN]) == {"v4": [22, 80, 443], "v6": [22, 80, 443]}
    # The machine itself reaches all of them.
    assert instance.http("http://127.0.0.1:8080/").status == 200


@pytest.mark.parametrize(
    "event",
    [
        "iptables --flush DOCKER-USER && iptables --insert DOCKER-USER --jump ACCEPT",
        "systemctl stop mlflow-anywhere-firewall",
        "systemctl start mlflow-anywhere-firewall",
        "systemctl restart docker && sleep 3",
        # What another tool's firewall does when it starts and stops; the engine's own rules go with it.
        "nft flush ruleset && sleep 4",
        "systemctl start nftables && systemctl stop nftables && sleep 4",
    ],
)
def test_nothing_more_is_reached_after(instance: Instance, outside: Neighbour, event: str) -> None:
    instance.sh(event)
    fresh = outside.reached([22, *FORBIDDEN])
    assert fresh == {"v4": [22], "v6": [22]}


def test_a_neighbour_cannot_route_to_a_container(instance: Instance, outside: Neighbour) -> None:
    instance.sh("systemctl restart docker")
    (inner,) = instance.inspect("inner")
    address = inner["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert ipaddress.ip_address(address)
    outside.sh(f"ip route replace {address} via {outside.address()}")
    assert outside.took(address, [443]) == []
    # Without the rules it can: nothing else stands in the way of the port that the container listens on.
    instance.sh("systemctl stop mlflow-anywhere-firewall-watch && nft delete table inet mlflow_anywhere")
    try:
        assert outside.took(address, [443]) == [443]
        assert outside.reached([8080])["v4"] == [8080]
    finally:
        instance.sh("systemctl restart mlflow-anywhere-firewall mlflow-anywhere-firewall-watch")
    outside.sh(f"ip route del {address}")


def test_containers_do_not_reach_the_clouds_metadata(instance: Instance, outside: Neighbour) -> None:
    """The neighbour plays the cloud."""
    outside.sh(f"ip address replace {METADATA}/32 dev eth0")
    outside.container.exec_run(["python3", "-m", "http.server", "--bind", METADATA, "80"], detach=True)
    instance.sh(f"ip route replace {METADATA} via {outside.address(of=NEIGHBOUR)}")
    wait_until(
        lambda: instance.http(f"http://{METADATA}/").status == 200, 10, "the machine does not reach its metadata"
    )
    ask = "import socket; socket.create_connection(('{}', {}), timeout=3)"
    assert instance.host.run(f'docker exec web /usr/bin/python3 -c "{ask.format(METADATA, 80)}"').rc != 0
    instance.sh(f"ip route del {METADATA}")


def test_members_of_the_fleet_reach_the_ports_of_the_swarm(instance: Instance, outside: Neighbour) -> None:
    members = [outside.address(of=NEIGHBOUR), outside.address("v6", of=NEIGHBOUR)]
    assert instance.converge(firewall_members=members).changed == 2
    assert outside.reached([22, *FORBIDDEN]) == {"v4": [22, 2377, 7946], "v6": [22, 2377, 7946]}
    assert instance.converge().changed == 2
    assert outside.reached([22, *FORBIDDEN]) == {"v4": [22], "v6": [22]}


def test_the_rules_are_there_after_a_reboot_and_before_the_engine(instance: Instance, outside: Neighbour) -> None:
    # A firewall of somebody else's that flushes everything when the machine boots.
    instance.sh("systemctl enable nftables")
    outside.engine.containers.get(instance.name).restart(timeout=30)
    wait_until(lambda: instance.host.run("docker info").rc == 0, 90, "the engine is not back")
    assert outside.reached([22, *FORBIDDEN]) == {"v4": [22], "v6": [22]}
    order = "systemctl show --property ActiveEnterTimestampMonotonic --value mlflow-anywhere-firewall docker"
    firewall, engine = map(int, instance.sh(order).split())
    assert 0 < firewall < engine
    instance.sh("systemctl disable nftables")


def test_rules_that_do_not_load_keep_the_engine_down(instance: Instance) -> None:
    rules = "/etc/mlflow-anywhere/firewall.nft"
    instance.sh(f"systemctl stop docker.socket docker mlflow-anywhere-firewall-watch && mv {rules} {rules}.away")
    try:
        assert instance.host.run("systemctl start docker").rc != 0
    finally:
        instance.sh(
            f"mv {rules}.away {rules} && systemctl reset-failed && systemctl start docker mlflow-anywhere-firewall-watch"
        )


def test_the_operator_signs_in_by_key_and_nobody_else(instance: Instance, outside: Neighbour) -> None:
    fresh_ssh_budget(instance)
    for home in ("/home/ops", "/root"):
        instance.sh(f"mkdir -p {home}/.ssh && echo {shlex.quote(outside.key)} >>{home}/.ssh/authorized_keys")
    instance.sh(
        "chmod 700 /root/.ssh && useradd --create-home other && cp -r /home/ops/.ssh /home/other/ && chown -R other: /home/other/.ssh"
    )
    assert outside.ssh("ops", "sudo --non-interactive id --user") == (0, "0\n")
    for user in ("root", "other"):
        status, output = outside.ssh(user, "true")
        assert (status, "Permission denied (publickey)" in output) == (255, True), output
    status, output = outside.ssh(
        "ops",
        "true",
        "-o PubkeyAuthentication=no -o PreferredAuthentications=password,keyboard-interactive -o PasswordAuthentication=yes",
    )
    assert (status, "Permission denied (publickey)" in output) == (255, True), output


def test_a_tunnel_leads_to_loopback_only(outside: Neighbour) -> None:
    status, output = outside.ssh("ops", "</dev/null", "-W 127.0.0.1:22")
    assert "SSH-2.0" in output, (status, output)
    status, output = outside.ssh("ops", "</dev/null", f"-W {outside.address()}:22")
    assert "SSH-2.0" not in output
    assert "forwarding failed" in output


def test_ssh_has_only_algorithms_that_stand_up_to_an_audit(outside: Neighbour, figure: Callable[[str], None]) -> None:
    outside.sh("apt-get update -qq && apt-get install -y -qq --no-install-recommends ssh-audit >/dev/null 2>&1")
    _, audit = outside.run(f"ssh-audit --json {outside.address()}")
    report = json.loads(audit)
    assert report["kex"]
    said = {
        (item["algorithm"], text)
        for kind in ("kex", "key", "enc", "mac")
        for item in report[kind]
        for level in ("fail", "warn")
        for text in item.get("notes", {}).get(level, [])
    }
    # Clients before OpenSSH 8.5, and Ansible's paramiko, have no exchange that withstands quantum computers.
    allowed = {"curve25519-sha256", "curve25519-sha256@libssh.org"}
    assert [(name, text) for name, text in said if name not in allowed or "quantum" not in text] == []
    figure(f"ssh-audit: no failure, {len(said)} warnings that carry a reason")


def test_ssh_slows_down_who_asks_too_often(
    instance: Instance, outside: Neighbour, figure: Callable[[str], None]
) -> None:
    fresh_ssh_budget(instance)
    counts = {
        family: int(outside.sh(f"python3 -c {shlex.quote(BURST)} {outside.address(family)} 100"))
        for family in ("v4", "v6")
    }
    # The allowance grows by one a second.
    assert all(60 <= count <= 62 for count in counts.values()), counts
    figure(f"of 100 connections to SSH at once {counts['v4']} (IPv4) and {counts['v6']} (IPv6) got through")
    fresh_ssh_budget(instance)


def test_settings_are_in_force(instance: Instance) -> None:
    settings = dict(line.split(" ", 1) for line in instance.sh("sshd -T").splitlines() if " " in line)
    wanted = {
        "permitrootlogin": "no",
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "authenticationmethods": "publickey",
        "allowtcpforwarding": "local",
        "allowagentforwarding": "no",
        "x11forwarding": "no",
        "maxauthtries": "4",
    }
    assert {name: settings[name] for name in wanted} == wanted
    assert instance.sh("sysctl -n net.ipv4.conf.all.accept_redirects net.ipv4.tcp_syncookies").split() == ["0", "1"]
    assert "SystemMaxUse=500M" in instance.sh("systemd-analyze cat-config systemd/journald.conf")
    assert instance.sh("systemctl is-enabled systemd-timesyncd apt-daily-upgrade.timer").split() == ["enabled"] * 2
    assert "ops" not in instance.sh("getent group docker")


def test_security_updates_come_alone_and_leave_the_engine(instance: Instance) -> None:
    # Where Debian has something newer and the network does not answer, it says so at its end, after what counts here.
    said = str(instance.host.run("unattended-upgrade --dry-run --debug 2>&1").stdout)
    (allowed,) = re.findall(r"Allowed origins are: (.*)", said)
    release = instance.sh(". /etc/os-release && echo $VERSION_CODENAME").strip()
    assert allowed.split(", ") == [
        f"origin=Debian,codename={release}-security,label=Debian-Security",
        f"origin=Ubuntu,archive={release}-security",
    ]
    assert re.search(r"blacklist: .*docker\\?\.io", said), said
    chosen = instance.sh("apt-config dump")
    assert 'Unattended-Upgrade::Automatic-Reboot "true";' in chosen
    assert 'APT::Periodic::Unattended-Upgrade "1";' in chosen


def test_swap_is_there_now_and_after_a_boot(instance: Instance) -> None:
    assert "/var/lib/docker/swapfile none swap" in instance.sh("cat /etc/fstab")
    assert instance.sh("stat --format '%a %U' /var/lib/docker/swapfile").strip() == "600 root"
    swaps = instance.sh("cat /proc/swaps").splitlines()
    if len(swaps) == 1:
        # The boot of an instance leaves swap to the machine around it.
        instance.sh("swapon /var/lib/docker/swapfile")
        swaps = instance.sh("cat /proc/swaps").splitlines()
    assert any("65532" in line for line in swaps), swaps


def test_another_run_changes_nothing_and_a_firewall_that_is_not_wanted_goes(instance: Instance) -> None:
    assert instance.converge().changed == 0
    assert instance.converge(firewall_enabled=False).changed > 0
    assert instance.host.run("nft list table inet mlflow_anywhere").rc != 0
