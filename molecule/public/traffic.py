"""How tests of the scenario ask: by the client inside the instance."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.traffic import put
from instance import Answer, Instance

CLIENT = Path(__file__).with_name("client.py")
STOP = "/run/public.stop"
# What a test runs again: the roles that make the edge, without what they stand on.
EDGE = "edge.yml"


def packed(asked: Any) -> str:
    """One argument of a command."""
    return base64.b64encode(json.dumps(asked).encode()).decode()


def ask(instance: Instance, *requests: dict[str, Any]) -> list[Answer]:
    """Send the requests, one after the other."""
    put(instance, CLIENT, "/run/public.py")
    return [
        Answer(*answer) for answer in json.loads(instance.sh(f"python3 /run/public.py requests {packed(requests)}"))
    ]


def get(path: str, key: str = "", basic: str = "", **more: Any) -> dict[str, Any]:
    """A request, with a key or with a name and password."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if basic:
        headers["Authorization"] = "Basic " + base64.b64encode(basic.encode()).decode()
    return {"path": path, "headers": {**headers, **more.pop("headers", {})}, **more}


@contextmanager
def load(instance: Instance, **asked: Any) -> Iterator[dict[str, Any]]:
    """Requests go on meanwhile; afterwards the mapping has their counts."""
    put(instance, CLIENT, "/run/public.py")
    result: dict[str, Any] = {}
    argument = packed({"stop": STOP, "headers": {}, **asked})
    instance.sh(
        f"rm -f {STOP}; nohup python3 /run/public.py load {argument} >/run/public.out 2>&1 & echo $! >/run/public.pid"
    )
    time.sleep(1)
    try:
        yield result
        time.sleep(1)
    finally:
        instance.sh(f"touch {STOP}; tail --pid=$(cat /run/public.pid) -f /dev/null")
    result |= json.loads(instance.sh("cat /run/public.out"))
