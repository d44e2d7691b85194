"""The module do_firewall against the double of the API."""

from typing import Any

import pytest

from tests.cloud.double import Cloud, Fault
from tests.cloud.fixtures import TAG, Run

EVERYWHERE = ["0.0.0.0/0", "::/0"]
NAME = "mlflow-anywhere-mlflow"
RULES: list[dict[str, Any]] = [
    {"protocol": "tcp", "ports": "22", "sources": ["10.1.0.0/16", "fd00::/64"]},
    {"protocol": "tcp", "ports": "80", "sources": EVERYWHERE},
    {"protocol": "tcp", "ports": "443", "sources": EVERYWHERE},
    {"protocol": "icmp", "sources": EVERYWHERE},
]
WANTED: dict[str, Any] = {"name": NAME, "tag": TAG, "inbound": RULES}


def firewall(cloud: Cloud) -> dict[str, Any]:
    (found,) = cloud.firewalls.values()
    return found


def test_creates_once(cloud: Cloud, run: Run) -> None:
    first = run("do_firewall", **WANTED)
    assert first["changed"]
    assert firewall(cloud)["tags"] == [TAG]
    opened = {
        (rule["protocol"], rule["ports"]): rule["sources"]["addresses"] for rule in firewall(cloud)["inbound_rules"]
    }
    assert opened == {
        ("tcp", "22"): ["10.1.0.0/16", "fd00::/64"],
        ("tcp", "80"): EVERYWHERE,
        ("tcp", "443"): EVERYWHERE,
        ("icmp", "0"): EVERYWHERE,
    }
    assert {rule["protocol"] for rule in firewall(cloud)["outbound_rules"]} == {"tcp", "udp", "icmp"}
    assert not run("do_firewall", **WANTED)["changed"]


def test_order_and_spelling_do_not_count(cloud: Cloud, run: Run) -> None:
    run("do_firewall", **WANTED)
    other = [{**rule, "sources": rule["sources"][::-1]} for rule in reversed(RULES)]
    other[-1]["sources"] = ["fd00:0::/64", "10.1.2.3/16"]
    assert not run("do_firewall", **{**WANTED, "inbound": other})["changed"]
    assert ("PUT", f"/v2/firewalls/{firewall(cloud)['id']}") not in cloud.requests


def test_what_differs_is_changed_and_shown(cloud: Cloud, run: Run) -> None:
    run("do_firewall", **WANTED)
    firewall(cloud)["droplet_ids"] = [42]
    narrow = [{**RULES[0], "sources": ["10.9.9.9"]}, *RULES[1:]]
    would = run("do_firewall", check=True, **{**WANTED, "inbound": narrow})
    assert would["changed"]
    assert ("10.9.9.9" in str(firewall(cloud))) is False
    result = run("do_firewall", **{**WANTED, "inbound": narrow})
    assert result["diff"] == would["diff"]
    assert "10.1.0.0/16" in str(result["diff"]["before"])
    assert "10.9.9.9" in str(result["diff"]["after"])
    assert firewall(cloud)["droplet_ids"] == [42]
    assert not run("do_firewall", **{**WANTED, "inbound": narrow})["changed"]


def test_an_open_port_that_somebody_added_is_closed(cloud: Cloud, run: Run) -> None:
    run("do_firewall", **WANTED)
    everyone = {"addresses": EVERYWHERE}
    firewall(cloud)["inbound_rules"].append({"protocol": "tcp", "ports": "5000", "sources": everyone})
    assert run("do_firewall", **WANTED)["changed"]
    assert "5000" not in str(firewall(cloud))


def test_check_mode_only_asks(cloud: Cloud, run: Run) -> None:
    assert run("do_firewall", check=True, **WANTED)["changed"]
    assert cloud.firewalls == {}
    assert cloud.tags == set()


def test_one_that_is_not_ours_is_never_touched(cloud: Cloud, run: Run) -> None:
    cloud.write_firewall({"name": NAME, "droplet_ids": [1]})
    before = dict(firewall(cloud))
    for check in (True, False):
        assert "does not cover the tag mlflow-anywhere:mlflow" in run("do_firewall", check=check, **WANTED)["msg"]
    assert not run("do_firewall", name=NAME, tag=TAG, state="absent")["changed"]
    assert firewall(cloud) == before


def test_removes_itself_and_the_tag_that_nothing_bears(cloud: Cloud, run: Run) -> None:
    run("do_firewall", **WANTED)
    cloud.write_firewall({"name": "theirs"})
    assert run("do_firewall", check=True, name=NAME, tag=TAG, state="absent")["changed"]
    assert len(cloud.firewalls) == 2
    assert run("do_firewall", name=NAME, tag=TAG, state="absent")["changed"]
    assert [item["name"] for item in cloud.firewalls.values()] == ["theirs"]
    assert cloud.tags == set()
    assert not run("do_firewall", name=NAME, tag=TAG, state="absent")["changed"]


def test_a_tag_that_something_bears_stays(cloud: Cloud, run: Run) -> None:
    body = {"name": "x", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64", "tags": [TAG]}
    cloud.create_droplet(body)
    run("do_firewall", **WANTED)
    run("do_firewall", name=NAME, tag=TAG, state="absent")
    assert cloud.tags == {TAG}


@pytest.mark.parametrize("status", [500, 0])
def test_a_creation_without_an_answer_is_not_repeated(cloud: Cloud, run: Run, status: int) -> None:
    cloud.faults.append(Fault("POST", "/v2/firewalls", status=status, after=True))
    cloud.faults.append(Fault("POST", "/v2/tags", status=status, after=True))
    assert run("do_firewall", **WANTED)["changed"]
    assert [path for method, path in cloud.requests if method == "POST"] == ["/v2/tags", "/v2/firewalls"]


def test_sources_that_are_no_addresses_are_refused(run: Run, cloud: Cloud) -> None:
    result = run("do_firewall", **{**WANTED, "inbound": [{"protocol": "tcp", "ports": "22", "sources": ["home"]}]})
    assert "sources (droplet_ssh_sources) has 'home'" in result["msg"]
    assert cloud.firewalls == {}
