"""The rules of the firewall in every shape, read by nftables itself; and the units that load them, read by systemd."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.checkers import accepted, refused
from tests.templates import Render, renderer

MEMBERS4 = ["10.0.0.1", "10.0.0.2"]
MEMBERS6 = ["fd00::1", "2001:db8::2"]
SHAPES: dict[str, dict[str, Any]] = {
    "a single machine": {},
    "members by IPv4": {"firewall_members": MEMBERS4},
    "members by IPv6": {"firewall_members": MEMBERS6},
    "members by both": {"firewall_members": MEMBERS4 + MEMBERS6},
    "one port for members": {
        "firewall_members": MEMBERS4,
        "firewall_member_tcp": [2377],
        "firewall_member_udp": [4789],
    },
    "another port of SSH": {"host_ssh_port": 2222, "firewall_ssh_rate": 1},
    "other ports of the web": {"platform_http_port": 8080, "platform_https_port": 8443},
    "ports twice and as text": {"firewall_open_tcp": [22, "22", 443, "443", "8000-8010"]},
    "SSH alone": {"firewall_open_tcp": [22]},
    "nothing denied to containers": {"firewall_denied_to_containers": []},
    "more denied to containers": {"firewall_denied_to_containers": ["169.254.169.254", "10.0.0.0/8", "10.1.1.1"]},
    "IPv6 denied to containers": {"firewall_denied_to_containers": ["fd00:ec2::254"]},
}
NFT = ("nft", "--check", "--file", "/check/firewall.nft")


@pytest.fixture(scope="module")
def render() -> Render:
    return renderer("firewall")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_packet_filter_accepts_every_shape(render: Render, tmp_path: Path, shape: str) -> None:
    (tmp_path / "firewall.nft").write_text(render("firewall.nft.j2", **SHAPES[shape]))
    assert accepted(*NFT, places={"/check": tmp_path}) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("hook prerouting", "hook prerooting"),
        ("add @ssh4", "add @ssh5"),
        ("10.0.0.1,", "10.0.0.256,"),
        ("{ 22,", "{ ,"),
        ("policy accept;", "policy maybe;"),
    ],
)
def test_the_packet_filter_refuses_a_mistake(render: Render, tmp_path: Path, right: str, wrong: str) -> None:
    """The net holds."""
    rules = render("firewall.nft.j2", **SHAPES["members by both"])
    assert right in rules
    (tmp_path / "firewall.nft").write_text(rules.replace(right, wrong))
    assert "Error" in refused(*NFT, places={"/check": tmp_path})


def test_members_alone_reach_the_ports_of_the_swarm(render: Render) -> None:
    alone = render("firewall.nft.j2")
    assert "tcp dport { 22, 80, 443 } accept" in alone
    assert "2377, 7946, 5443 } accept" not in alone
    rules = render("firewall.nft.j2", **SHAPES["members by both"])
    assert "ip saddr { 10.0.0.1, 10.0.0.2 } tcp dport { 2377, 7946, 5443 } accept" in rules
    assert "ip6 saddr { fd00::1, 2001:db8::2 } udp dport { 7946, 4789 } accept" in rules


def test_containers_reach_neither_metadata_nor_the_private_addresses_of_members(render: Render) -> None:
    leaving = render("firewall.nft.j2", **SHAPES["members by both"]).partition("chain leaving")[2]
    assert [line.strip() for line in leaving.splitlines() if line.endswith("drop")] == [
        "ip daddr 169.254.169.254 counter drop",
        "ip daddr { 10.0.0.1, 10.0.0.2 } ct state new counter drop",
        "ip6 daddr { fd00::1, 2001:db8::2 } ct state new counter drop",
    ]
    both = {"firewall_denied_to_containers": ["169.254.169.254", "fd00:ec2::254"]}
    assert "ip6 daddr fd00:ec2::254 counter drop" in render("firewall.nft.j2", **both)


def test_containers_do_not_reach_the_ports_of_the_swarm_on_their_own_host(render: Render) -> None:
    lines = [line.strip() for line in render("firewall.nft.j2").splitlines()]
    for interface in ("docker*", "br-*", "veth*"):
        denied = [
            f'iifname "{interface}" fib daddr type local tcp dport {{ 2377, 7946, 5443 }} ct state new counter drop',
            f'iifname "{interface}" fib daddr type local udp dport {{ 7946, 4789 }} ct state new counter drop',
        ]
        place = lines.index(denied[0])
        assert lines[place + 1] == denied[1]
        assert place < lines.index('iifname "docker*" accept')
    assert not [line for line in lines if line.startswith('iifname "lo"') and line.endswith("drop")]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="no systemd-analyze on this machine; scenario host starts the units",
)
def test_systemd_accepts_the_units(render: Render, tmp_path: Path) -> None:
    names = ["mlflow-anywhere-firewall.service", "mlflow-anywhere-firewall-watch.service"]
    for name in names:
        # The packet filter need not be installed on the machine that reads the units.
        (tmp_path / name).write_text(render(f"{name}.j2").replace("/usr/sbin/nft", "/bin/true"))
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    (tmp_path / "docker.service.d").mkdir()
    (tmp_path / "docker.service.d/mlflow-anywhere-firewall.conf").write_text(
        render("docker.conf.j2").replace("/usr/sbin/nft", "/bin/true")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in [*names, "docker.service"])],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(tmp_path) not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
