"""Servers behind the edge that do what a test tells them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edge.servers import SERVERS, start, wait_for_all
from edge.traffic import put
from instance import Instance


@pytest.fixture(scope="module")
def servers(host: Any) -> Callable[[str], list[tuple[str, str, str]]]:
    """All servers run and the edge knows them; the function tells which of them saw a request, by its id."""
    instance = Instance(host)
    put(instance, Path(__file__).parents[1] / "files" / "backend.py", "/run/backend.py")
    names = " ".join(SERVERS)
    if set(SERVERS) <= set(instance.containers()):
        instance.sh(f"docker start {names}")
    else:
        instance.sh(f"docker rm --force {names} >/dev/null 2>&1; " + " && ".join(start(name) for name in SERVERS))
    wait_for_all(instance)

    def seen(request_id: str) -> list[tuple[str, str, str]]:
        lines = instance.sh(f'for name in {names}; do docker logs $name 2>&1 | sed "s/^/$name /"; done').splitlines()
        found = []
        for line in lines:
            server, _, text = line.partition(" ")
            if text.startswith("["):
                asked, method, path = json.loads(text)
                if asked == request_id:
                    found.append((server, method, path))
        return found

    return seen
