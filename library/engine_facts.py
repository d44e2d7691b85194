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
  image:
    description: An image whose presence is told.
    type: str
    required: true
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
    image: debian:trixie-slim
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
    root_dir:
      description: Where the engine keeps images and volumes.
      type: str
    image_exists:
      description: Whether it has the image.
      type: bool
    free_mib:
      description: Free disk space for the engine's data in MiB.
      type: int
    memory_mib:
      description: Memory and swap of the host in MiB.
      type: int
    library:
      description: Whether Python's library for the engine is there.
      type: bool
"""

import contextlib
import importlib.util
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine, EngineError

ROOT_DIR = "/var/lib/docker"
TIMEOUT = 15.0


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
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return sum(int(fields[name].split()[0]) for name in ("MemTotal", "SwapTotal") if name in fields) // 1024


def facts(path: str, image: str) -> dict[str, Any]:
    """Return what the module tells."""
    engine = Engine(path, TIMEOUT)
    info: dict[str, Any] = {}
    found: dict[str, Any] = {}
    with contextlib.suppress(EngineError):
        info = engine.get("/info") or {}
        found = engine.image(image)
    swarm = info.get("Swarm") or {}
    root_dir = info.get("DockerRootDir") or ROOT_DIR
    return {
        "answers": bool(info),
        "version": info.get("ServerVersion", ""),
        "swarm": swarm.get("LocalNodeState", ""),
        "manager": bool(swarm.get("ControlAvailable")),
        "root_dir": root_dir,
        "image_exists": bool(found),
        "free_mib": free_mib(root_dir),
        "memory_mib": memory_mib(Path("/proc/meminfo").read_text()),
        "library": all(importlib.util.find_spec(name) for name in ("docker", "requests")),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"socket": {"type": "path", "required": True}, "image": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    module.exit_json(changed=False, engine=facts(module.params["socket"], module.params["image"]))


if __name__ == "__main__":
    main()
