"""What is told of an engine that answers, one that does not, and of the host."""

from __future__ import annotations

import socketserver
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from library import engine_facts
from tests.engine import Handler


@pytest.fixture
def engine(listen: Callable[[type[BaseHTTPRequestHandler]], str]) -> str:
    return listen(Handler)


def test_an_engine_that_answers(engine: str) -> None:
    found = engine_facts.facts(engine)
    assert found["answers"]
    assert found["version"] == "26.1.5"
    assert (found["swarm"], found["manager"]) == ("active", True)
    assert found["free_mib"] > 0, "measured at the next directory above that exists"


def test_what_the_engine_has(engine: str) -> None:
    found = engine_facts.facts(engine)
    assert [(image["tag"], image["id"]) for image in found["images"]] == [
        ("ours/runtime:2", "sha256:2"),
        ("ours/runtime:latest", "sha256:2"),
        ("ours/runtime:1", "sha256:1"),
    ]
    assert found["networks"] == {"ours": {"driver": "overlay", "scope": "swarm", "attachable": True, "internal": False}}
    assert found["attached"] == {"edge": ["another", "ours"], "inner": []}
    assert found["services"] == {"ours-model": {"a": "b"}, "bare": {}}
    assert found["ports"] == {"edge": [5000], "inner": []}


def test_the_swarm_of_the_engine(engine: str) -> None:
    found = engine_facts.facts(engine)
    assert found["node"] == {
        "id": "one",
        "address": "10.0.0.1",
        "managers": ["10.0.0.1", "[fd00::2]"],
        "error": "",
    }
    first, second = found["nodes"]
    assert (first["hostname"], first["address"], first["state"]) == ("a", "10.0.0.1", "ready")
    assert (first["role"], first["availability"], first["labels"]) == ("manager", "active", {"ours": "true"})
    assert (second["id"], second["state"], second["labels"]) == ("two", "unknown", {})
    assert found["volumes"] == ["another", "ours-postgres"]


def test_no_engine(tmp_path: Path) -> None:
    found = engine_facts.facts(str(tmp_path / "nothing.sock"))
    assert not found["answers"]
    assert found["version"] == ""
    assert found["root_dir"] == engine_facts.ROOT_DIR


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socketserver.UnixStreamServer(str(path), Handler):
        pass
    assert path.exists()
    assert not engine_facts.facts(str(path))["answers"]


def test_memory_is_memory_and_swap() -> None:
    assert engine_facts.memory_mib("MemTotal:  2097152 kB\nMemFree: 5 kB\nSwapTotal: 1048576 kB\n") == 3072


def test_what_uses_how_much_memory(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = "MemTotal: 2048000 kB\nMemAvailable: 1024000 kB\nSwapTotal: 1024000 kB\nSwapFree: 1023000 kB\n"
    (tmp_path / "meminfo").write_text(meminfo)
    for number, name in enumerate(["dockerd", "containerd-shim", "python3"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "status").write_text(f"Name:\t{name}\nUmask:\t0022\nVmRSS:\t  102400 kB\n")
    monkeypatch.setattr(engine_facts, "PROC", tmp_path)
    assert engine_facts.facts(engine, "mlflow-anywhere.platform=ours")["usage"] == {
        "memory": 2000,
        "memory_used": 1000,
        "swap": 1000,
        "swap_used": 0,
        "engine": 200,
        "containers": {"edge": 24, "inner": 299},
    }


def test_no_usage_is_told_unasked(engine: str) -> None:
    assert engine_facts.facts(engine)["usage"] == {}
