"""wrk: as many requests as a server manages over a number of connections."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Failure

SCRIPT = Path(__file__).with_name("pool.lua")
INSTALL = "wrk is not installed: apt-get install wrk"
RESULT = re.compile(r"^RESULT (\S+) (\d+) (\d+) (\S+) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Load:
    """What wrk found: requests per second, how many, how many failed, and percentiles in milliseconds."""

    rate: float
    requests: int
    failed: int
    p50: float
    p99: float


def require() -> None:
    """Say how to install wrk if it is missing."""
    if shutil.which("wrk") is None:
        raise Failure(INSTALL)


def run(url: str, bodies: Path, connections: int, seconds: float) -> Load:
    """Ask as fast as answers come."""
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"]
    command += ["--timeout", "30s", "--latency", "--script", str(SCRIPT), url, "--", str(bodies)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    return parse(ran.stdout + ran.stderr)


def parse(text: str) -> Load:
    """The line that pool.lua prints."""
    match = RESULT.search(text)
    if not match:
        raise Failure(f"wrk said:\n{text[-1000:]}")
    return Load(float(match[1]), int(match[2]), int(match[3]), float(match[4]), float(match[5]))
