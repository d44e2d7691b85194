"""Which packages of an image Debian has newer versions of."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

# Lists that could not be fetched are an error here: by default apt goes on with old ones, or with none. The last line says that nothing was cut off.
SCRIPT = """set -e
apt-get -qq -o APT::Update::Error-Mode=any -o Acquire::Languages=none update >&2
[ -n "$(find /var/lib/apt/lists -name '*Packages*' | head -n 1)" ] || { echo 'apt has no list of packages' >&2; exit 1; }
apt-get -qq --simulate dist-upgrade
echo complete"""
# Inst NAME [HAD] (HAS SOURCE:VERSION/SUITE, ... [ARCHITECTURE]); what is new has no HAD.
NEWER = re.compile(r"Inst (\S+) (?:\[(\S+)\] )?\((\S+) (.*?)(?: \[\w+\])?\)", re.ASCII)

Run = Callable[[dict[str, Any]], tuple[int, str, str]]


class LookupFailedError(Exception):
    """It could not be found out; the message says why."""


class Newer(NamedTuple):
    """A package that Debian has a newer version of; `had` is empty for one that others need now."""

    name: str
    had: str
    has: str
    security: bool

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.name} {self.had or 'missing'} -> {self.has}{' (security)' if self.security else ''}"


def parse(output: str) -> list[Newer]:
    """Return what the script found; raise LookupFailedError for an output that is not complete or not understood."""
    lines = output.splitlines()
    if not lines or lines.pop() != "complete":
        raise LookupFailedError(f"apt broke off: {output[-500:]!r}")
    found = []
    for line in lines:
        if not line.startswith("Inst "):
            continue
        parts = NEWER.match(line)
        if parts is None:
            raise LookupFailedError(f"apt says what nobody understands: {line!r}")
        name, had, has, origins = parts.groups()
        found.append(Newer(name, had or "", has, "security" in origins.lower()))
    return found


def newer_packages(run: Run, image: str, environment: dict[str, str], lists: str = "") -> list[Newer]:
    """Return what Debian has newer than the image. `run` runs a container, the volume `lists` keeps apt's lists."""
    code, output, errors = run(
        {
            "Image": image,
            "User": "0",
            "Entrypoint": ["/bin/sh", "-c", SCRIPT],
            "Cmd": [],
            "Env": [f"{name}={value}" for name, value in environment.items()],
            # Not what the image asks of its own server.
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {"NetworkMode": "host", "Binds": [f"{lists}:/var/lib/apt/lists"] if lists else []},
        }
    )
    if code:
        raise LookupFailedError(
            f"it cannot be found out whether Debian has newer packages: apt ended with {code}: {errors.strip()[-1000:]}"
        )
    return parse(output)
