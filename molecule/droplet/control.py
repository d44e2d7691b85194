"""A person at a control machine: a home, a key, a copy of the inventory, a token, and a cloud whose droplets are test hosts."""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.cloud.double import TOKEN, Cloud, served  # noqa: E402 - found in the repository
from tests.cloud.machines import Machines  # noqa: E402

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
            timeout=900,
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


@contextmanager
def at_work(home: Path, scenario: str) -> Iterator[Operator]:
    """The person, with an account that others use too; every machine is gone afterwards."""
    Machines(scenario).clear()
    machines = Machines(scenario)
    cloud = Cloud(machines)
    with served(cloud) as url:
        cloud.create_droplet(THEIRS)
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvuTb/f10T99ecOzF7HsgKJDQ1MUApZzFPiLNlYDsiD"
        cloud.create_key({"name": "laptop", "public_key": key})
        cloud.write_firewall({"name": "shop", "tags": ["web"]})
        cloud.reserved["10.21.9.9"] = next(iter(cloud.droplets))
        yield Operator(home, cloud, machines, url)
    machines.clear()
