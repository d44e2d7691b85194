"""When scenarios can start from the platform that is kept."""

from __future__ import annotations

import pytest
from runner import golden

THEN = {"roles/edge/tasks/main.yml": "1", "roles/swarm/tasks/main.yml": "1", "bare machine": "sha256:1"}


@pytest.fixture
def differing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The platform was kept, then something changed."""
    monkeypatch.setattr(golden, "kept", lambda: THEN)
    monkeypatch.setattr(golden, "content", lambda: THEN | request.param)


@pytest.mark.usefixtures("differing")
@pytest.mark.parametrize(
    ("differing", "enough"),
    [
        ({}, True),
        ({"roles/edge/tasks/main.yml": "2"}, True),
        ({"roles/edge/files/new": "1"}, True),
        # Neither of these is run by the scenario edge again.
        ({"roles/swarm/tasks/main.yml": "2"}, False),
        ({"bare machine": "sha256:2"}, False),
        ({"requirements.txt": "1"}, False),
        ({"roles/edge/tasks/main.yml": "2", "roles/swarm/tasks/main.yml": "2"}, False),
    ],
    indirect=["differing"],
)
def test_an_earlier_platform_is_enough_for_who_runs_all_that_changed(enough: bool) -> None:
    assert golden.ready() == (golden.content() == THEN)
    assert golden.close_enough(["edge"]) == enough


@pytest.mark.usefixtures("differing")
@pytest.mark.parametrize("differing", [{"roles/edge/tasks/main.yml": "2"}], indirect=True)
def test_one_scenario_that_does_not_run_it_is_enough_to_make_it_anew() -> None:
    assert golden.close_enough(["edge", "public"])
    assert not golden.close_enough(["edge", "postgres"])
    # Without a converge.yml its tests install what they need.
    assert not golden.close_enough(["way"])


def test_without_one_nothing_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "kept", lambda: None)
    monkeypatch.setattr(golden, "content", lambda: THEN)
    assert not golden.ready()
    assert not golden.close_enough(["edge"])


def test_every_part_of_the_content_counts() -> None:
    words = {golden.digest(THEN), golden.digest({}), golden.digest(THEN | {"bare machine": "sha256:2"})}
    assert len(words) == 3
