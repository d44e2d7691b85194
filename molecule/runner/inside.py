"""Commands inside a machine that is a container, as the test host's engine runs them."""

from __future__ import annotations

import time
from typing import Any


def sh(container: Any, command: str) -> str:
    """Output of a shell command, which must succeed."""
    for _ in range(20):  # an engine answers a moment before its container does
        done = container.exec_run(["sh", "-c", command])
        if done.exit_code not in {126, 127, 137}:
            break
        time.sleep(0.2)
    output = str(done.output, errors="replace") if isinstance(done.output, bytes) else ""
    if done.exit_code:
        raise RuntimeError(f"{container.name}: {command.strip()!r} ended with {done.exit_code}: {output}")
    return output
