"""The whole way of a droplet, in the order of the tests: from a token to a machine that is used, and back to an empty account."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from tests.cloud.double import TOKEN, Cloud, served  # noqa: E402 - found in the repository
from tests.cloud.machines import Machines  # noqa: E402

Figure = Callable[[str], None]
# What others have in the account, some of it called like ours.
THEIRS = {"name": "shop", "region": "nyc3", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "tags": ["web"]}


@dataclass
class Operator:
    """A person at a control machine: a home, a key, a copy of the inventory, a token."""

    home: Path
    cloud: Cloud
    machines: Machines
    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        key = self.home / ".ssh" / "id_ed25519"
        key.parent.mkdir(mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        shutil.copytree(ROOT / "inventory/droplet", self.inventory)
        # Proxies of the test host have nothing to do with its own networks.
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MOLECULE_"))}
        self.environment = {
            **plain,
            "HOME": str(self.home),
            "NO_PROXY": "127.0.0.1",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "0",
            # SSH itself looks in the home that /etc/passwd names.
            "ANSIBLE_PRIVATE_KEY_FILE": str(key),
            "DIGITALOCEAN_TOKEN": TOKEN,
            "DIGITALOCEAN_API_URL": self.url,
        }

    @property
    def inventory(self) -> Path:
        return self.home / "inventory" / "droplet"

    @property
    def known_hosts(self) -> Path:
        return self.home / ".config/mlflow-anywhere/droplet/known_hosts"

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command[0], "-i", str(self.inventory), *command[1:]],
            timeout=300,
            cwd=ROOT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def droplet(self, *arguments: str, **environment: str) -> tuple[int, int, str]:
        """Run the playbook; gives its status, what it changed, and its output in one line."""
        done = self.run(
            "ansible-playbook", "playbooks/droplet.yml", "-e", "droplet_timeout=60", *arguments, **environment
        )
        output = " ".join((done.stdout + done.stderr).split())
        changed = re.search(r"localhost : .*?changed=(\d+)", output)
        sys.stdout.write(done.stdout + done.stderr)
        return done.returncode, int(changed[1]) if changed else -1, output

    def ping(self) -> str:
        """What Ansible says about signing in."""
        # A connection that is still open would be used again, whatever is recorded meanwhile.
        fresh = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no"}
        done = self.run("ansible", "all", "-m", "ansible.builtin.command", "-a", "sudo id -un", **fresh)
        return done.stdout + done.stderr

    def account(self) -> dict[str, Any]:
        """Everything in the account."""
        kinds = ("droplets", "keys", "firewalls", "reserved", "zones", "tags")
        return {kind: copy.deepcopy(getattr(self.cloud, kind)) for kind in kinds}

    @property
    def ours(self) -> dict[str, Any]:
        """Our only droplet as the API describes it."""
        (found,) = [item for item in self.cloud.droplets.values() if item["name"] == "mlflow"]
        return dict(found)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    machines = Machines()
    machines.clear()
    machines = Machines()
    cloud = Cloud(machines)
    with served(cloud) as url:
        cloud.create_droplet(THEIRS)
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvuTb/f10T99ecOzF7HsgKJDQ1MUApZzFPiLNlYDsiD"
        cloud.create_key({"name": "laptop", "public_key": key})
        cloud.write_firewall({"name": "shop", "tags": ["web"]})
        cloud.reserved["10.21.9.9"] = next(iter(cloud.droplets))
        yield Operator(tmp_path_factory.mktemp("operator"), cloud, machines, url)
    machines.clear()


@pytest.fixture(scope="module")
def before(operator: Operator) -> dict[str, Any]:
    """The account before us."""
    return operator.account()


def test_a_wrong_token_changes_nothing(operator: Operator, before: dict[str, Any]) -> None:
    status, _, output = operator.droplet(DIGITALOCEAN_TOKEN="dop_v1_wrong")
    assert status != 0
    assert "refuses the token in DIGITALOCEAN_TOKEN" in output
    assert "dop_v1_wrong" not in output
    assert operator.account() == before


def test_a_dry_run_on_an_account_without_us_shows_everything(operator: Operator, before: dict[str, Any]) -> None:
    status, changed, output = operator.droplet("--check", "--diff", "-vvv")
    assert (status, changed) == (0, 3)
    assert TOKEN not in output
    assert (
        "mlflow does not exist yet and will be created. s-2vcpu-4gb in fra1: $24.00 a month ($0.03571 an hour)"
        in output
    )
    assert "debian-13-x64" in output
    assert operator.account() == before
    assert operator.machines.running() == []


def test_a_creation_that_was_cut_off_leaves_half_a_machine(operator: Operator) -> None:
    operator.cloud.polls_until_active = 10**6
    status, _, output = operator.droplet("-e", "droplet_timeout=1")
    assert status != 0
    assert "It is not lost: the same command finds it again" in output
    assert operator.ours["status"] == "new"
    # It is no host yet, and no reason to fail.
    listed = operator.run("ansible-inventory", "--list")
    assert "left out: run playbooks/droplet.yml, which awaits it" in listed.stderr
    assert json.loads(listed.stdout)["_meta"]["hostvars"] == {}


def test_the_next_run_takes_it_up(operator: Operator, figure: Figure) -> None:
    number = operator.ours["id"]
    polls, keys, user_data = operator.cloud.waiting[number]
    assert polls > 1000
    operator.cloud.waiting[number] = (1, keys, user_data)
    status, _, output = operator.droplet()
    assert status == 0
    assert operator.ours["id"] == number
    posts = operator.cloud.requests.count(("POST", "/v2/droplets"))
    assert posts == 1
    figure(
        f"creation that was cut off and taken up: {posts} request to create, {len(operator.machines.running())} machine"
    )
    assert operator.machines.running() == [operator.machines.name(operator.ours)]
    public = next(item["ip_address"] for item in operator.ours["networks"]["v4"] if item["type"] == "public")
    assert f"ops@{public}" in output
    assert "Next: ansible-playbook site.yml -i " in output
    assert operator.ours["networks"]["v6"][0]["ip_address"].startswith("fd5a:")


def test_the_inventory_finds_it(operator: Operator) -> None:
    text = operator.run("ansible-inventory", "--list").stdout
    listed = json.loads(text, object_hook=lambda item: item.get("__ansible_unsafe", item))
    assert listed["droplets"]["hosts"] == ["mlflow"]
    variables = listed["_meta"]["hostvars"]["mlflow"]
    addresses = {item["type"]: item["ip_address"] for item in operator.ours["networks"]["v4"]}
    assert variables["ansible_host"] == addresses["public"]
    assert variables["droplet"]["private_ipv4"] == addresses["private"]


def test_one_signs_in_with_the_key_and_becomes_root(operator: Operator) -> None:
    assert re.search(r"^mlflow \| CHANGED \| rc=0 >>\nroot$", operator.ping(), re.MULTILINE)
    assert operator.machines.sh(operator.ours, "sshd -T | grep -i ^passwordauthentication").strip().endswith("no")


def test_a_second_run_changes_nothing_and_another_host_key_is_noticed(operator: Operator, figure: Figure) -> None:
    recorded = operator.known_hosts.read_text()
    assert f"droplet-{operator.ours['id']} ssh-ed25519 " in recorded
    other = (operator.home / ".ssh/id_ed25519.pub").read_text().split()[1]
    swapped = f"droplet-{operator.ours['id']} ssh-ed25519 {other}\n"
    operator.known_hosts.write_text(swapped)
    assert "UNREACHABLE" in operator.ping()
    account = operator.account()
    status, changed, _ = operator.droplet()
    assert (status, changed) == (0, 0)
    assert operator.account() == account
    # Nobody records another key in its place.
    assert operator.known_hosts.read_text() == swapped
    operator.known_hosts.write_text(recorded)
    figure(
        f"second run of playbooks/droplet.yml: changed={changed}; another host key than the recorded one: unreachable"
    )


def test_a_host_that_somebody_has_needs_no_token(operator: Operator) -> None:
    """Nothing but an address by hand, and the host key in a file of known hosts."""
    address = next(item["ip_address"] for item in operator.ours["networks"]["v4"] if item["type"] == "public")
    hosts = operator.inventory / "hosts.yml"
    written = hosts.read_text()
    hosts.write_text(f"all:\n  hosts:\n    box:\n      ansible_host: {address}\n")
    with operator.known_hosts.open("a") as file:
        file.write(operator.known_hosts.read_text().replace(f"droplet-{operator.ours['id']}", address))
    done = operator.run("ansible", "all", "-m", "ansible.builtin.ping", DIGITALOCEAN_TOKEN="")
    assert "box | SUCCESS" in done.stdout, done.stdout + done.stderr
    assert "mlflow" not in done.stdout
    hosts.write_text(written)


def test_removal_removes_what_is_ours_and_nothing_else(
    operator: Operator, before: dict[str, Any], figure: Figure
) -> None:
    status, changed, _ = operator.droplet("-e", "state=absent", "--check")
    assert (status, changed) == (0, 4)
    assert len(operator.machines.running()) == 1
    number = operator.ours["id"]
    status, _, output = operator.droplet("-e", "state=absent")
    assert status == 0
    assert "mlflow is removed, and costs nothing any more" in output
    assert operator.account() == before
    assert operator.machines.running() == []
    figure(f"after removal: {len(operator.machines.running())} machines of ours, everything of others as it was")
    assert f"droplet-{number}" not in operator.known_hosts.read_text()
