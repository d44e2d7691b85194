"""The module container_handover between containers that are simulated, and the rules that let connections wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ansible.module_utils.engine import EngineError

from library import container_handover as module

PORTS = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8000"}], "443/tcp": [{"HostIp": "", "HostPort": "443"}]}


class Containers:
    """An engine with two containers; `fails` says what the successor does."""

    def __init__(self, fails: str = "") -> None:
        self.running = {"edge": True, "edge-next": False}
        self.fails = fails
        self.said: list[str] = []

    def get(self, path: str) -> dict[str, Any] | None:
        name = path.split("/")[2]
        if name not in self.running:
            return None
        health = "starting" if self.fails == "unhealthy" and self.is_new(name) else "healthy"
        runs = self.running[name]
        state = {"Running": runs, "Status": "running" if runs else "exited", "Health": {"Status": health}}
        return {"State": state, "HostConfig": {"PortBindings": PORTS}}

    def is_new(self, name: str) -> bool:
        """Whether it is the successor, which has the other one's name while that one has another."""
        return name == "edge-next" or (name == "edge" and "edge-before" in self.running)

    def post(self, path: str) -> None:
        _, _, name, verb = path.partition("?")[0].split("/")
        self.said.append(f"{verb} {name}")
        if verb == "start" and self.is_new(name) and self.fails == "start":
            raise EngineError("the port is taken")
        if verb in {"start", "stop"}:
            self.running[name] = verb == "start" and not (self.fails == "ends" and self.is_new(name))
        if verb == "rename":
            if self.running[name] or self.fails == path.rpartition("=")[2]:
                raise EngineError("a running one keeps its name")
            self.running[path.rpartition("=")[2]] = self.running.pop(name)

    def ask(self, method: str, path: str) -> bytes:
        if method == "DELETE":
            name = path.split("/")[2].partition("?")[0]
            self.said.append(f"remove {name}")
            del self.running[name]
        return b"\x01\0\0\0\0\0\0\x05cannot bind\n"


@pytest.fixture
def holds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was held, and `released` behind it."""
    seen: list[Any] = []

    @contextmanager
    def held(ports: list[tuple[str, int]], seconds: int) -> Iterator[bool]:
        seen.append((ports, seconds))
        try:
            yield True
        finally:
            seen.append("released")

    monkeypatch.setattr(module, "held", held)
    monkeypatch.setattr(module, "PAUSE", 0.001)
    return seen


def handover(engine: Containers) -> module.Handover:
    return module.Handover(engine, "edge", "edge-next")


def test_the_successor_serves_under_the_name_before_the_other_is_removed(holds: list[Any]) -> None:
    engine = Containers()
    waits, seconds = module.hand_over(handover(engine), 10, 60)
    assert engine.said == ["stop edge", "rename edge", "rename edge-next", "start edge", "remove edge-before"]
    assert engine.running == {"edge": True}
    assert waits
    assert 0 <= seconds < 5
    # Whatever becomes of the run, the rules end when the successor must have become healthy.
    assert holds == [([("127.0.0.1", 8000), ("", 443)], 70), "released"]


@pytest.mark.parametrize("fails", ["edge-before", "edge"])
def test_names_that_cannot_change_leave_the_container_of_before(fails: str, holds: list[Any]) -> None:
    engine = Containers(fails)
    with pytest.raises(module.HandoverError, match="edge of before runs again"):
        engine_fails_once(engine)
    assert engine.running == {"edge": True, "edge-next": False}
    assert holds[-1] == "released"


def engine_fails_once(engine: Containers) -> None:
    """Hand over; what the engine refuses, it refuses once."""
    post = engine.post

    def once(path: str) -> None:
        try:
            post(path)
        except EngineError:
            engine.fails = ""
            raise

    engine.post = once  # type: ignore[method-assign]
    module.hand_over(handover(engine), 1, 0)


@pytest.mark.parametrize("fails", ["start", "unhealthy", "ends"])
def test_a_successor_that_does_not_serve_leaves_the_container_of_before(fails: str, holds: list[Any]) -> None:
    engine = Containers(fails)
    with pytest.raises(
        module.HandoverError, match=r"(?s)edge-next did not take over.*edge of before runs again.*cannot bind"
    ):
        module.hand_over(handover(engine), 1, 0)
    assert engine.running == {"edge": True, "edge-next": False}
    assert "remove edge-before" not in engine.said
    assert holds[-1] == "released"


def test_only_first_packets_to_this_host_on_the_published_addresses_wait_and_only_until_then() -> None:
    ports = [("127.0.0.1", 8000), ("0.0.0.0", 443), ("::", 443), ("", 80), ("fd00::1", 9)]
    rules = module.hold_rules(ports, 0)
    local = ["-m", "addrtype", "--dst-type", "LOCAL"]
    end = ["-m", "time", "--datestop", "1970-01-01T00:00:00", "-j", "DROP"]
    assert rules == {
        "iptables": [
            ["-p", "tcp", "--syn", "--dport", "8000", *local, "-d", "127.0.0.1", *end],
            ["-p", "tcp", "--syn", "--dport", "443", *local, *end],
            ["-p", "tcp", "--syn", "--dport", "80", *local, *end],
        ],
        "ip6tables": [
            ["-p", "tcp", "--syn", "--dport", "443", *local, *end],
            ["-p", "tcp", "--syn", "--dport", "80", *local, *end],
            ["-p", "tcp", "--syn", "--dport", "9", *local, "-d", "fd00::1", *end],
        ],
    }


class Filter:
    """iptables, as a list of chains; `refuses` is a verb that it does not know here."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.jumps: list[str] = []
        self.rules: list[str] = []

    def __call__(self, program: str, verb: str, *arguments: str) -> bool:
        assert program == "iptables"
        if verb == self.refuses:
            return False
        if verb == "-D":
            if arguments[0] not in self.jumps:
                return False
            self.jumps.remove(arguments[0])
        elif verb == "-I":
            self.jumps.append(arguments[0])
        elif verb == "-A":
            self.rules.append(f"{arguments[0]} {arguments[arguments.index('--dport') + 1]}")
        elif verb == "-F":
            self.rules = []
        return True


def test_rules_are_there_meanwhile_and_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    packets = Filter()
    # What an earlier run left.
    packets.jumps = ["PREROUTING", "PREROUTING"]
    monkeypatch.setattr(module, "filter_packets", packets)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/sbin/{name}")
    with module.held([("127.0.0.1", 8000)], 5) as waits:
        assert waits
        assert sorted(packets.jumps) == ["OUTPUT", "PREROUTING"]
        assert packets.rules == [f"{module.CHAIN} 8000"]
    assert (packets.jumps, packets.rules) == ([], [])


def test_rules_do_not_outlive_a_handover_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    packets = Filter()
    monkeypatch.setattr(module, "filter_packets", packets)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/sbin/{name}")

    def fail() -> None:
        with module.held([("127.0.0.1", 8000)], 5):
            raise EngineError("gone")

    with pytest.raises(EngineError):
        fail()
    assert (packets.jumps, packets.rules) == ([], [])


@pytest.mark.parametrize("missing", ["root", "program", "time"])
def test_where_connections_cannot_wait_the_module_says_so(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "filter_packets", Filter("-A" if missing == "time" else ""))
    monkeypatch.setattr("os.geteuid", lambda: 1000 if missing == "root" else 0)
    monkeypatch.setattr("shutil.which", lambda _: None if missing == "program" else "/usr/sbin/iptables")
    with module.held([("127.0.0.1", 8000)], 5) as waits:
        assert not waits
