"""What the module asks of an engine: networks that lead nowhere, of which a container becomes a member while it runs."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.engine import EngineError

from library import internal_networks as module

LABELS = {"platform": "p", "role": "model"}
LATE = (("network a not found", 404), ("attaching to network failed: context deadline exceeded", 500))
PARAMS = {"labels": LABELS, "pool": "10.118.0.0/22", "container": "edge", "prune": False, "timeout": 5}


def network(name: str, subnet: str = "10.118.1.0/24", **more: Any) -> dict[str, Any]:
    return {"Name": name, "Internal": True, "Labels": LABELS, "IPAM": {"Config": [{"Subnet": subnet}]}, **more}


class FakeEngine:
    """Keeps networks and the container's membership; `late` networks are found at the second attempt, `busy` ones go at the third."""

    def __init__(self, *networks: dict[str, Any], member: set[str] | None = None, manager: bool = True) -> None:
        self.networks = {item["Name"]: item for item in networks}
        self.member = member
        self.manager = manager
        self.late: list[str] = []
        self.busy = 0
        self.asked: list[str] = []

    def get(self, path: str) -> Any:
        if path == "/networks":
            return list(self.networks.values())
        if path == "/info":
            return {"Swarm": {"ControlAvailable": self.manager}}
        assert path == "/containers/edge/json"
        return None if self.member is None else {"NetworkSettings": {"Networks": dict.fromkeys(self.member)}}

    def post(self, path: str, document: dict[str, Any]) -> None:
        self.asked.append(path)
        if path == "/networks/create":
            self.networks[document["Name"]] = document
            return
        _, _, name, verb = path.split("/")
        assert self.member is not None
        if verb == "disconnect":
            self.member.remove(name)
            return
        if name in self.late:
            self.late.remove(name)
            raise EngineError(*LATE[len(self.late) % 2])
        self.member.add(name)

    def ask(self, method: str, path: str) -> None:
        name = path.removeprefix("/networks/")
        self.asked.append(f"{method} {name}")
        if self.busy:
            self.busy -= 1
            raise EngineError(f"network {name} is in use by task x", 400)
        del self.networks[name]


def converge(engine: FakeEngine, *networks: str, check_mode: bool = False, **params: Any) -> dict[str, Any]:
    clock = iter(range(100))
    wanted = PARAMS | {"networks": list(networks)} | params
    return module.converge(
        engine, wanted, check_mode=check_mode, clock=lambda: float(next(clock)), sleep=lambda _: None
    )


def test_each_network_is_internal_and_has_addresses_of_its_own() -> None:
    engine = FakeEngine(network("host", "10.118.2.128/25", Internal=False), member=set())
    assert converge(engine, "a", "b")["created"] == ["a", "b"]
    made = [engine.networks[name] for name in ("a", "b")]
    assert [item["IPAM"]["Config"][0]["Subnet"] for item in made] == ["10.118.1.0/24", "10.118.3.0/24"]
    assert all(item["Internal"] and item["Attachable"] and item["Driver"] == "overlay" for item in made)
    assert engine.member == {"a", "b"}


def test_what_is_so_already_is_left_alone() -> None:
    engine = FakeEngine(network("a"), member={"a", "other"})
    assert converge(engine, "a", prune=True) == {"changed": False, "created": [], "joined": [], "removed": []}
    assert engine.asked == []


def test_a_dry_run_tells_and_changes_nothing() -> None:
    engine = FakeEngine(network("old"), member={"old"})
    result = converge(engine, "a", check_mode=True, prune=True)
    assert result == {"changed": True, "created": ["a"], "joined": ["a"], "removed": ["old"]}
    assert engine.asked == []


def test_a_container_that_is_not_there_joins_nothing() -> None:
    engine = FakeEngine()
    assert converge(engine, "a") == {"changed": True, "created": ["a"], "joined": [], "removed": []}


def test_a_network_that_leads_elsewhere_is_refused() -> None:
    with pytest.raises(module.NetworkError, match="there is a network a that leads to others"):
        converge(FakeEngine(network("a", Internal=False), member=set()), "a")


def test_a_full_pool_is_told() -> None:
    with pytest.raises(module.NetworkError, match=r"10.118.0.0/22 \(platform_internal_pool\) has no /24 left for d"):
        converge(FakeEngine(member=set()), "a", "b", "c", "d")


def test_a_worker_creates_nothing_and_waits_for_the_network() -> None:
    engine = FakeEngine(member=set(), manager=False)
    engine.late = ["a", "a"]
    assert converge(engine, "a") == {"changed": True, "created": [], "joined": ["a"], "removed": []}
    assert engine.asked == ["/networks/a/connect"] * 3
    engine.late = ["b"] * 20
    with pytest.raises(EngineError, match=r"network a not found|attaching"):
        converge(engine, "a", "b")


def test_what_nobody_wants_is_left_and_removed_once_it_is_empty() -> None:
    engine = FakeEngine(network("a"), network("old"), network("foreign", Labels={"role": "model"}), member={"a", "old"})
    engine.busy = 2
    assert converge(engine, "a", prune=True)["removed"] == ["old"]
    assert engine.member == {"a"}
    assert sorted(engine.networks) == ["a", "foreign"]


def test_a_network_that_stays_in_use_stays() -> None:
    engine = FakeEngine(network("old"), member={"old"})
    engine.busy = 99
    assert converge(engine, prune=True)["removed"] == ["old"]
    assert "old" in engine.networks


def test_a_worker_leaves_and_removes_nothing() -> None:
    engine = FakeEngine(network("old"), member={"old"}, manager=False)
    converge(engine, prune=True)
    assert engine.asked == ["/networks/old/disconnect"]
