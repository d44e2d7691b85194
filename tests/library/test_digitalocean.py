"""What all modules for DigitalOcean share: tokens, limits, outages, and addresses that a token may travel to."""

import email.utils
import time
from datetime import UTC, datetime, timedelta

import pytest

from module_utils import digitalocean
from tests.cloud.double import Cloud, Fault
from tests.cloud.fixtures import KEY, TAG, Run


def seen(run: Run, **options: str) -> dict[str, object]:
    return run("do_ssh_key", name=TAG, public_key=KEY, **options)


def test_no_token(run: Run) -> None:
    result = seen(run, api_token="")
    assert "DIGITALOCEAN_TOKEN is not set. Make a token that may read and write at https://cloud" in str(result["msg"])


def test_a_wrong_token(run: Run, cloud: Cloud) -> None:
    result = seen(run, api_token="dop_v1_wrong")
    assert "DigitalOcean refuses the token in DIGITALOCEAN_TOKEN (Unable to authenticate you)" in str(result["msg"])
    assert "https://cloud.digitalocean.com/account/api/tokens" in str(result["msg"])
    assert len(cloud.requests) == 1
    assert "dop_v1_wrong" not in str(result)


def test_a_token_that_may_only_read(run: Run, cloud: Cloud) -> None:
    cloud.faults.append(Fault("POST", "/v2/account/keys", status=403))
    assert "may not do ssh_keys.create" in str(seen(run)["msg"])


@pytest.mark.parametrize("url", ["http://api.example.org", "ftp://127.0.0.1", "api.digitalocean.com"])
def test_a_token_does_not_travel_in_the_clear(run: Run, cloud: Cloud, url: str) -> None:
    assert "an address with https:// is allowed" in str(seen(run, api_url=url)["msg"])
    assert cloud.requests == []


def test_the_environment_gives_token_and_address(
    run: Run, cloud: Cloud, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", cloud.token)
    monkeypatch.setenv("DIGITALOCEAN_API_URL", url)
    # An option that is not given does not hide it.
    assert run("do_ssh_key", name=TAG, public_key=KEY, api_token=None, api_url=None)["changed"]


def test_limits_are_waited_for_as_long_as_they_ask(run: Run, cloud: Cloud, naps: list[float]) -> None:
    cloud.faults.append(Fault("POST", "/v2/account/keys", status=429, times=2, headers={"retry-after": "17"}))
    assert seen(run)["changed"]
    assert naps == [17, 17]
    assert len(cloud.keys) == 1


def test_a_limit_that_lasts_too_long_is_an_error(run: Run, cloud: Cloud, naps: list[float]) -> None:
    reset = {"ratelimit-reset": str(int(time.time()) + 3000)}
    cloud.faults.append(Fault("POST", "/v2/account/keys", status=429, headers=reset))
    assert "DigitalOcean's limit of requests is reached" in str(seen(run)["msg"])
    assert naps == []


def test_how_long_a_limit_lasts() -> None:
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=30))
    assert digitalocean.seconds_of({"retry-after": "7", "ratelimit-reset": "1"}, 0.5) == 7
    assert digitalocean.seconds_of({"retry-after": date}, 0.5) == pytest.approx(30, abs=2)
    assert digitalocean.seconds_of({"ratelimit-reset": str(int(time.time()) + 40)}, 0.5) == pytest.approx(40, abs=2)
    assert digitalocean.seconds_of({"ratelimit-reset": "1"}, 0.5) == 0.1
    assert digitalocean.seconds_of({}, 0.5) == 0.5


@pytest.mark.parametrize("status", [500, 502, 503, 504, 0])
def test_outages_are_bridged(run: Run, cloud: Cloud, naps: list[float], status: int) -> None:
    fault = Fault("GET", "/v2/regions", status=status, times=3)
    cloud.faults.append(fault)
    arguments = {"name": "mlflow", "tag": TAG, "size": "s-1vcpu-1gb", "region": "fra1", "image": "debian-13-x64"}
    assert run("do_droplet", check=True, **arguments)["changed"]
    assert naps == [0.5, 1, 2]


def test_a_long_outage_is_an_error_in_the_end(run: Run, cloud: Cloud, naps: list[float]) -> None:
    cloud.faults.append(Fault("POST", "/v2/account/keys", status=503, times=99))
    assert "answers ssh_keys.create with 503" in str(seen(run)["msg"])
    assert "Gave up after 6 attempts" in str(seen(run)["msg"])
    assert sum(naps) < 300


def test_an_answer_that_comes_too_late_is_asked_for_again(cloud: Cloud, url: str, naps: list[float]) -> None:
    cloud.faults.append(Fault("GET", "/v2/account", pause=1))
    api = digitalocean.Api(cloud.token, url, answer_within=0.3)
    assert api.call("account.get")["account"]["status"] == "active"
    # The double answers one after the other.
    assert len(naps) >= 1


def test_a_server_that_is_not_there(run: Run) -> None:
    assert "DigitalOcean's API does not answer (ssh_keys.get)" in str(seen(run, api_url="http://127.0.0.1:9")["msg"])


def test_what_comes_too_early_is_repeated(run: Run, cloud: Cloud, naps: list[float]) -> None:
    body = {"name": "mlflow", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64", "tags": [TAG]}
    number = cloud.create_droplet(body)["droplet"]["id"]
    busy = Fault("POST", "/v2/reserved_ips", status=422, message="Droplet already has a pending event.")
    cloud.faults.append(busy)
    assert run("do_reserved_ip", tag=TAG, droplet_id=number)["changed"]
    assert len(cloud.reserved) == len(naps) == 1
