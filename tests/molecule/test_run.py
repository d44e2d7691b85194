"""In which order a run takes its scenarios."""

from __future__ import annotations

import argparse

import pytest
import run
from runner.affected import Choice
from runner.costs import Cost
from runner.packing import Job
from runner.scenario import Scenario


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Job]:
    """The jobs of a run in which edge was touched by a change, and the others were not."""
    monkeypatch.setattr(run, "read", lambda _: [])
    arguments = argparse.Namespace(keep=False)
    made = run.Run({"edge": 0, "docker": 1, "site": 2}, arguments, float("inf"))
    return {job.name: job for job in made.waiting}


def test_what_a_change_touches_comes_before_the_rest_and_what_all_wait_for_before_both(jobs: dict[str, Job]) -> None:
    ranks = {name: job.rank for name, job in jobs.items()}
    assert ranks["images 12"] < ranks["site"] < ranks["edge"] < ranks["docker"]


def test_a_copy_waits_for_the_platform_and_a_bare_machine_for_its_image_alone(jobs: dict[str, Job]) -> None:
    assert jobs["edge"].needs == {"images 12", "golden"}
    assert jobs["docker"].needs == {"images 12", "images 13"}
    assert "golden" not in jobs, "site makes it"


def test_without_its_maker_the_platform_is_a_job_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read", lambda _: [])
    waiting = {job.name for job in run.Run({"edge": 0}, argparse.Namespace(keep=False), float("inf")).waiting}
    assert waiting == {"edge", "images 12", "golden"}


def test_what_is_not_begun_in_time_is_named_and_nothing_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read", lambda _: [])
    late = run.Run({"edge": 0, "site": 0}, argparse.Namespace(keep=False), 0.0)
    monkeypatch.setattr(late, "_one", lambda job: late.there.add(job.name))
    late.all()
    assert sorted(late.late) == ["edge", "site"]
    assert late.results == []


def test_a_failed_image_fails_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "read", lambda _: [])
    failing = run.Run({"swarm": 0}, argparse.Namespace(keep=False), float("inf"))
    monkeypatch.setattr(failing, "_one", lambda job: failing.failed.append(job.name))
    failing.all()
    assert failing.failed == ["images 13", "swarm"]


def test_scenarios_are_read_as_molecule_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEBIAN", raising=False)
    assert Scenario.read("docker") == Scenario("docker", frozenset({"12", "13"}), golden=False)
    assert Scenario.read("swarm") == Scenario("swarm", frozenset({"13"}), golden=False)
    assert Scenario.read("edge") == Scenario("edge", frozenset({"12"}), golden=True)
    assert Scenario.read("way") == Scenario("way", frozenset({"13"}), golden=True)
    monkeypatch.setenv("DEBIAN", "13")
    assert Scenario.read("edge").releases == {"13"}


def test_a_short_limit_leaves_out_what_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    took = [Cost(name, True, seconds, 500, 0.5) for name, seconds in (("edge", 200.0), ("site", 1200.0))]
    monkeypatch.setattr(run, "read", lambda _: took)
    assert run._too_long(["site", "edge"], 480.0) == ["site"]
    assert run._too_long(["site", "edge"], 100.0) == ["edge", "site"]
    assert run._too_long(["site", "edge"], float("inf")) == []


def test_an_affected_run_within_a_limit_needs_no_new_platform(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scenario that makes it is not begun, so that what starts from a copy does not wait for it."""
    began: list[str] = []

    def start(ranks: dict[str, int], *_: object) -> int:
        began.extend(ranks)
        return 0

    monkeypatch.setattr(
        run, "read", lambda _: [Cost("edge", True, 200.0, 500, 0.5), Cost("site", True, 1200.0, 500, 0.5)]
    )
    monkeypatch.setattr(run, "choose", lambda names, _: [Choice(name, name in {"edge", "site"}, "") for name in names])
    monkeypatch.setattr(run, "_unit", lambda _: 0)
    monkeypatch.setattr(run, "_run", start)
    monkeypatch.setattr("sys.argv", ["run.py", "--affected", "--limit", "8m"])
    assert run.main() == 0
    assert began == ["edge"]
    assert "take longer than the time that was left: site" in capsys.readouterr().out
