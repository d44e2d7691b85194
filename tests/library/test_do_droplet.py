"""The module do_droplet against the double of the API: once, again, cut off, refused, and never what is not ours."""

from typing import Any

import pytest

from tests.cloud.double import Cloud, Fault
from tests.cloud.fixtures import TAG, Run

WANTED: dict[str, Any] = {
    "name": "mlflow",
    "tag": TAG,
    "size": "s-2vcpu-4gb",
    "region": "fra1",
    "image": "debian-13-x64",
    "timeout": 5,
}


def posts(cloud: Cloud) -> int:
    return cloud.requests.count(("POST", "/v2/droplets"))


def test_creates_once_and_finds_again(cloud: Cloud, run: Run) -> None:
    first = run("do_droplet", **WANTED, monitoring=True)
    assert first["changed"]
    assert first["created"]
    assert first["cost"] == "s-2vcpu-4gb in fra1: $24.00 a month ($0.03571 an hour)"
    assert first["droplet"]["status"] == "active"
    assert first["droplet"]["ipv4"].startswith("10.20.")
    assert first["droplet"]["private_ipv4"].startswith("10.19.")
    assert first["droplet"]["ipv6"].startswith("fd00:")
    assert first["droplet"]["features"] == ["ipv6", "monitoring"]
    assert first["diff"]["before"] == {}
    assert first["diff"]["after"]["size"] == "s-2vcpu-4gb"

    second = run("do_droplet", **WANTED)
    assert not second["changed"]
    assert not second["created"]
    assert second["droplet"] == first["droplet"]
    assert second["diff"]["before"] == second["diff"]["after"]
    assert len(cloud.droplets) == posts(cloud) == 1


def test_check_mode_only_asks(cloud: Cloud, run: Run) -> None:
    result = run("do_droplet", check=True, **WANTED)
    assert result["changed"]
    assert "id" not in result["droplet"]
    assert result["cost"].startswith("s-2vcpu-4gb in fra1: $24.00 a month")
    assert {method for method, _ in cloud.requests} == {"GET"}
    run("do_droplet", **WANTED)
    removal = run("do_droplet", check=True, **WANTED, state="absent")
    assert removal["changed"]
    assert removal["removed"]["name"] == "mlflow"
    assert len(cloud.droplets) == 1


def test_waits_for_a_slow_creation(cloud: Cloud, run: Run, naps: list[float]) -> None:
    cloud.polls_until_active = 4
    assert run("do_droplet", **WANTED)["droplet"]["status"] == "active"
    assert naps.count(3) == 5


def test_a_creation_that_takes_too_long_is_taken_up_by_the_next_run(cloud: Cloud, run: Run) -> None:
    cloud.polls_until_active = 10**9
    failed = run("do_droplet", **{**WANTED, "timeout": 0})
    assert "is still 'new' after 0 s. It is not lost" in failed["msg"]
    (number,) = cloud.waiting
    cloud.waiting[number] = (2, *cloud.waiting[number][1:])
    found = run("do_droplet", **WANTED)
    assert not found["created"]
    assert found["droplet"]["id"] == number
    assert found["droplet"]["status"] == "active"
    assert posts(cloud) == 1


@pytest.mark.parametrize("status", [500, 503, 0])
def test_a_creation_without_an_answer_is_not_repeated(cloud: Cloud, run: Run, status: int) -> None:
    cloud.faults.append(Fault("POST", "/v2/droplets", status=status, after=True))
    assert run("do_droplet", **WANTED)["droplet"]["status"] == "active"
    assert len(cloud.droplets) == posts(cloud) == 1


@pytest.mark.parametrize("status", [500, 0])
def test_a_creation_that_did_not_happen_is_repeated(cloud: Cloud, run: Run, status: int) -> None:
    cloud.faults.append(Fault("POST", "/v2/droplets", status=status))
    assert run("do_droplet", **WANTED)["created"]
    assert (len(cloud.droplets), posts(cloud)) == (1, 2)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("region", "fra9", "region (droplet_region) is 'fra9'; allowed: fra1, nyc3."),
        ("region", "nyc2", "allowed: fra1, nyc3."),
        (
            "size",
            "s-9",
            "size (droplet_size) is 's-9'; allowed in fra1: s-1vcpu-1gb ($6.00 a month), s-1vcpu-2gb ($12.00 a month), s-2v",
        ),
        ("size", "c-32", "allowed in fra1: s-1vcpu-1gb ($6.00 a month), s-1vcpu-2gb"),
        ("size", "c-32", "It is offered in nyc3."),
        (
            "image",
            "debian-99",
            "image (droplet_image) is 'debian-99'; allowed: debian-12-x64, debian-13-x64, or the number",
        ),
        ("tag", "mlflow anywhere", "letters, digits, colons, dashes and underscores are allowed"),
    ],
)
def test_what_is_not_offered_is_answered_with_what_is(
    cloud: Cloud, run: Run, option: str, value: str, message: str
) -> None:
    for check in (True, False):
        result = run("do_droplet", check=check, **{**WANTED, option: value})
        assert result["failed"]
        assert message in result["msg"]
    assert posts(cloud) == 0


def test_an_image_may_be_a_number(run: Run) -> None:
    assert run("do_droplet", **{**WANTED, "image": "1"})["droplet"]["image"] == "debian-12-x64"
    assert run("do_droplet", **{**WANTED, "image": "1"})["warnings"] == []


def test_another_size_or_region_is_refused_with_the_command(cloud: Cloud, run: Run) -> None:
    number = run("do_droplet", **WANTED)["droplet"]["id"]
    size = run("do_droplet", **{**WANTED, "size": "s-1vcpu-1gb"})
    assert f"doctl compute droplet-action resize {number} --size s-1vcpu-1gb --wait" in size["msg"]
    region = run("do_droplet", **{**WANTED, "region": "nyc3"})
    assert "is in 'fra1', and droplets do not move" in region["msg"]
    assert [droplet["size_slug"] for droplet in cloud.droplets.values()] == ["s-2vcpu-4gb"]


def test_another_image_and_missing_features_are_reported(run: Run) -> None:
    number = run("do_droplet", **WANTED, ipv6=False)["droplet"]["id"]
    result = run("do_droplet", **{**WANTED, "image": "debian-12-x64", "ipv6": True})
    assert not result["changed"]
    image, ipv6 = result["warnings"]
    assert "was made of 'debian-13-x64' and keeps it" in image
    assert f"doctl compute droplet-action enable-ipv6 {number}" in ipv6


def test_a_droplet_that_is_off_is_switched_on(cloud: Cloud, run: Run) -> None:
    number = run("do_droplet", **WANTED)["droplet"]["id"]
    cloud.droplets[number]["status"] = "off"
    assert run("do_droplet", check=True, **WANTED)["changed"]
    assert cloud.droplets[number]["status"] == "off"
    result = run("do_droplet", **WANTED)
    assert result["changed"]
    assert (result["diff"]["before"]["status"], result["diff"]["after"]["status"]) == ("off", "active")


def test_a_droplet_of_the_same_name_that_is_not_ours_is_never_touched(cloud: Cloud, run: Run) -> None:
    run("do_droplet", **{**WANTED, "tag": "theirs"})
    before = list(cloud.droplets)
    for check in (True, False):
        assert "exists without the tag mlflow-anywhere:mlflow" in run("do_droplet", check=check, **WANTED)["msg"]
    removal = run("do_droplet", **WANTED, state="absent")
    assert not removal["changed"]
    assert "so it is not ours and stays" in removal["warnings"][0]
    assert list(cloud.droplets) == before


def test_two_of_ours_are_named_and_left_alone(cloud: Cloud, run: Run) -> None:
    number = run("do_droplet", **WANTED)["droplet"]["id"]
    cloud.droplets[7] = {**cloud.droplets[number], "id": 7}
    for state in ("present", "absent"):
        assert (
            f"There are 2 droplets called mlflow with the tag {TAG} ({number}, 7)"
            in run("do_droplet", **WANTED, state=state)["msg"]
        )
    assert len(cloud.droplets) == 2


def test_removes_once(cloud: Cloud, run: Run) -> None:
    run("do_droplet", **WANTED)
    run("do_droplet", **{**WANTED, "name": "other", "tag": "mlflow-anywhere:other"})
    assert run("do_droplet", **WANTED, state="absent")["changed"]
    assert [droplet["name"] for droplet in cloud.droplets.values()] == ["other"]
    assert not run("do_droplet", **WANTED, state="absent")["changed"]


def test_removes_a_droplet_that_is_still_being_created(cloud: Cloud, run: Run) -> None:
    cloud.polls_until_active = 2
    run("do_droplet", **{**WANTED, "timeout": -1})
    assert len(cloud.waiting) == 1
    assert run("do_droplet", **WANTED, state="absent")["changed"]
    assert cloud.droplets == {}


def test_many_droplets_are_many_pages(cloud: Cloud, run: Run) -> None:
    first = run("do_droplet", **{**WANTED, "name": "first"})["droplet"]
    for number in range(1, 450):
        cloud.droplets[number] = {**cloud.droplets[first["id"]], "id": number, "name": f"n{number}"}
    cloud.droplets[first["id"]] = cloud.droplets.pop(first["id"])
    assert run("do_droplet", **{**WANTED, "name": "first"})["droplet"]["id"] == first["id"]
    assert any("page=3" in path for _, path in cloud.requests)
