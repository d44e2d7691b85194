"""playbooks/droplet.yml where no machine is needed: refusals, everything that can be asked for at once, and its removal."""

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


@pytest.fixture
def play(tmp_path: Path, url: str) -> Play:
    """Run the playbook as somebody with a key; gives its status, what it changed, and its output in one line."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519.pub").write_text(KEY)
    shutil.copytree(ROOT / "inventory/droplet", tmp_path / "droplet")

    def run(*arguments: str) -> tuple[int, int, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "XDG_"))}
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", str(tmp_path / "droplet"), "playbooks/droplet.yml", *arguments],
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


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("droplet_name=ml_flow", 'droplet_name is "ml_flow"; letters, digits, dots and dashes are allowed'),
        ("droplet_domain=ML", 'droplet_domain is "ML"; a full host name in small letters is allowed'),
        ("droplet_user=0ps", 'droplet_user is "0ps"; small letters'),
        (
            "droplet_ssh_public_key_file=~/none.pub",
            "No public key at ~/none.pub. Make a pair with `ssh-keygen -t ed25519`",
        ),
        ("state=gone", "value of droplet_state must be one of: present, absent, got: gone"),
    ],
)
def test_refusals_come_before_anything_is_asked(cloud: Cloud, play: Play, variable: str, message: str) -> None:
    status, _, output = play("-e", variable)
    assert status != 0
    assert message in output
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
