"""What tests of the edge and of the models behind it send: many requests at once, odd ones, and a load that goes on meanwhile."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instance import Instance

CLIENT = Path(__file__).with_name("client.py")
STOP = "/run/traffic.stop"


def put(instance: Instance, source: Path, target: str) -> None:
    """Copy a file into the instance."""
    text = base64.b64encode(source.read_bytes()).decode()
    instance.sh(f"mkdir -p $(dirname {target}) && echo {text} | base64 -d >{target}")


def packed(asked: Any) -> str:
    """What the client is asked to do, as one argument of a command."""
    return base64.b64encode(zlib.compress(json.dumps(asked).encode())).decode()


@dataclass
class Reply:
    """One answer; status 0 means that there was none, and body says why. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: str
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def request(path: str = "/", method: str = "GET", *, port: int = 8000, headers: dict[str, str] | None = None,
            body: str | None = None, size: int = 0, chunked: bool = False, raw: Iterable[tuple[str, float]] = (),
            timeout: float = 20) -> dict[str, Any]:  # fmt: skip
    """One request: a body, or `size` bytes; or with `raw` pieces of text and the pauses after them."""
    return {
        "path": path,
        "method": method,
        "port": port,
        "headers": headers or {},
        "body": body,
        "size": size,
        "chunked": chunked,
        "raw": list(raw),
        "timeout": timeout,
    }


def ask(instance: Instance, *requests: dict[str, Any]) -> list[Reply]:
    """Send all requests at the same time from inside the instance."""
    put(instance, CLIENT, "/run/client.py")
    argument = packed(requests)
    answers = json.loads(instance.sh(f"python3 /run/client.py {argument}"))
    return [
        Reply(status, {key.lower(): value for key, value in headers.items()}, body, seconds)
        for status, headers, body, seconds in answers
    ]


@dataclass
class Kind:
    """Answers that were alike: who answered, the digest of what it said, how often, and when."""

    name: str | None
    version: str | None
    body: str
    count: int
    first: float
    last: float


@dataclass
class Load:
    """What came back from a load, once it has ended."""

    sent: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    slowest: float = 0

    def count(self, version: str) -> int:
        """How many answers came from a version."""
        return sum(kind.count for kind in self.kinds if kind.version == version)

    def first(self, version: str) -> float:
        """When the first answer of a version was asked for."""
        return min(kind.first for kind in self.kinds if kind.version == version)

    def last(self, version: str) -> float:
        """When the last answer of a version was asked for."""
        return max(kind.last for kind in self.kinds if kind.version == version)


@contextmanager
def load(instance: Instance, path: str, body: Any, *, port: int = 8000, clients: int = 4, pause: float = 0.02,
         sizes: list[int] | None = None) -> Iterator[Load]:  # fmt: skip
    """Send POSTs to a path from some clients, half of them over one connection each, as long as the block lasts."""
    put(instance, CLIENT, "/run/client.py")
    name = f"{port}-{time.monotonic_ns()}"
    asked = {
        "path": path,
        "body": body,
        "port": port,
        "clients": clients,
        "pause": pause,
        "sizes": sizes or [],
        "stop": f"{STOP}.{name}",
    }
    argument = packed(asked)
    result = f"/run/traffic.{name}.json"
    instance.sh(f"setsid python3 /run/client.py load {argument} >{result} 2>&1 </dev/null &")
    found = Load()
    try:
        time.sleep(1)
        yield found
    finally:
        text = instance.sh(
            f"sleep 1; touch {STOP}.{name}; for i in $(seq 400); do [ -s {result} ] && break; sleep 0.1; done; cat {result}"
        )
    answers = json.loads(text)
    found.sent, found.failed, found.slowest = answers["sent"], answers["failed"], answers["slowest"]
    found.kinds = [Kind(*kind) for kind in answers["kinds"]]
