"""The golden platform: what one scenario installed on a bare machine, kept, for other scenarios to start from a copy of it.

In molecule/:
python -m runner.golden make [SCENARIO ...]     installs and keeps it, unless it is there, or close enough for these
python -m runner.golden keep INSTANCE           keeps what an instance holds now
python -m runner.golden place INSTANCE IMAGE    prints what to mount as the data of the instance's engine
python -m runner.golden drop INSTANCE           removes that
"""

# ruff: noqa: T201 (its output is for the terminal and for molecule/shared/create.yml)
from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import docker
import yaml

from runner import CACHE, ROOT, references
from runner.inputs import fingerprint
from runner.inside import sh
from runner.store import Store

# The scenario that installs it, and the first of its steps that come later.
MAKER, KEPT_AFTER = "site", "side_effect"
IMAGE = "ma-instance/platform"
# What makes a machine this one and no other; of a copy nothing may be the same.
IDENTITY = (ROOT / "molecule" / "shared" / "files" / "identity.sh").read_text()
# Images of the product, for machines that scenarios install without a copy: all of them, and those that an edge alone needs. Loading takes as long as
# they are large.
ARCHIVES = {"platform.tar": ("",), "edge.tar": ("debian", "base", "edge")}
_LABEL = "ma-golden"

# What is left of the first machine in its files and would be made anew by a second one: identity, keys, and what it wrote about itself.
_FORGET = """
set -e
systemctl stop docker.socket docker.service
rm -rf /etc/docker/key.json /var/lib/docker/engine-id /etc/ssh/ssh_host_* /var/log/journal/* /root/.ansible /var/lib/systemd/random-seed
: >/etc/machine-id
"""
# Nothing of the platform starts by itself in a copy, before it has secrets of its own. Nor does the watchdog, until a scenario runs its role: others pause
# containers to see what comes of it.
_STILL = """
set -e
systemctl disable --now mlflow-anywhere-watchdog
docker node update --availability drain "$(docker info --format '{{.Swarm.NodeID}}')"
until test -z "$(docker ps --quiet --filter label=com.docker.swarm.service.name)"; do sleep 0.2; done
docker stop $(docker ps --quiet)
"""
_AGAIN = """
set -e
until docker info >/dev/null 2>&1; do sleep 0.2; done
# A drained node attaches no container to the platform's network, and one that was drained a moment ago does not yet.
docker node update --availability active "$(docker info --format '{{.Swarm.NodeID}}')"
for _ in $(seq 60); do
    docker start mlflow-anywhere-postgres mlflow-anywhere-tracking mlflow-anywhere-edge && started=yes && break
    sleep 0.5
done
test "$started" = yes
systemctl enable --now mlflow-anywhere-watchdog
"""


# Files of its scenario that look at the platform, or come after it.
_NOT_IN_IT = re.compile(
    r"molecule/([^/]+\.py|pytest\.ini|runner/.*|shared/(keep|prepare|destroy)\.yml|shared/tasks/(load|renew)\.yml|shared/files/.*\.(py|sh))"
    rf"|molecule/{MAKER}/tests/.*"
)


def content() -> dict[str, str]:
    """Digests of what the platform's content depends on: every file that its installation can read, and the image of a bare machine."""
    files = {path: found for path, found in fingerprint(MAKER).items() if not _NOT_IN_IT.fullmatch(path)}
    return {**files, "bare machine": str(docker.from_env().images.get(f"ma-instance/bare:{release()}").id)}


def digest(parts: dict[str, str]) -> str:
    """All of it as one word."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def release() -> str:
    """The Debian release that it runs on."""
    return os.environ.get("DEBIAN", "12")


def identity() -> Path:
    """Where the identity of the machine is written that was kept."""
    return CACHE / f"{_kept()}.identity"


def _content() -> Path:
    """Where it is written what the platform was made of."""
    return CACHE / f"{_kept()}.json"


def _kept() -> str:
    return f"golden-{release()}"


def kept() -> dict[str, str] | None:
    """What the platform that is kept was made of; None where none is, or a part of it is missing."""
    store, file = Store(), _content()
    store.open()
    if not all(path.exists() for path in (file, *(CACHE / name for name in ARCHIVES))):
        return None
    parts: dict[str, str] = json.loads(file.read_text())
    try:
        image = docker.from_env().images.get(f"{IMAGE}:{release()}")
    except docker.errors.ImageNotFound:
        return None
    word = digest(parts)
    return parts if image.labels.get(_LABEL) == word and (store.path(_kept()) / f".{word}").exists() else None


def ready() -> bool:
    """Whether the platform is there as it would be installed now."""
    return kept() == content()


def close_enough(names: Iterable[str]) -> bool:
    """Whether these scenarios can start from it: all that differs are files of roles that each of them runs itself."""
    then, now = kept(), content()
    if then is None:
        return False
    differing = {path for path in then.keys() | now.keys() if then.get(path) != now.get(path)}
    return all(path.startswith(_applied(name)) for name in names for path in differing)


def _applied(name: str) -> tuple[str, ...]:
    """Directories of the roles that a scenario's converge.yml runs."""
    file = ROOT / "molecule" / name / "converge.yml"
    plays = references.mappings(yaml.safe_load(file.read_text())) if file.exists() else []
    roles = {str(found["role"]) for found in plays if "role" in found}
    return tuple(f"roles/{role}/" for role in sorted(roles)) or ("no role",)


def keep(name: str) -> None:
    """Keep the files of an instance and its engine's data; the instance goes on as after a reboot. What is kept already stays."""
    if ready():
        return
    store, parts = Store(), content()
    word = digest(parts)
    container = docker.from_env().containers.get(name)
    _save(container)
    identity().write_text(sh(container, IDENTITY))
    sh(container, _STILL)
    sh(container, _FORGET)
    container.stop(timeout=60)
    store.copy(name, _kept())
    container.commit(IMAGE, release(), changes=f"LABEL {_LABEL}={word}")
    store.note(_kept(), f".{word}")
    _content().write_text(json.dumps(parts, indent=1))
    container.start()
    sh(container, _AGAIN)


def _save(container: Any) -> None:
    """Save the product's images, those of the models left out."""
    names = sh(
        container, "docker images --format '{{.Repository}}:{{.Tag}}' 'mlflow-anywhere/*' | grep -v /model-"
    ).split()
    for archive, kinds in ARCHIVES.items():
        wanted = [name for name in names if name.partition("/")[2].startswith(kinds)]
        unfinished = (CACHE / archive).with_suffix(".new")
        with unfinished.open("wb") as file:
            subprocess.run(["docker", "exec", container.name, "docker", "save", *wanted], stdout=file, check=True)
        unfinished.rename(CACHE / archive)


def make(names: list[str]) -> int:
    """Install it in an instance of its scenario, keep it, and remove the instance; unless it is there, or close enough for these scenarios."""
    if ready():
        return 0
    if names and close_enough(names):
        print(f"the golden platform is an earlier one; what has changed since, {', '.join(names)} do themselves")
        return 0
    print(f"the golden platform is not there as it would be installed now: scenario {MAKER} installs it", flush=True)
    steps = ["reset", "create", "prepare", "converge", "side-effect", "destroy"]
    for step in steps:
        done = subprocess.run(["molecule", step, "--scenario-name", MAKER], cwd=ROOT, check=False)
        if done.returncode:
            return done.returncode
    return 0


def main() -> int:
    """Do what the command line says."""
    action, *names = sys.argv[1:]
    store = Store()
    if action == "make":
        return make(names)
    if action == "keep":
        keep(names[0])
        return 0
    store.open()
    if action == "place":
        name, image = names
        if image.startswith(f"{IMAGE}:"):
            print(store.copy(_kept(), name))
        else:
            print(store.make(name))
    else:
        store.remove(names[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
