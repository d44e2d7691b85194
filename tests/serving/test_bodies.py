import asyncio
from typing import Any

import pytest

from serving import bodies as bodies_module
from serving.bodies import LEAST_RATE, RATE_SECONDS, Bodies, Reading
from serving.errors import RequestTimeout


def test_the_rate_is_looked_at_again_and_again() -> None:
    least = int(LEAST_RATE * RATE_SECONDS)
    reading = Reading(0.0)
    for step in range(1, 6):
        reading.size = step * least
        assert reading.late(step * (RATE_SECONDS + 0.01), 1000) is None
    # Much at the beginning does not help later.
    assert "bytes a second" in str(reading.late(6 * (RATE_SECONDS + 0.01), 1000))
    assert 2 * RATE_SECONDS <= 10


def test_a_body_has_a_time_as_a_whole() -> None:
    reading = Reading(0.0, size=10**9)
    assert reading.late(29.0, 30) is None
    assert reading.late(31.0, 30) == "The body did not come within 30 s"


def test_a_byte_now_and_then_is_cut_off_and_gives_back_what_it_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "RATE_SECONDS", 0.05)
    bodies = Bodies(1000, 60)
    chunks = 0

    async def drip() -> Any:
        nonlocal chunks
        chunks += 1
        await asyncio.sleep(0.005)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def sweep() -> None:
        while True:
            await asyncio.sleep(0.005)
            bodies.sweep()

    async def main() -> None:
        sweeping = asyncio.ensure_future(sweep())
        with pytest.raises(RequestTimeout, match="less than 1024 bytes a second"):
            await asyncio.wait_for(bodies.read(drip), 10)
        sweeping.cancel()

    asyncio.run(main())
    assert chunks > 1
    assert bodies.held == 0
