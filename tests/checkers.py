"""The programs that read what the roles write, from the Debian release of the platform's images (tools/checkers), asked for their judgement."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREE = ROOT / ".cache/checkers"
# As root of the tree alone, with a network and mounts of its own: no program reaches the machine's, or leaves something in the tree.
APART = """
set -eu
tree=$1
shift
mount --rbind /dev "$tree/dev"
mount -t tmpfs none "$tree/run"
mkdir -m 755 "$tree/run/sshd"
while [ "$1" != -- ]; do
    mount --bind "$2" "$tree$1"
    shift 2
done
shift
exec chroot "$tree" "$@"
"""


def run(*command: str, places: dict[str, Path] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of the tree; `places` are directories of this machine, by the directory of the tree at which the program finds them."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mounts = [str(word) for place in (places or {}).items() for word in place]
    return subprocess.run(
        ["unshare", *user, "--mount", "--net", "sh", "-c", APART, "sh", str(TREE), *mounts, "--", *command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )


@cache
def obstacle(program: str) -> str:
    """What keeps the program from being run here; empty where nothing does."""
    reason = ROOT / ".cache/checkers.missing"
    if reason.exists():
        return reason.read_text().strip()
    if not (TREE / "made").exists():
        return "tools/checkers, which `make unit` runs, was not run"
    # The packet filter asks the kernel, which may be one without it.
    tried = run(*(["nft", "list", "ruleset"] if program == "nft" else ["haproxy", "-v"]))
    return f"it cannot be run apart from the machine: {tried.stderr.strip()}" if tried.returncode else ""


def check(*command: str, places: dict[str, Path] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program as `run` does. Where none can be run the test is skipped, or fails on a machine whose verdict counts (CI)."""
    if reason := obstacle(command[0]):
        told = f"no {command[0]}: {reason}. The role asks it before it uses a file, so `make molecule` shows the same later"
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    return run(*command, places=places)


def accepted(*command: str, places: dict[str, Path] | None = None) -> str:
    """What a program says that finds no fault."""
    done = check(*command, places=places)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def refused(*command: str, places: dict[str, Path] | None = None) -> str:
    """What a program says that finds a fault: the net holds."""
    done = check(*command, places=places)
    assert done.returncode != 0, done.stdout + done.stderr
    return done.stdout + done.stderr
