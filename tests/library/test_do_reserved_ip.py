"""The module do_reserved_ip against the double of the API."""

from typing import Any

import pytest

from tests.cloud.double import Cloud, Fault
from tests.cloud.fixtures import TAG, Run

BODY: dict[str, Any] = {"name": "mlflow", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64"}


def droplet(cloud: Cloud, tag: str = TAG) -> int:
    return int(cloud.create_droplet({**BODY, "tags": [tag]})["droplet"]["id"])


@pytest.fixture
def number(cloud: Cloud) -> int:
    return droplet(cloud)


def test_makes_one_once(cloud: Cloud, run: Run, number: int) -> None:
    first = run("do_reserved_ip", tag=TAG, droplet_id=number)
    assert first["changed"]
    assert cloud.reserved == {first["address"]: number}
    assert first["diff"] == {"before": {}, "after": {"address": first["address"], "droplet": number}}
    second = run("do_reserved_ip", tag=TAG, droplet_id=number)
    assert not second["changed"]
    assert second["address"] == first["address"]
    assert len(cloud.reserved) == 1


def test_check_mode_only_asks(cloud: Cloud, run: Run, number: int) -> None:
    assert run("do_reserved_ip", check=True, tag=TAG)["changed"]
    assert run("do_reserved_ip", check=True, tag=TAG, droplet_id=number)["changed"]
    assert {method for method, _ in cloud.requests} == {"GET"}


def test_the_address_stays_when_the_droplet_is_made_anew(cloud: Cloud, run: Run, number: int) -> None:
    address = run("do_reserved_ip", tag=TAG, droplet_id=number)["address"]
    cloud.progress(number)
    cloud.delete_droplet(str(number))
    fresh = droplet(cloud)
    again = run("do_reserved_ip", tag=TAG, droplet_id=fresh)
    assert again["changed"]
    assert again["address"] == address
    assert cloud.reserved == {address: fresh}


def test_a_given_address_is_used_and_never_released(cloud: Cloud, run: Run, number: int) -> None:
    cloud.reserved["10.21.9.9"] = None
    result = run("do_reserved_ip", tag=TAG, droplet_id=number, address="10.21.9.9")
    assert result["changed"]
    assert cloud.reserved == {"10.21.9.9": number}
    assert not run("do_reserved_ip", tag=TAG, droplet_id=number)["changed"]
    assert not run("do_reserved_ip", tag=TAG, state="absent")["changed"]
    assert cloud.reserved == {"10.21.9.9": number}


def test_an_unknown_address_is_answered_with_those_that_there_are(cloud: Cloud, run: Run, number: int) -> None:
    cloud.reserved["10.21.9.9"] = None
    result = run("do_reserved_ip", tag=TAG, droplet_id=number, address="10.21.9.1")
    assert "is '10.21.9.1'; the account has 10.21.9.9. Empty makes a new one." in result["msg"]


def test_an_address_of_a_droplet_that_is_not_ours_is_never_touched(cloud: Cloud, run: Run, number: int) -> None:
    other = droplet(cloud, "theirs")
    cloud.reserved["10.21.9.9"] = other
    result = run("do_reserved_ip", tag=TAG, droplet_id=number, address="10.21.9.9")
    assert "which is not ours. Nothing was changed." in result["msg"]
    assert cloud.reserved == {"10.21.9.9": other}


def test_releases_what_it_made(cloud: Cloud, run: Run, number: int) -> None:
    run("do_reserved_ip", tag=TAG, droplet_id=number)
    cloud.reserved["10.21.9.9"] = None
    assert run("do_reserved_ip", check=True, tag=TAG, state="absent")["changed"]
    assert len(cloud.reserved) == 2
    assert run("do_reserved_ip", tag=TAG, state="absent")["changed"]
    assert cloud.reserved == {"10.21.9.9": None}
    assert cloud.tags == {TAG}
    assert not run("do_reserved_ip", tag=TAG, state="absent")["changed"]


def test_what_it_made_stays_where_somebody_took_it(cloud: Cloud, run: Run, number: int) -> None:
    address = run("do_reserved_ip", tag=TAG, droplet_id=number)["address"]
    cloud.reserved[address] = droplet(cloud, "theirs")
    result = run("do_reserved_ip", tag=TAG, state="absent")
    assert not result["changed"]
    assert "and stays" in result["warnings"][0]
    assert address in cloud.reserved


@pytest.mark.parametrize("status", [500, 0])
def test_a_creation_without_an_answer_is_not_repeated(cloud: Cloud, run: Run, number: int, status: int) -> None:
    cloud.faults.append(Fault("POST", "/v2/reserved_ips", status=status, after=True))
    result = run("do_reserved_ip", tag=TAG, droplet_id=number)
    assert cloud.reserved == {result["address"]: number}
    assert run("do_reserved_ip", tag=TAG, state="absent")["changed"]
