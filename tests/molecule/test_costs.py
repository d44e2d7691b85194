"""What a scenario costs, and whether it keeps to its share."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from runner.costs import Cost, Meter, Share, Step, budget, budget_line, calibration, read, write
from runner.inputs import scenarios

BURN = "import time\nwhile time.process_time() < 0.4: pass\n"
LOG = """\
2026-01-02 03:04:05,678 p=1 u=root n=ansible INFO| PLAY [all] ****
2026-01-02 03:04:05,678 p=1 u=root n=ansible INFO| TASK [first] ****
2026-01-02 03:04:06,678 p=1 u=root n=ansible INFO| ok: [a] => TASK [no] ***
2026-01-02 03:04:07,678 p=1 u=root n=ansible INFO| RUNNING HANDLER [second] ****
"""


def cost(**different: object) -> Cost:
    values = {"scenario": "swarm", "passed": True, "seconds": 9, "memory": 7, "calibration": 1.0, "steps": []}
    return Cost(**(values | different))  # type: ignore[arg-type]


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.costs.docker.from_env", lambda: None)
    monkeypatch.setattr(Meter, "_read_instances", lambda _: 0)


@pytest.mark.usefixtures("no_engine")
def test_time_of_processes_that_have_ended_counts(tmp_path: Path) -> None:
    shell = f"{sys.executable} -c '{BURN}'; read line"
    with subprocess.Popen(["sh", "-c", shell], stdin=subprocess.PIPE) as parent:
        meter = Meter("swarm", parent.pid, tmp_path / "none")
        deadline = time.monotonic() + 20
        while meter.cpu()[0] < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        spent, none = meter.cpu()
        assert none == 0
        parent.communicate(b"\n")
    assert meter.cpu()[0] >= spent
    assert meter.memory > 0


@pytest.mark.usefixtures("no_engine")
def test_what_an_instance_took_before_a_reboot_counts(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "5"]) as child:
        meter = Meter("swarm", child.pid, tmp_path / "none")
        for container, spent in [("one", 10.0), ("two", 1.0), ("one", 30.0), ("one", 2.0), ("one", 3.0)]:
            meter._count(container, spent)
        assert meter.cpu()[1] == 30 + 3 + 1
        child.kill()


@pytest.mark.usefixtures("no_engine")
def test_tasks_and_handlers_of_all_playbooks_are_counted(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(LOG)
    with subprocess.Popen(["sleep", "5"]) as child:
        assert Meter("swarm", child.pid, tmp_path / "log").tasks() == 2
        child.kill()


def test_figures_of_other_scenarios_stay(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert read(file) == []
    first = cost(steps=[Step("create", 1.5, 0.5, 0.25, 3)])
    write(file, [first, cost(scenario="edge")])
    write(file, [cost(scenario="edge", memory=99)])
    assert read(file) == [cost(scenario="edge", memory=99), first]


@pytest.mark.parametrize("text", ["", "[", '[{"scenario": "swarm", "other": 1, "steps": []}]', "[{}]"])
def test_figures_of_another_version_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text(text)
    assert read(tmp_path / "figures.json") == []


def test_a_slow_machine_does_not_make_a_scenario_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.costs.budget", lambda: {"swarm": Share(seconds=50, cpu=100)})
    assert "over its share" not in budget_line(cost(steps=[Step("verify", 1, 100, 90, 1)], calibration=1.0))
    assert "over its share" in budget_line(cost(steps=[Step("verify", 1, 100, 110, 1)], calibration=1.0))
    assert "   60 of  100 " in budget_line(cost(steps=[Step("verify", 1, 30, 0, 1)], calibration=0.25))


def test_the_calibration_is_a_time() -> None:
    assert 0.05 < calibration() < 60


def test_every_scenario_has_a_share() -> None:
    assert sorted(budget()) == scenarios()


def test_all_shares_together_fit_into_45_minutes_of_two_cores() -> None:
    """Nine tenths of them: for some seconds only one scenario is left, or one waits."""
    assert sum(share.cpu for share in budget().values()) <= 0.9 * 2 * 45 * 60
