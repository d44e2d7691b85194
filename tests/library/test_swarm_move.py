"""The module swarm_move against a Swarm that places replicas as the engine does."""

from __future__ import annotations

import copy
import itertools
import json
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from library import swarm_move as module

JSON = dict[str, Any]
LABELS = {"role": "model"}


class Swarm:
    """Nodes with tasks; a new one goes to the node with fewest and is healthy three seconds later."""

    def __init__(self, **tasks: list[str]) -> None:
        self.now = 0.0
        self.numbers = itertools.count()
        names = ("a", "b", "c")
        self.nodes = {name: self.node(name) for name in names}
        self.kept = {name: self.service(name, len(nodes)) for name, nodes in tasks.items()}
        self.running = {name: [(next(self.numbers), node, 0.0) for node in nodes] for name, nodes in tasks.items()}
        self.fewest = dict.fromkeys(tasks, 99)
        self.healthy = True

    @staticmethod
    def node(name: str) -> JSON:
        return {
            "ID": name,
            "Version": {"Index": 1},
            "Description": {"Hostname": name},
            "Status": {"State": "ready"},
            "Spec": {"Role": "worker", "Availability": "active", "Labels": {"serving": "true"}},
        }

    @staticmethod
    def service(name: str, replicas: int) -> JSON:
        template: JSON = {"ForceUpdate": 0, "Placement": {"Constraints": ["node.labels.serving==true"]}}
        spec: JSON = {"Name": name, "Labels": LABELS, "Mode": {"Replicated": {"Replicas": replicas}}}
        return {"ID": name, "Version": {"Index": 1}, "Spec": spec | {"TaskTemplate": template}}

    def get(self, path: str) -> Any:
        url = urlsplit(path)
        kind, _, name = url.path.strip("/").partition("/")
        if kind == "tasks":
            [service] = json.loads(parse_qs(url.query)["filters"][0])["service"]
            return [
                {
                    "NodeID": node,
                    "DesiredState": "running",
                    "Status": {"State": "running" if since <= self.now else "starting"},
                }
                for _, node, since in self.running[service]
            ]
        found: dict[str, JSON] = {"services": self.kept, "nodes": self.nodes}[kind]
        return copy.deepcopy(found[name] if name else list(found.values()))

    def post(self, path: str, document: JSON) -> None:
        kind, name, _ = urlsplit(path).path.strip("/").split("/")
        target: JSON = {"services": self.kept, "nodes": self.nodes}[kind][name]
        assert parse_qs(urlsplit(path).query)["version"] == [str(target["Version"]["Index"])]
        before, target["Spec"] = target["Spec"], copy.deepcopy(document)
        target["Version"]["Index"] += 1
        if kind == "nodes":
            return
        wanted = document["Mode"]["Replicated"]["Replicas"]
        tasks = self.running[name]
        if document["TaskTemplate"]["ForceUpdate"] != before["TaskTemplate"]["ForceUpdate"]:
            target["UpdateStatus"] = {"State": "updating"}
        while len(tasks) < wanted:
            tasks.append(self.placed(name))
        while len(tasks) > wanted:
            counts = Counter(node for _, node, _ in tasks)
            tasks.remove(max(tasks, key=lambda task: (counts[task[1]], task[0])))

    def placed(self, name: str) -> tuple[int, str, float]:
        counts = Counter(node for _, node, _ in self.running[name])
        free = [node for node in self.nodes.values() if module.may_run(node, self.kept[name])]
        node = min(free, key=lambda node: counts[node["ID"]])["ID"]
        return (next(self.numbers), node, self.now + 3 if self.healthy else 1e9)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for name, service in self.kept.items():
            tasks = self.running[name]
            if service.get("UpdateStatus", {}).get("State") == "updating":
                # One after the other, the new one first.
                force = service["Spec"]["TaskTemplate"]["ForceUpdate"]
                old = [task for task in tasks if (task[0], force) not in service.setdefault("new", set())]
                if all(task[2] <= self.now for task in tasks):
                    if len(tasks) > service["Spec"]["Mode"]["Replicated"]["Replicas"]:
                        tasks.remove(old[0])
                    elif old:
                        tasks.append(self.placed(name))
                        service["new"].add((tasks[-1][0], force))
                    else:
                        service["UpdateStatus"] = {"State": "completed"}
            self.fewest[name] = min(self.fewest[name], sum(task[2] <= self.now for task in tasks))

    def move(self, state: str, node: str = "", *, check_mode: bool = False, timeout: int = 100) -> JSON:
        asked = {"state": state, "node": node, "labels": LABELS, "timeout": timeout}
        return module.move(self, asked, check_mode=check_mode, clock=lambda: self.now, sleep=self.sleep)

    def where(self, name: str) -> dict[str, int]:
        return dict(Counter(node for _, node, _ in self.running[name]))


def test_a_host_is_vacated_and_no_moment_has_fewer_replicas() -> None:
    swarm = Swarm(one=["a"], two=["a", "b"], other=["b"])
    result = swarm.move("vacated", "a")
    assert result == {"changed": True, "moved": ["one", "two"]}
    assert "a" not in swarm.where("one") | swarm.where("two")
    assert (swarm.fewest["one"], swarm.fewest["two"]) == (1, 2)
    assert swarm.nodes["a"]["Spec"]["Availability"] == "drain"
    assert swarm.kept["other"]["Spec"]["TaskTemplate"]["ForceUpdate"] == 0
    assert swarm.move("vacated", "a") == {"changed": False, "moved": []}


def test_a_host_that_alone_may_run_a_model_stays_in_service() -> None:
    swarm = Swarm(one=["a"])
    for name in "bc":
        swarm.nodes[name]["Spec"]["Labels"] = {}
    with pytest.raises(module.MoveError, match="no other host may run one; nothing was changed"):
        swarm.move("vacated", "a")
    assert swarm.nodes["a"]["Spec"]["Availability"] == "active"


def test_a_model_that_does_not_start_elsewhere_stays() -> None:
    swarm = Swarm(one=["a"])
    swarm.healthy = False
    with pytest.raises(module.MoveError, match="replicas of one are healthy after 100 seconds"):
        swarm.move("vacated", "a")
    assert swarm.nodes["a"]["Spec"]["Availability"] == "pause"
    assert swarm.where("one")["a"] == 1


def test_a_host_that_came_back_gets_its_share() -> None:
    swarm = Swarm(three=["a", "a", "b"], six=["a", "a", "a", "b", "b", "b"])
    assert swarm.move("even") == {"changed": True, "moved": ["six", "three"]}
    assert swarm.where("three") == {"a": 1, "b": 1, "c": 1}
    assert swarm.where("six") == {"a": 2, "b": 2, "c": 2}
    assert (swarm.fewest["three"], swarm.fewest["six"]) == (3, 6)
    assert {name: kept["Spec"]["Mode"]["Replicated"]["Replicas"] for name, kept in swarm.kept.items()} == {
        "three": 3,
        "six": 6,
    }
    assert swarm.move("even") == {"changed": False, "moved": []}


def test_replicas_stay_off_hosts_that_may_not_run_them() -> None:
    swarm = Swarm(three=["a", "a", "b"])
    swarm.nodes["c"]["Spec"]["Availability"] = "drain"
    assert swarm.move("even") == {"changed": False, "moved": []}
    swarm.nodes["c"] |= {"Spec": swarm.nodes["a"]["Spec"] | {"Labels": {"serving": "false"}}}
    assert swarm.move("even")["changed"] is False


def test_back_in_service() -> None:
    swarm = Swarm(one=["a"])
    swarm.nodes["b"]["Spec"]["Availability"] = "drain"
    assert swarm.move("active", "b", check_mode=True)["changed"]
    assert swarm.move("active", "b")["changed"]
    assert not swarm.move("active", "b")["changed"]
    assert swarm.nodes["b"]["Spec"]["Availability"] == "active"


def test_a_dry_run_moves_nothing() -> None:
    swarm = Swarm(three=["a", "a", "b"])
    assert swarm.move("even", check_mode=True) == {"changed": True, "moved": ["three"]}
    assert swarm.move("vacated", "a", check_mode=True) == {"changed": True, "moved": ["three"]}
    assert swarm.where("three") == {"a": 2, "b": 1}
    assert swarm.nodes["a"]["Spec"]["Availability"] == "active"
