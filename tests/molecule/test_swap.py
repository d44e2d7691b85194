"""Swap of an instance ends before the instance is removed, however its run ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import yaml
from runner import ROOT, scenario, swap


class Container:
    """Notes what is done to it."""

    def __init__(self, *, broken: bool = False) -> None:
        self.done: list[str] = []
        self.broken = broken

    def start(self) -> None:
        if self.broken:
            raise docker.errors.APIError("cannot start", requests.Response())
        self.done.append("start")

    def exec_run(self, command: list[str]) -> None:
        self.done.append(" ".join(command))

    def remove(self, **_: bool) -> None:
        self.done.append("remove")


class Engine:
    """An engine with one instance that a killed run left."""

    def __init__(self, container: Container) -> None:
        self.containers = self.volumes = self.networks = self
        self.found: list[Any] = [[container], [], []]

    def list(self, **_: Any) -> list[Any]:
        return list(self.found.pop(0))


class Store:
    """Nothing is kept."""

    def names(self) -> list[str]:
        return []


@pytest.fixture
def in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Swap of the machine: a file of an instance."""
    swaps = tmp_path / "swaps"
    swaps.write_text(
        "Filename Type Size Used Priority\n/volumes/x/_data/swapfile file 65532 0 -2\n/dev/sda2 partition 9 0 -3\n"
    )
    monkeypatch.setattr(swap, "SWAPS", swaps)
    return swaps


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize("broken", [True, False])
def test_the_sweep_ends_it_before_it_removes_the_instance(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    container = Container(broken=broken)
    monkeypatch.setattr(docker, "from_env", lambda: Engine(container))
    monkeypatch.setattr(scenario, "Store", Store)
    scenario.sweep(["host"])
    assert container.done == (["remove"] if broken else ["start", f"swapoff {swap.FILE}", "remove"])


def test_where_no_instance_has_any_nothing_is_started(in_use: Path) -> None:
    in_use.write_text("Filename Type Size Used Priority\n/dev/sda2 partition 9 0 -3\n")
    container = Container()
    swap.off(container)
    assert container.done == []


def test_destroy_ends_it_before_it_removes_the_instances() -> None:
    [play] = yaml.safe_load((ROOT / "molecule/shared/destroy.yml").read_text())
    first, second = play["tasks"][:2]
    assert "'runner.swap'" in first["ansible.builtin.command"]["argv"]
    assert second["community.docker.docker_container"]["state"] == "absent"


def test_the_file_is_that_of_the_scenario() -> None:
    settings = yaml.safe_load((ROOT / "molecule/host/molecule.yml").read_text())
    assert settings["provisioner"]["inventory"]["group_vars"]["all"]["host_swap_file"] == swap.FILE
