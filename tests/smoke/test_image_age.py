"""How old the images are, as the summary of a run says it."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.templates import renderer

ROOT = Path(__file__).parents[2]
age = runpy.run_path(str(ROOT / "roles/smoke/filter_plugins/image_age.py"))["image_age"]
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
DAY = 86400


def image(tag: str, days: float, identity: str = "sha256:1") -> dict[str, Any]:
    return {"tag": tag, "id": identity, "created": NOW - days * DAY}


def test_the_age_is_that_of_the_build_of_the_base_image() -> None:
    assert age([image("ours/base:13", 15.5), image("ours/edge:3.0", 1)], "ours/base:13", NOW) == 15
    assert age([image("ours/base:13", 0.1)], "ours/base:13", NOW) == 0


def test_a_base_image_that_is_current_is_as_young_as_that_finding() -> None:
    current = image("ours/base:current-2026-11-20", 40)
    assert age([image("ours/base:13", 40), current], "ours/base:13", NOW) == 8
    assert age([image("ours/base:13", 3), current], "ours/base:13", NOW) == 3


def test_what_was_found_of_another_image_does_not_count() -> None:
    others = [
        image("ours/base:current-2026-11-28", 40, "sha256:2"),
        image("theirs/base:current-2026-11-28", 40),
        image("ours/base:current-2026-11-28-x", 40),
    ]
    assert age([image("ours/base:13", 40), *others], "ours/base:13", NOW) == 40


def test_a_host_without_a_base_image_has_no_age() -> None:
    assert age([image("ours/edge:3.0", 40)], "ours/base:13", NOW) == -1


def summary(days: float, **variables: Any) -> str:
    smoke = {"mlflow_version": "3.17.2", "models": [], "checks": ["health"]}
    engine = {
        "usage": {},
        "images": [{**image("mlflow-anywhere/base:13", 0), "created": datetime.now(UTC).timestamp() - days * DAY}],
    }
    return renderer("smoke")(
        "summary.j2",
        __smoke_result=smoke,
        __smoke_engine={"engine": engine},
        __platform_engine={"version": "26.1"},
        **variables,
    )


def test_the_summary_warns_of_images_that_are_older_than_two_weeks_and_says_how_to_renew_them() -> None:
    assert "WARNING" not in summary(14.9)
    old = summary(15.1)
    assert "have had no updates for 15 days; more than 14 (smoke_image_days) is too long" in old
    assert "make update" in old
    assert "WARNING" not in summary(15.1, smoke_image_days=30)
