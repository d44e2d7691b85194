"""playbooks/droplet.yml where no machine is needed: refusals, everything that can be asked for at once, and its removal."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cloud.double import TOKEN, Cloud
from tests.cloud.fixtures import KEY, TAG

ROOT = Path(__file__).parents[2]
# Beside this interpreter, wherever the shell looks for programs.
BIN = Path(sys.executable).parent
BODY = {"name": "mlflow", "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-13-x64", "tags": [TAG]}
Play = Callable[..., tuple[int, int, str]]


# A wrong value each, and what is said of it.
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "name": ({"droplet_name": "ml_flow"}, 'droplet_name is "ml_flow"; letters, digits, dots and dashes are allowed'),
    "domain": ({"droplet_domain": "ML"}, 'droplet_domain is "ML"; a full host name in small letters is allowed'),
    "user": ({"droplet_user": "0ps"}, 'droplet_user is "0ps"; small letters'),
    "key": (
        {"droplet_ssh_public_key_file": "~/none.pub"},
        "No public key at ~/none.pub. Make a pair with `ssh-keygen -t ed25519`",
    ),
    "state": ({"state": "gone"}, "value of droplet_state must be one of: present, absent, got: gone"),
}


@pytest.fixture
def play(tmp_path: Path, url: str) -> Play:
    """Run a playbook as somebody with a key; gives its status, what it changed, and its output in one line."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519.pub").write_text(KEY)
    shutil.copytree(ROOT / "inventory/droplet", tmp_path / "droplet")

    def run(*arguments: str, playbook: str = "playbooks/droplet.yml") -> tuple[int, int, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "XDG_"))}
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", str(tmp_path / "droplet"), playbook, *arguments],
            cwd=ROOT,
            env={
                **plain,
                "HOME": str(tmp_path),
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "DIGITALOCEAN_TOKEN": TOKEN,
                "DIGITALOCEAN_API_URL": url,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        output = " ".join((done.stdout + done.stderr).split())
        changed = re.search(r"localhost : .*?changed=(\d+)", output)
        return done.returncode, int(changed[1]) if changed else -1, output

    return run


def test_refusals_come_before_anything_is_asked(cloud: Cloud, play: Play, tmp_path: Path) -> None:
    """The playbook as it is, for a host for each of them in the place of the control machine."""
    hosts = {name: {**wrong, "ansible_connection": "local"} for name, (wrong, _) in REFUSED.items()}
    (tmp_path / "droplet/cases.yml").write_text(json.dumps({"cases": {"hosts": hosts}}))
    text = (ROOT / "playbooks/droplet.yml").read_text()
    assert text.count("hosts: localhost\n") == 1
    (tmp_path / "cases.yml").write_text(text.replace("hosts: localhost\n", "hosts: cases\n"))
    status, _, output = play(playbook=str(tmp_path / "cases.yml"))
    assert status != 0
    assert {name: message for name, (_, message) in REFUSED.items() if message not in output} == {}, output
    ends = re.findall(r"(\w+) : ok=\d+ +changed=(\d+) +unreachable=0 +failed=(\d+)", output)
    assert set(ends) == {(name, "0", "1") for name in REFUSED}
    # The inventory alone has asked.
    assert {path.partition("?")[0] for _, path in cloud.requests} <= {"/v2/droplets", "/v2/reserved_ips"}


def test_a_dry_run_of_everything(cloud: Cloud, play: Play) -> None:
    cloud.zones = {"example.org": {}}
    wanted = ["droplet_reserved_ip=true", "droplet_domain=ml.example.org", "droplet_backups=true"]
    status, changed, output = play("--check", "--diff", *[word for variable in wanted for word in ("-e", variable)])
    assert (status, changed) == (0, 5), output
    assert "and 20 % more for backups" in output
    assert {method for method, _ in cloud.requests} == {"GET"}


def test_removal_of_everything(cloud: Cloud, play: Play) -> None:
    number = cloud.create_droplet(BODY)["droplet"]["id"]
    cloud.create_droplet({**BODY, "tags": ["theirs"]})
    cloud.create_key({"name": TAG, "public_key": KEY})
    cloud.write_firewall({"name": "mlflow-anywhere-mlflow", "tags": [TAG]})
    cloud.reserved = {"10.21.0.1": number, "10.21.0.2": None}
    cloud.tags.add(f"{TAG}:ip:10-21-0-1")
    cloud.zones = {"example.org": {}}
    cloud.write_record("example.org", {"type": "A", "name": "ml", "data": "10.21.0.1"})
    cloud.write_record("example.org", {"type": "TXT", "name": "_mlflow-anywhere.ml", "data": TAG})
    arguments = ("-e", "state=absent", "-e", "droplet_domain=ml.example.org")
    status, changed, output = play(*arguments)
    assert (status, changed) == (0, 5), output
    assert [droplet["tags"] for droplet in cloud.droplets.values()] == [["theirs"]]
    assert (cloud.keys, cloud.firewalls, cloud.zones, cloud.tags) == ({}, {}, {"example.org": {}}, {"theirs"})
    assert cloud.reserved == {"10.21.0.2": None}
    status, changed, output = play(*arguments)
    assert (status, changed) == (0, 0)
    assert "There is no machine mlflow of ours" in output
