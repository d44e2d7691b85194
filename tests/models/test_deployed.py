"""What runs beside what is declared: who is named before a run, who stays, what is remembered of a rollout."""

from __future__ import annotations

from typing import Any

import pytest

from roles.serving.filter_plugins import deployed as module

WANTED = {"name": "iris", "service": "p-model-iris", "model": "prod.iris", "alias": "champion", "required": True}
OTHER = WANTED | {"name": "b", "service": "p-model-b", "model": "b"}
UNKNOWN = {"found": False, "problem": "no model", "model": "prod.iris", "version": ""}
BAD = {"found": True, "problem": "bad", "model": "b", "version": "1"}
GOOD = {"found": True, "problem": "", "model": "b", "version": "1"}
LABELS = {"mlflow-anywhere.model": "prod.iris", "mlflow-anywhere.alias": "champion"}


def test_every_entry_that_cannot_be_served_is_named_with_its_reason() -> None:
    assert module.bad_services([UNKNOWN, BAD], [WANTED, OTHER]) == {
        "p-model-iris": "iris: no model",
        "p-model-b": "b: bad",
    }
    assert module.bad_services([GOOD, GOOD], [WANTED, OTHER]) == {}


def test_a_challenger_that_does_not_exist_is_no_mistake_and_a_bad_one_is() -> None:
    challenger = WANTED | {"required": False}
    assert module.bad_services([UNKNOWN], [challenger]) == {}
    assert module.bad_services([BAD], [challenger]) == {"p-model-iris": "iris: bad"}


@pytest.mark.parametrize(
    ("services", "unknown"),
    [
        ({}, ["iris"]),
        ({"p-model-b": LABELS}, ["iris"]),
        ({"p-model-iris": {}}, ["iris"]),
        ({"p-model-iris": LABELS | {"mlflow-anywhere.model": "other"}}, ["iris"]),
        ({"p-model-iris": LABELS | {"mlflow-anywhere.alias": "other"}}, ["iris"]),
        ({"p-model-iris": LABELS}, []),
    ],
)
def test_what_is_neither_in_the_registry_nor_served_is_a_mistake_in_the_list(
    services: dict[str, dict[str, str]], unknown: list[str]
) -> None:
    assert module.unknown_entries([UNKNOWN, BAD], [WANTED, OTHER], services) == unknown


def test_a_missing_challenger_makes_no_list_doubtful() -> None:
    assert module.unknown_entries([UNKNOWN, BAD], [WANTED | {"required": False}, OTHER], {}) == []


def test_only_services_of_this_platform_are_undeclared() -> None:
    own = {"platform": "p", "role": "model"}
    services: dict[str, dict[str, str]] = {
        "p-model-b": own | {"more": "x"},
        "p-model-a": own,
        "p-model-iris": own,
        "q-model-a": own | {"platform": "q"},
        "somebody's": {},
    }
    assert module.undeclared(services, own, ["p-model-iris"]) == ["p-model-a", "p-model-b"]


def test_services_that_are_gone_after_a_rollout_run_no_more() -> None:
    rollout: dict[str, Any] = {
        "services": {"a": {"labels": {"x": "1"}}, "never": {"labels": {}}},
        "kept": {"b": {"labels": {"x": "2"}}},
    }
    assert module.running_services(rollout) == {"a": {"x": "1"}, "b": {"x": "2"}}
