"""The whole way of a droplet, in the order of the tests: from a token to a machine that is used, and back to an empty account."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from droplet.control import Operator, at_work

from tests.cloud.double import TOKEN

Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with at_work(tmp_path_factory.mktemp("operator"), "droplet") as person:
        yield person


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


def test_a_host_that_lets_in_root_is_handed_over(operator: Operator, figure: Figure) -> None:
    """The other half of the key must be here, else root keeps its way in."""
    address = next(item["ip_address"] for item in operator.ours["networks"]["v4"] if item["type"] == "public")
    operator.machines.sh(
        operator.ours,
        "install -m 700 -d /root/.ssh && cp /home/ops/.ssh/authorized_keys /root/.ssh/ && rm -f /etc/ssh/sshd_config.d/*"
        " && echo 'PermitRootLogin prohibit-password' >/etc/ssh/sshd_config.d/provider.conf && systemctl restart ssh",
    )
    hosts = operator.inventory / "hosts.yml"
    written = hosts.read_text()
    hosts.write_text(f"all:\n  hosts:\n    box:\n      ansible_host: {address}\n      ansible_user: root\n")
    with operator.known_hosts.open("a") as file:
        file.write(operator.known_hosts.read_text().replace(f"droplet-{operator.ours['id']}", address))

    def host(user: str, key: str) -> subprocess.CompletedProcess[str]:
        wanted = {
            "host_admin_user": "owner",
            "host_admin_keys": [key],
            "host_swap": 0,
            # The other settings are the test host's, which stays as it is.
            "host_kernel_settings": {"net.ipv4.tcp_syncookies": 1},
        }
        hosts.write_text(re.sub("ansible_user: .*", f"ansible_user: {user}", hosts.read_text()))
        fresh = {"DIGITALOCEAN_TOKEN": "", "ANSIBLE_SSH_ARGS": "-o ControlMaster=no"}
        return operator.run("ansible-playbook", "playbooks/host.yml", "-e", json.dumps(wanted), **fresh)

    own = (operator.home / ".ssh/id_ed25519.pub").read_text()
    foreign = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvuTb/f10T99ecOzF7HsgKJDQ1MUApZzFPiLNlYDsiD"
    refused = host("root", foreign)
    assert refused.returncode != 0
    assert "owner (host_admin_user) cannot sign in by SSH" in " ".join(refused.stdout.split()), refused.stdout
    assert (
        operator.machines.sh(operator.ours, "sshd -T | grep -i ^permitrootlogin").strip().endswith("without-password")
    )
    handed = host("root", own)
    assert handed.returncode == 0, handed.stdout + handed.stderr
    # Ansible breaks a long message into quoted lines.
    said = " ".join(re.sub(r"[\"\s]+", " ", handed.stdout).split())
    assert "SSH lets in owner alone from now on, and root no more. Write `ansible_user: owner`" in said, handed.stdout
    again = host("owner", own)
    assert again.returncode == 0, again.stdout + again.stderr
    changed = re.search(r"^box +: .*changed=(\d+)", again.stdout, re.MULTILINE)
    assert changed, again.stdout
    assert changed[1] == "0", again.stdout
    locked = host("root", own)
    assert "UNREACHABLE" in locked.stdout + locked.stderr
    figure(
        f"a machine that let in root: handed over in one run, the next one as owner changed={changed[1]}, root is unreachable"
    )
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
