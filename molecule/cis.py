"""The items of the CIS Docker Benchmark 1.6 (sections 4 and 5) that can be read off running containers, and what is waived with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from instance import Instance

Container = Mapping[str, Any]

# Directories of the host that no container needs (5.6).
SENSITIVE = {"/", "/boot", "/dev", "/etc", "/lib", "/proc", "/sys", "/usr", "/var/run", "/run", "/var/lib/docker"}

# Item, and why it does not hold here.
WAIVERS = {
    "5.1": "Swarm mode is on: the model services are Swarm services",
    "5.12": "no CPU weight: all containers weigh the same, and what is idle may be used by any of them",
    "5.15": "restart policy unless-stopped and Swarm's own: containers come back after a reboot, however often they failed before",
}


def host_config(container: Container) -> dict[str, Any]:
    """What the container asked of the engine."""
    config: dict[str, Any] = container["HostConfig"]
    return config


def bound(container: Container) -> list[str]:
    """Addresses and ports of the host that lead to the container."""
    ports = (container["NetworkSettings"]["Ports"] or {}).values()
    return [f"{binding['HostIp']}:{binding['HostPort']}" for bindings in ports for binding in bindings or []]


def sources(container: Container) -> set[str]:
    """Paths of the host that the container sees."""
    return {mount["Source"] for mount in container["Mounts"] if mount["Type"] == "bind"}


# What must hold, by item. `process` is what the kernel says of the first process: capabilities, seccomp, no-new-privileges.
ITEMS: dict[str, tuple[str, Callable[[Container, Mapping[str, str]], bool]]] = {
    "4.1": ("a user that is not root", lambda c, _: c["Config"]["User"].partition(":")[0] not in {"", "0", "root"}),
    "4.6": ("a health check", lambda c, _: bool(c["Config"].get("Healthcheck", {}).get("Test"))),
    "5.4": ("no capabilities", lambda _, process: int(process["CapEff"], 16) == int(process["CapBnd"], 16) == 0),
    "5.5": ("not privileged", lambda c, _: not host_config(c)["Privileged"]),
    "5.6": ("no sensitive directory of the host", lambda c, _: not sources(c) & SENSITIVE),
    "5.8": (
        "no privileged port but those of the web",
        lambda c, _: all(int(p.rpartition(":")[2]) >= 1024 or p.rpartition(":")[2] in {"80", "443"} for p in bound(c)),
    ),
    "5.10": ("no network of the host", lambda c, _: host_config(c)["NetworkMode"] != "host"),
    "5.11": ("a limit of memory", lambda c, _: host_config(c)["Memory"] > 0),
    "5.13": ("a read-only root", lambda c, _: host_config(c)["ReadonlyRootfs"]),
    "5.14": (
        "ports on one address, or those of the web on all",
        lambda c, _: all(not p.startswith(("0.0.0.0:", ":::", ":")) or p.endswith((":80", ":443")) for p in bound(c)),
    ),
    "5.16": ("processes of its own", lambda c, _: host_config(c)["PidMode"] != "host"),
    "5.17": ("shared memory of its own", lambda c, _: host_config(c)["IpcMode"] != "host"),
    "5.18": ("no device of the host", lambda c, _: not host_config(c)["Devices"]),
    "5.20": ("mounts not propagated", lambda c, _: all(m.get("Propagation") != "shared" for m in c["Mounts"])),
    "5.21": ("a host name of its own", lambda c, _: host_config(c)["UTSMode"] != "host"),
    "5.22": ("seccomp", lambda _, process: process["Seccomp"] == "2"),
    "5.25": ("the cgroup of the engine", lambda c, _: not host_config(c)["CgroupParent"]),
    "5.26": ("no new privileges", lambda _, process: process["NoNewPrivs"] == "1"),
    "5.27": ("healthy", lambda c, _: c["State"].get("Health", {}).get("Status") in {"healthy", "starting"}),
    "5.28": (
        "a tag or digest that says which",
        lambda c, _: ":" in c["Config"]["Image"] and not c["Config"]["Image"].endswith(":latest"),
    ),
    "5.29": ("a limit of processes", lambda c, _: (host_config(c)["PidsLimit"] or 0) > 0),
    # A task of a service says `default` and is on the service's networks alone.
    "5.30": ("not on the default bridge", lambda c, _: "bridge" not in c["NetworkSettings"]["Networks"]),
    "5.31": ("user names not the host's by request", lambda c, _: host_config(c)["UsernsMode"] != "host"),
    "5.32": ("no socket of the engine", lambda c, _: not any("docker.sock" in source for source in sources(c))),
}


def failures(container: Container, process: Mapping[str, str]) -> list[str]:
    """Items that do not hold for a container."""
    name = container["Name"].removeprefix("/")
    return [f"{name}: {item} wants {what}" for item, (what, holds) in ITEMS.items() if not holds(container, process)]


def audit(instance: Instance) -> tuple[int, list[str]]:
    """How many items were looked at on all containers of an instance, and those that do not hold, setuid files (4.8) among them."""
    containers = json.loads(instance.sh("docker ps --quiet | xargs docker inspect"))
    assert containers, "no container runs"
    found = []
    for container in containers:
        status = instance.sh(f"cat /proc/{container['State']['Pid']}/status")
        process = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        found += failures(container, process)
        # By another user than root, directories that only root reads stay unread, and files in them cannot be run by that user either.
        setuid = f"docker exec {container['Id']} find / -xdev -type f -perm /6000"
        found += [f"{container['Name']}: 4.8 {path} is setuid" for path in instance.host.run(setuid).stdout.split()]
    return len(containers) * (len(ITEMS) + 1), found
