"""The module do_domain_record against the double of the API."""

from typing import Any

import pytest

from tests.cloud.double import Cloud, Fault
from tests.cloud.fixtures import TAG, Run

WANTED: dict[str, Any] = {"name": "ml.example.org", "tag": TAG, "ipv4": "10.20.0.7"}


@pytest.fixture(autouse=True)
def zones(cloud: Cloud) -> None:
    cloud.zones = {"example.org": {}, "other.net": {}}
    cloud.write_record("example.org", {"type": "NS", "name": "@", "data": "ns1.digitalocean.com"})


def records(cloud: Cloud, zone: str = "example.org") -> list[tuple[str, str, str]]:
    return sorted(
        (item["type"], item["name"], item["data"]) for item in cloud.zones[zone].values() if item["type"] != "NS"
    )


OURS = [("A", "ml", "10.20.0.7"), ("TXT", "_mlflow-anywhere.ml", TAG)]


def test_writes_once(cloud: Cloud, run: Run) -> None:
    first = run("do_domain_record", **WANTED)
    assert first["changed"]
    assert first["zone"] == "example.org"
    assert first["diff"] == {"before": {}, "after": {"A": "10.20.0.7"}}
    assert records(cloud) == OURS
    second = run("do_domain_record", **WANTED)
    assert not second["changed"]
    assert records(cloud) == OURS


def test_the_zone_itself_and_both_families(cloud: Cloud, run: Run) -> None:
    run("do_domain_record", **{**WANTED, "name": "Example.org."}, ipv6="fd00::7")
    assert records(cloud) == [("A", "@", "10.20.0.7"), ("AAAA", "@", "fd00::7"), ("TXT", "_mlflow-anywhere", TAG)]


def test_check_mode_only_asks(cloud: Cloud, run: Run) -> None:
    assert run("do_domain_record", check=True, **WANTED)["changed"]
    assert run("do_domain_record", check=True, **{**WANTED, "ipv4": ""})["changed"]
    assert records(cloud) == []
    assert "ipv4 is empty" in run("do_domain_record", **{**WANTED, "ipv4": ""})["msg"]


def test_follows_a_machine_that_was_made_anew(cloud: Cloud, run: Run) -> None:
    run("do_domain_record", **WANTED, ipv6="fd00::7")
    result = run("do_domain_record", **{**WANTED, "ipv4": "10.20.0.8"})
    assert result["diff"] == {"before": {"A": "10.20.0.7", "AAAA": "fd00::7"}, "after": {"A": "10.20.0.8"}}
    assert records(cloud) == [("A", "ml", "10.20.0.8"), OURS[1]]


@pytest.mark.parametrize("kind", ["A", "CNAME"])
def test_records_of_others_are_never_touched(cloud: Cloud, run: Run, kind: str) -> None:
    cloud.write_record("example.org", {"type": kind, "name": "ml", "data": "10.7.7.7"})
    before = records(cloud)
    for check in (True, False):
        assert f"records that are not ours ({kind} 10.7.7.7)" in run("do_domain_record", check=check, **WANTED)["msg"]
    assert not run("do_domain_record", **WANTED, state="absent")["changed"]
    assert records(cloud) == before


def test_records_of_others_that_say_the_same_are_fine_and_stay(cloud: Cloud, run: Run) -> None:
    cloud.write_record("example.org", {"type": "A", "name": "ml", "data": "10.20.0.7"})
    assert not run("do_domain_record", **WANTED)["changed"]
    assert not run("do_domain_record", **WANTED, state="absent")["changed"]
    assert records(cloud) == [OURS[0]]


def test_removes_its_own(cloud: Cloud, run: Run) -> None:
    run("do_domain_record", **WANTED)
    cloud.write_record("example.org", {"type": "A", "name": "www", "data": "10.7.7.7"})
    assert run("do_domain_record", check=True, **WANTED, state="absent")["changed"]
    assert run("do_domain_record", **WANTED, state="absent")["changed"]
    assert records(cloud) == [("A", "www", "10.7.7.7")]
    assert not run("do_domain_record", **WANTED, state="absent")["changed"]


def test_a_run_that_was_cut_off_is_taken_up(cloud: Cloud, run: Run) -> None:
    cloud.write_record("example.org", {"type": "TXT", "name": "_mlflow-anywhere.ml", "data": TAG})
    assert run("do_domain_record", **WANTED)["changed"]
    assert records(cloud) == OURS


def test_a_record_without_an_answer_is_not_written_twice(cloud: Cloud, run: Run) -> None:
    cloud.faults.append(Fault("POST", "/v2/domains/example.org/records", status=0, times=1, after=True))
    run("do_domain_record", **WANTED)
    assert records(cloud) == OURS


def test_a_zone_that_is_not_served_is_answered_with_those_that_are(cloud: Cloud, run: Run) -> None:
    result = run("do_domain_record", **{**WANTED, "name": "ml.example.com"})
    assert "the account serves the zones example.org, other.net" in result["msg"]
    assert "droplet_domain_record to false" in result["msg"]
    assert not run("do_domain_record", **{**WANTED, "name": "ml.example.com"}, state="absent")["changed"]
    assert {method for method, _ in cloud.requests} == {"GET"}


def test_the_nearest_zone_is_taken(cloud: Cloud, run: Run) -> None:
    cloud.zones["eu.example.org"] = {}
    run("do_domain_record", **{**WANTED, "name": "ml.eu.example.org"})
    assert records(cloud, "eu.example.org") == OURS
