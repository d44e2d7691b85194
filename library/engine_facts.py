#!/usr/bin/python
"""Tell what the container engine is and what room it has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_facts
short_description: Tell what the container engine is and what room it has
description:
  - Asks the engine over its socket with nothing but Python's standard library, so it works on a host that has no library for it yet. An engine that does
    not answer is an answer too.
options:
  socket:
    description: Path of the engine's socket.
    type: path
    required: true
  usage:
    description: Label of the containers whose use of memory is told, C(NAME=VALUE). Left out, none is asked.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Ask the engine what it is
  engine_facts:
    socket: /var/run/docker.sock
  register: engine
"""

RETURN = r"""
engine:
  description: What was found.
  returned: always
  type: dict
  contains:
    answers:
      description: Whether an engine answers this user.
      type: bool
    version:
      description: Its version, empty where none answers.
      type: str
    swarm:
      description: State of the host in a Swarm.
      type: str
    manager:
      description: Whether the host is a manager of it.
      type: bool
    node:
      description: The C(id) and C(address) of the host in its Swarm, the addresses of its C(managers) and the engine's C(error).
      type: dict
    nodes:
      description:
        - What a manager knows of every node, C(id), C(hostname), C(address), C(role), C(labels), C(availability) and C(state).
      type: list
    services:
      description: The labels of each service by its name, as a manager knows them.
      type: dict
    volumes:
      description: Names of the volumes.
      type: list
    root_dir:
      description: Where the engine keeps images and volumes.
      type: str
    images:
      description: Every tag with the C(id) of its image and the time it was C(created), the newest image first.
      type: list
    networks:
      description: The C(driver) and C(scope) of each network by its name, and whether it is C(attachable) and C(internal).
      type: dict
    attached:
      description: The names of the networks that each running container is on, by its name.
      type: dict
    ports:
      description: The TCP ports of the host that each running container publishes, by its name.
      type: dict
    free_mib:
      description: Free disk space for the engine's data in MiB.
      type: int
    memory_mib:
      description: Memory and swap of the host in MiB.
      type: int
    library:
      description: Whether Python's library for the engine is there.
      type: bool
    usage:
      description:
        - What uses how much memory, in MiB, of the C(memory) and the C(swap) of the host, of which C(memory_used) and C(swap_used) are in use.
          C(engine) is the engine itself. C(containers) has each running container with the label O(usage) by its name; what the kernel keeps
          of files and can give back does not count.
      type: dict
"""

import contextlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine, EngineError

ROOT_DIR = "/var/lib/docker"
TIMEOUT = 15.0
PROC = Path("/proc")


def free_mib(path: str) -> int:
    """Return the free space in MiB for what will be written at `path`, which need not exist or be readable."""
    place = Path(path)
    while True:
        try:
            return shutil.disk_usage(place).free // 2**20
        except OSError:
            if place == place.parent:
                raise
            place = place.parent


def memory_mib(meminfo: str) -> int:
    """Return memory and swap in MiB from the text of /proc/meminfo."""
    found = fields(meminfo)
    return sum(found.get(name, 0) for name in ("MemTotal", "SwapTotal")) // 1024


def fields(text: str) -> dict[str, int]:
    """Return the numbers in a file of /proc that has one named number a line, in kB where it names a unit."""
    lines = (line.split() for line in text.splitlines())
    return {parts[0].rstrip(":"): int(parts[1]) for parts in lines if len(parts) > 1 and parts[1].isdigit()}


def container_mib(stats: dict[str, Any]) -> int:
    """Return the memory of a container as `docker stats` counts it: without the files that the kernel can drop."""
    memory = stats.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    # The first name is that of cgroup v1, the second that of v2.
    return int(memory.get("usage", 0) - detail.get("total_inactive_file", detail.get("inactive_file", 0))) // 2**20


def engine_mib(processes: Path) -> int:
    """Return the resident memory of the engine's own processes."""
    total = 0
    for status in processes.glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            text = status.read_text()
            name = text.partition("\n")[0].partition("\t")[2]
            # The kernel keeps 15 characters of a name.
            if name in {"dockerd", "containerd", "containerd-shim", "docker-proxy"}:
                total += fields(text).get("VmRSS", 0)
    return total // 1024


def usage(engine: Engine, label: str, processes: Path) -> dict[str, Any]:
    """Return what uses how much memory."""
    host = fields((processes / "meminfo").read_text())
    used = {}
    query = quote(json.dumps({"label": [label]}))
    for container in engine.get(f"/containers/json?filters={query}") or []:
        stats = engine.get(f"/containers/{container['Id']}/stats?stream=false&one-shot=true") or {}
        used[container["Names"][0].removeprefix("/")] = container_mib(stats)
    return {
        "memory": host["MemTotal"] // 1024,
        "memory_used": (host["MemTotal"] - host["MemAvailable"]) // 1024,
        "swap": host["SwapTotal"] // 1024,
        "swap_used": (host["SwapTotal"] - host["SwapFree"]) // 1024,
        "engine": engine_mib(processes),
        "containers": used,
    }


def images(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one item for each tag, the newest image first."""
    newest = sorted(listed, key=lambda image: image["Created"], reverse=True)
    # Engines tell an image without a tag in one of two ways.
    return [
        {"tag": tag, "id": image["Id"], "created": image["Created"]}
        for image in newest
        for tag in image["RepoTags"] or []
        if tag != "<none>:<none>"
    ]


def nodes(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what matters of the nodes of a Swarm."""
    return [
        {
            "id": node["ID"],
            "hostname": node["Description"].get("Hostname", ""),
            "address": node["Status"].get("Addr", ""),
            "state": node["Status"].get("State", ""),
            "role": node["Spec"].get("Role", ""),
            "availability": node["Spec"].get("Availability", ""),
            "labels": node["Spec"].get("Labels") or {},
        }
        for node in listed
    ]


def facts(path: str, usage_label: str = "") -> dict[str, Any]:
    """Return what the module tells."""
    engine = Engine(path, TIMEOUT)
    info: dict[str, Any] = {}
    listed: dict[str, list[dict[str, Any]]] = {"images": [], "networks": [], "containers": []}
    volumes: list[dict[str, Any]] = []
    members: list[dict[str, Any]] = []
    services: list[dict[str, Any]] = []
    with contextlib.suppress(EngineError):
        info = engine.get("/info") or {}
        listed = {kind: engine.get(f"/{kind}" if kind == "networks" else f"/{kind}/json") or [] for kind in listed}
        volumes = (engine.get("/volumes") or {}).get("Volumes") or []
        if (info.get("Swarm") or {}).get("ControlAvailable"):
            members = engine.get("/nodes") or []
            services = engine.get("/services") or []
    used: dict[str, Any] = {}
    if usage_label and info:
        with contextlib.suppress(EngineError):
            used = usage(engine, usage_label, PROC)
    swarm = info.get("Swarm") or {}
    root_dir = info.get("DockerRootDir") or ROOT_DIR
    return {
        "answers": bool(info),
        "version": info.get("ServerVersion", ""),
        "swarm": swarm.get("LocalNodeState", ""),
        "manager": bool(swarm.get("ControlAvailable")),
        "node": {
            "id": swarm.get("NodeID", ""),
            "address": swarm.get("NodeAddr", ""),
            "managers": [manager["Addr"].rpartition(":")[0] for manager in swarm.get("RemoteManagers") or []],
            "error": swarm.get("Error", ""),
        },
        "nodes": nodes(members),
        "services": {service["Spec"]["Name"]: service["Spec"].get("Labels") or {} for service in services},
        "volumes": sorted(volume["Name"] for volume in volumes),
        "root_dir": root_dir,
        "images": images(listed["images"]),
        "networks": {
            network["Name"]: {key.lower(): network[key] for key in ("Driver", "Scope", "Attachable", "Internal")}
            for network in listed["networks"]
        },
        "attached": {
            container["Names"][0].removeprefix("/"): sorted(
                (container.get("NetworkSettings") or {}).get("Networks") or {}
            )
            for container in listed["containers"]
        },
        "ports": {
            container["Names"][0].removeprefix("/"): sorted(
                {port["PublicPort"] for port in container["Ports"] if port.get("PublicPort") and port["Type"] == "tcp"}
            )
            for container in listed["containers"]
        },
        "free_mib": free_mib(root_dir),
        "memory_mib": memory_mib((PROC / "meminfo").read_text()),
        "usage": used,
        "library": all(importlib.util.find_spec(name) for name in ("docker", "requests")),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"socket": {"type": "path", "required": True}, "usage": {"type": "str", "default": ""}},
        supports_check_mode=True,
    )
    module.exit_json(changed=False, engine=facts(module.params["socket"], module.params["usage"]))


if __name__ == "__main__":
    main()
