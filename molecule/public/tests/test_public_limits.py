"""What one client may take: its rate, its connections, its guesses. The last of these tests locks its address out for a minute."""

from __future__ import annotations

import json
from collections.abc import Callable

from edge.traffic import put
from instance import Instance
from public.traffic import CLIENT, ask, get, packed

Figure = Callable[[str], None]


def test_a_client_has_its_rate(instance: Instance, secrets: dict[str, str]) -> None:
    answers = ask(instance, *(get("/models/iris/ping", secrets["api_key_slow_k1"]) for _ in range(25)))
    # Twenty in ten seconds, and a test before this one may have asked once.
    assert [answer.status for answer in answers[:19]] == [200] * 19
    assert answers[-1].status == 429
    assert answers[-1].headers["retry-after"] == "2"
    assert ask(instance, get("/models/iris/ping", secrets["api_key_web_k1"]))[0].status == 200


def test_one_address_cannot_take_the_connections_of_all(
    instance: Instance, secrets: dict[str, str], figure: Figure
) -> None:
    put(instance, CLIENT, "/run/public.py")
    address, crowd, other = (f"10.213.98.{number}" for number in (1, 2, 3))
    # A machine of its own: the engine hides which address of the machine itself somebody has.
    instance.sh(
        f"ip netns add crowd && ip link add crowd type veth peer name eth0 netns crowd && ip address add {address}/24 dev crowd"
        f" && ip link set crowd up && ip -n crowd address add {crowd}/24 dev eth0 && ip -n crowd address add {other}/24 dev eth0"
        " && ip -n crowd link set eth0 up"
    )
    request = get("/models/iris/ping", secrets["api_key_web_k1"])
    asked = {"connections": 2500, "seconds": 11, "request": request, "address": address, "other": other}
    idle = instance.sh(f"ulimit -n 4096; ip netns exec crowd python3 /run/public.py idle {packed(asked)}")
    instance.sh("ip netns del crowd")
    held, answer, left = json.loads(idle)
    assert (held, answer[0], left) == (500, 200, 0), answer
    figure(f"2,500 silent connections of one address: {held} held, none after 12 s, another address answered meanwhile")


def test_guessing_is_slowed_down_for_the_guesser_alone(
    instance: Instance, secrets: dict[str, str], figure: Figure
) -> None:
    wrong = get("/version", basic="admin:wrong", headers={"X-Do": "tracking:deny"})
    guesses = [answer.status for answer in ask(instance, *([wrong] * 30))]
    assert guesses.count(401) <= 11
    assert guesses[-1] == 429
    blocked, known, local = ask(
        instance,
        get("/version", basic="admin:right"),
        get("/models/iris/ping", secrets["api_key_web_k1"]),
        get("/version", basic="admin:right", port=5000, name="localhost"),
    )
    assert (blocked.status, blocked.headers["retry-after"]) == (429, "60")
    # Who has a key is no guesser, and the host itself never locks itself out.
    assert (known.status, local.status) == (200, 200)
    figure(f"30 wrong passwords: {guesses.count(401)} tried, {guesses.count(429)} refused")
