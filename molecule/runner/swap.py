"""Swap on the volume of an instance: it stays in use when the instance is gone, and the next run would find it.

In molecule/:
python -m runner.swap INSTANCE ...     ends it, before the instance is removed
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import docker

# Where scenario host has it: the root of a container cannot hold swap.
FILE = "/var/lib/docker/swapfile"
# All swap of the machine, and of its containers.
SWAPS = Path("/proc/swaps")


def off(container: Any) -> None:
    """Have the instance give back its swap; one that was killed is started for it, since nobody else needs to see its volume."""
    if Path(FILE).name not in SWAPS.read_text():
        return
    with contextlib.suppress(docker.errors.APIError):
        container.start()
        container.exec_run(["swapoff", FILE])


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with contextlib.suppress(docker.errors.NotFound):
            off(docker.from_env().containers.get(name))
