"""Python environments of their own, from locked requirements: for each peer, and for what does not go with the rest of the repository."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.machine import Failure
from bench.serving.peer import uv

MINUTES = 20
TOLD = 400


def stamp(requirements: Path) -> str:
    """What an environment is made of."""
    return hashlib.sha256(requirements.read_bytes() + platform.python_version().encode()).hexdigest()


def install(place: Path, requirements: Path, say: Callable[[str], None]) -> None:
    """Make the environment in ``place`` unless it is there; raise Failure with what uv said if it cannot be made."""
    mark = place / "stamp"
    if mark.exists() and mark.read_text() == stamp(requirements):
        return
    say(f"installing {place.name}")
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    run([uv(), "venv", "--quiet", "--python", sys.executable, str(place)])
    # Copied, not linked: memory that a server shares with another environment's program would not be counted as its own.
    sync = [uv(), "pip", "sync", "--quiet", "--require-hashes", "--link-mode", "copy"]
    run([*sync, "--python", str(place / "bin" / "python"), str(requirements)])
    mark.write_text(stamp(requirements))


def run(command: list[str]) -> None:
    """Run uv."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=MINUTES * 60)
    if ran.returncode:
        raise Failure(f"cannot be installed: {' '.join(ran.stderr.split())[-TOLD:]}")
