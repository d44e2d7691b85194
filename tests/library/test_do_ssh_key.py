"""The module do_ssh_key against the double of the API."""

import subprocess
from pathlib import Path

import pytest

from library import do_ssh_key
from tests.cloud.double import Cloud, Fault
from tests.cloud.fixtures import KEY, TAG, Run


def test_registers_once(cloud: Cloud, run: Run) -> None:
    first = run("do_ssh_key", name=TAG, public_key=KEY)
    assert first["changed"]
    assert first["diff"] == {"before": {}, "after": first["ssh_key"]}
    second = run("do_ssh_key", name=TAG, public_key=KEY)
    assert not second["changed"]
    assert second["ssh_key"] == first["ssh_key"]
    assert len(cloud.keys) == 1


def test_check_mode_only_asks(cloud: Cloud, run: Run) -> None:
    would = run("do_ssh_key", check=True, name=TAG, public_key=KEY)
    assert would["changed"]
    assert cloud.keys == {}
    assert run("do_ssh_key", name=TAG, public_key=KEY)["ssh_key"] == would["ssh_key"]
    assert run("do_ssh_key", check=True, name=TAG, state="absent")["changed"]
    assert len(cloud.keys) == 1


def test_the_fingerprint_is_the_one_of_ssh(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True)
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-E", "md5", "-f", tmp_path / "id.pub"], capture_output=True, text=True, check=True
    )
    assert do_ssh_key.fingerprint((tmp_path / "id.pub").read_text()) == shown.stdout.split()[1].removeprefix("MD5:")


def test_a_key_that_is_there_under_another_name_is_used_and_stays(cloud: Cloud, run: Run) -> None:
    run("do_ssh_key", name="laptop", public_key=KEY)
    result = run("do_ssh_key", name=TAG, public_key=KEY)
    assert not result["changed"]
    assert result["ssh_key"]["name"] == "laptop"
    assert not run("do_ssh_key", name=TAG, state="absent")["changed"]
    assert [key["name"] for key in cloud.keys.values()] == ["laptop"]


def test_removes_its_own(cloud: Cloud, run: Run) -> None:
    run("do_ssh_key", name=TAG, public_key=KEY)
    result = run("do_ssh_key", name=TAG, state="absent")
    assert result["changed"]
    assert list(result["diff"]["before"].values()) == [TAG]
    assert cloud.keys == {}
    assert not run("do_ssh_key", name=TAG, state="absent")["changed"]


def test_a_registration_without_an_answer_is_found(cloud: Cloud, run: Run) -> None:
    cloud.faults.append(Fault("POST", "/v2/account/keys", status=0, after=True))
    assert run("do_ssh_key", name=TAG, public_key=KEY)["changed"]
    assert len(cloud.keys) == 1


@pytest.mark.parametrize(
    "text", ["", "ssh-ed25519", "ssh-ed25519 ???", "-----BEGIN OPENSSH PRIVATE KEY-----", "hello AAAA"]
)
def test_what_is_no_public_key_is_refused(cloud: Cloud, run: Run, text: str) -> None:
    result = run("do_ssh_key", name=TAG, public_key=text)
    assert "is no public SSH key" in result["msg"]
    assert "ssh-keygen -t ed25519" in result["msg"]
    assert cloud.requests == []
