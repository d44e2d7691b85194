"""The inventory of droplets, as Ansible reads it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cloud.double import TOKEN, Cloud, Fault
from tests.cloud.fixtures import TAG

ROOT = Path(__file__).parents[2]
# Beside this interpreter, wherever the shell looks for programs.
BIN = Path(sys.executable).parent
BODY = {
    "name": "mlflow",
    "region": "fra1",
    "size": "s-1vcpu-1gb",
    "image": "debian-13-x64",
    "tags": [TAG],
    "ipv6": True,
}
List = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def listed(tmp_path: Path, url: str) -> List:
    """List a copy of inventory/droplet, or let its hosts say what an expression means for them."""
    inventory = tmp_path / "droplet"
    shutil.copytree(ROOT / "inventory/droplet", inventory)

    def call(*say: str, token: str = TOKEN, **files: str) -> subprocess.CompletedProcess[str]:
        for name, text in files.items():
            (inventory / f"{name}.yml").write_text(text)
        plain = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "DIGITALOCEAN_"))
        }
        environment = {**plain, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "DIGITALOCEAN_API_URL": url}
        environment |= {"DIGITALOCEAN_TOKEN": token} if token else {}
        debug: list[str | Path] = [BIN / "ansible", "all", "-o", "-m", "ansible.builtin.debug", "-a"]
        return subprocess.run(
            [
                *([*debug, f"msg={{{{ {say[0]} }}}}"] if say else [BIN / "ansible-inventory", "--list"]),
                "-i",
                str(inventory),
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return call


def droplet(cloud: Cloud, **values: Any) -> int:
    number = int(cloud.create_droplet({**BODY, **values})["droplet"]["id"])
    cloud.progress(number)
    return number


def hosts(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Variables of the hosts; what came from the cloud is marked, as no template is made of it."""
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout, object_hook=lambda item: item.get("__ansible_unsafe", item))
    return dict(listed["_meta"]["hostvars"])


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """What the only host says."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.partition("=>")[2])["msg"]


def test_our_droplet_and_nobody_elses(cloud: Cloud, listed: List) -> None:
    number = droplet(cloud)
    droplet(cloud, name="mlflow", tags=["theirs"])
    droplet(cloud, name="second", tags=["mlflow-anywhere:second"])
    found = hosts(listed())
    assert list(found) == ["mlflow"]
    public = found["mlflow"]["ansible_host"]
    assert public.startswith("10.20.")
    assert found["mlflow"]["droplet"] == {
        "name": "mlflow",
        "id": number,
        "status": "active",
        "ipv4": public,
        "ipv6": public.replace("10.20.0.", "fd00::").replace(public[8:], f"{int(public[8:]):x}"),
        "private_ipv4": public.replace("10.20.", "10.19."),
        "reserved_ip": "",
        "region": "fra1",
        "size": "s-1vcpu-1gb",
    }
    names, ssh = said(listed("[platform_public_names, ansible_ssh_common_args]"))
    assert names == [public]
    assert ssh.endswith(f" -o HostKeyAlias=droplet-{number}")


def test_a_reserved_address_is_the_one_to_connect_to(cloud: Cloud, listed: List) -> None:
    cloud.reserved = {"10.21.0.1": None, "10.21.0.2": droplet(cloud)}
    found = hosts(listed())["mlflow"]
    assert found["ansible_host"] == found["droplet"]["reserved_ip"] == "10.21.0.2"


def test_a_domain_comes_first_among_the_names(cloud: Cloud, listed: List) -> None:
    droplet(cloud)
    variables = {"droplet_domain": "ml.example.org"}
    first, second = said(listed("platform_public_names", **{"group_vars/all/zz": yaml.safe_dump(variables)}))
    assert first == "ml.example.org"
    assert second.startswith("10.20.")


def test_without_a_token_an_address_by_hand_is_enough(cloud: Cloud, listed: List) -> None:
    droplet(cloud)
    found = hosts(listed(token="", hosts="all: {hosts: {box: {ansible_host: 10.0.0.10, ansible_user: debian}}}\n"))
    assert list(found) == ["box"]
    assert found["box"]["ansible_user"] == "debian"
    names, ssh = said(listed("[platform_public_names, ansible_ssh_common_args]", token=""))
    assert names == ["10.0.0.10"]
    assert "HostKeyAlias" not in ssh
    assert cloud.requests == []


def test_without_a_token_and_a_host_there_is_nothing(listed: List) -> None:
    assert hosts(listed(token="")) == {}


def test_a_droplet_that_is_being_created_is_left_out(cloud: Cloud, listed: List) -> None:
    cloud.create_droplet(BODY)
    done = listed()
    assert hosts(done) == {}
    assert "The droplet mlflow is 'new' and left out: run playbooks/droplet.yml" in " ".join(done.stderr.split())


def test_a_wrong_token_is_an_error_and_not_an_empty_inventory(listed: List) -> None:
    done = listed(token="dop_v1_wrong")
    assert done.returncode != 0
    message = " ".join(done.stderr.split())
    assert "The droplets cannot be listed. DigitalOcean refuses the token in DIGITALOCEAN_TOKEN" in message
    assert "dop_v1_wrong" not in message


def test_a_limit_is_waited_for(cloud: Cloud, listed: List) -> None:
    droplet(cloud)
    cloud.faults.append(Fault("GET", "/v2/droplets", status=429, headers={"retry-after": "1"}))
    assert list(hosts(listed())) == ["mlflow"]


def test_the_names_are_those_of_the_machine() -> None:
    directory = ROOT / "inventory/droplet"
    declared = yaml.safe_load((directory / "group_vars/all/droplet.yml").read_text())
    assert yaml.safe_load((directory / "droplets.yml").read_text())["names"] == [declared["droplet_name"]]


def test_the_inventory_serves_what_the_local_one_serves() -> None:
    """But for ports of their own, which only the machine itself would reach."""
    local, cloud = (
        yaml.safe_load((ROOT / f"inventory/{name}/group_vars/all/models.yml").read_text())
        for name in ("local", "droplet")
    )
    for model in local["served_models"]:
        model.pop("port", None)
    assert cloud == local
