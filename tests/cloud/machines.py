"""Droplets that are real test hosts: containers with systemd, SSH and an engine of their own, on networks of their own."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from secrets import token_hex
from typing import Any
from zlib import crc32

import docker
import yaml
from docker.types import IPAMConfig, IPAMPool, Mount
from runner.inside import sh

from tests.cloud.double import Addresses, Document, address

ROOT = Path(__file__).parents[2]
IMAGE = "ma-instance/droplet:13"


class Machines:
    """Starts and removes containers on the test host's engine; all of them carry the scenario's label."""

    def __init__(self, scenario: str = "droplet") -> None:
        self.engine = docker.from_env()
        self.scenario = scenario
        self.labels = {"ma-scenario": scenario}
        known = yaml.safe_load((ROOT / "molecule/shared/vars/instances.yml").read_text())
        self.capabilities: list[str] = known["molecule_instance_capabilities"]
        self.environment = {name: os.environ[name] for name in known["molecule_forwarded_env"] if os.environ.get(name)}
        self.networks = {kind: self.network(kind) for kind in ("public", "private")}

    def network(self, kind: str) -> Any:
        """A network of the scenario, the public one with IPv6."""
        name = f"ma-{self.scenario}-{kind}"
        for found in self.engine.networks.list(names=[name]):
            if found.name == name:
                return found
        # Not one of those that the engines inside the machines take for their own networks, and another one for each scenario.
        pools = [IPAMPool(subnet=f"10.215.{crc32(name.encode()) % 256}.0/24")]
        if kind == "public":
            # Random, as RFC 4193 wants it.
            pools.append(IPAMPool(subnet=f"fd5a:{token_hex(2)}:{token_hex(2)}::/64"))
        return self.engine.networks.create(
            name, labels=self.labels, enable_ipv6=kind == "public", ipam=IPAMConfig(pool_configs=pools)
        )

    def name(self, droplet: Document) -> str:
        """Name of a droplet's container."""
        return f"ma-{self.scenario}-{droplet['name']}-{droplet['id']}"

    def start(self, droplet: Document, keys: list[str], user_data: str) -> Addresses:
        """Start the container, let it do what cloud-init would, and return its addresses."""
        cache = ROOT / ".cache" / "molecule"
        cache.mkdir(parents=True, exist_ok=True)
        container = self.engine.containers.create(
            IMAGE,
            name=self.name(droplet),
            hostname=droplet["name"],
            cap_add=self.capabilities,
            # A machine has sudo; the engine of the test host denies it where the product installed it.
            security_opt=["seccomp=unconfined", "apparmor=unconfined", "no-new-privileges=false"],
            cgroupns="private",
            tmpfs={"/run": "exec,mode=755", "/run/lock": "", "/tmp": "exec,mode=1777"},
            mounts=[
                Mount("/var/lib/docker", None, type="volume"),
                Mount("/var/cache/images", str(cache), type="bind", read_only=True),
            ],
            environment=self.environment,
            labels=self.labels,
            network=self.networks["public"].name,
        )
        self.networks["private"].connect(container)
        container.start()
        # Degraded is good enough: a container has no hardware for some units.
        self.sh(
            droplet,
            "for _ in $(seq 150); do case $(systemctl is-system-running) in running|degraded) exit 0;; esac; sleep 0.2; done; exit 1",
        )
        self.sh(
            droplet, "; ".join(["set -e", *first_boot(keys, user_data), "ssh-keygen -A", "systemctl enable --now ssh"])
        )
        container.reload()
        found = container.attrs["NetworkSettings"]["Networks"]
        public, private = (found[self.networks[kind].name] for kind in ("public", "private"))
        v6 = {
            "ip_address": public["GlobalIPv6Address"],
            "netmask": 64,
            "gateway": public["IPv6Gateway"],
            "type": "public",
        }
        return {
            "v4": [address(private["IPAddress"], "private"), address(public["IPAddress"], "public")],
            "v6": [v6] if "ipv6" in droplet["features"] else [],
        }

    def sh(self, droplet: Document, command: str) -> str:
        """Output of a command inside the machine, which must succeed."""
        return sh(self.engine.containers.get(self.name(droplet)), command)

    def stop(self, droplet: Document) -> None:
        """Remove the container with its data."""
        self.engine.containers.get(self.name(droplet)).remove(force=True, v=True)

    def running(self) -> list[str]:
        """Names of the scenario's containers."""
        listed = self.engine.containers.list(all=True, filters={"label": f"ma-scenario={self.scenario}"})
        return sorted(str(container.name) for container in listed)

    def clear(self) -> None:
        """Remove everything of the scenario."""
        for name in self.running():
            self.engine.containers.get(name).remove(force=True, v=True)
        for network in self.networks.values():
            network.remove()


def first_boot(keys: list[str], user_data: str) -> list[str]:
    """Return what cloud-init does with the account's keys and the part of its configuration that the product uses."""
    asked = yaml.safe_load(user_data) or {}
    if unknown := set(asked) - {"ssh_pwauth", "users"}:
        raise ValueError(f"the double of cloud-init does not know {sorted(unknown)}")
    commands = authorized("/root", "root", keys)
    for user in asked.get("users") or []:
        name = user["name"]
        commands += [
            f"useradd --create-home --shell {user['shell']} {name}",
            f"echo {shlex.quote(name + ' ' + user['sudo'])} >/etc/sudoers.d/90-{name}",
            *authorized(f"/home/{name}", name, user["ssh_authorized_keys"]),
        ]
    if asked.get("ssh_pwauth") is False:
        commands.append("echo 'PasswordAuthentication no' >/etc/ssh/sshd_config.d/50-cloud-init.conf")
    return commands


def authorized(home: str, user: str, keys: list[str]) -> list[str]:
    """Return the commands that let keys in."""
    return [
        f"install -d -m 0700 -o {user} {home}/.ssh",
        f"printf '%s\\n' {shlex.join(keys)} >{home}/.ssh/authorized_keys",
        f"chown {user} {home}/.ssh/authorized_keys",
    ]
