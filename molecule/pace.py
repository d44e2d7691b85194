"""How much longer this machine takes just now than an idle good one: limits of time are meant for what is tested, not for what runs beside it."""

from __future__ import annotations

import time

_ADDITIONS = 2_000_000
# An idle good machine takes 0.6 s for 10^7 additions.
_IDLE_SECONDS = 0.6 * _ADDITIONS / 1e7


def slowness() -> float:
    """Seconds that additions take here and now, for each that an idle good machine would take; at least 1, at most 5."""
    began, total = time.monotonic(), 0
    for number in range(_ADDITIONS):
        total += number
    return min(5.0, max(1.0, (time.monotonic() - began) / _IDLE_SECONDS))


def too_late(began: float, seconds: float) -> bool:
    """Whether more time than a machine as slow as this one may take has passed since a moment of the monotonic clock."""
    waited = time.monotonic() - began
    return waited > seconds and waited > seconds * slowness()
