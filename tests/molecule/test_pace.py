"""Limits of time on a machine that has more to do."""

from __future__ import annotations

import time

import pace
import pytest


def test_the_machine_is_no_faster_than_itself() -> None:
    assert 1 <= pace.slowness() <= 5


@pytest.mark.parametrize(
    ("waited", "slowness", "late"),
    [(9, 1.0, False), (11, 1.0, True), (11, 2.0, False), (21, 2.0, True), (9, 5.0, False)],
)
def test_a_slow_machine_has_longer(waited: float, slowness: float, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "slowness", lambda: slowness)
    assert pace.too_late(time.monotonic() - waited, 10) == late
