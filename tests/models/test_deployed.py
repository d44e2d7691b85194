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


def test_a_busy_server_says_nothing_about_a_model() -> None:
    assert module.bad_services([BAD | {"busy": True}], [OTHER]) == {}


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


def entry(name: str, version: str, replicas: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "service": f"p-model-{name}", "version": version, "replicas": replicas} | more


def state(version: str, *, changed: bool = False, ok: bool = True, **more: Any) -> dict[str, Any]:
    labels = {"mlflow-anywhere.version": version} if version else {}
    return {"ok": ok, "changed": changed, "labels": labels, "seconds": 31.4, "serving": bool(version)} | more


def told(services: dict[str, Any], entries: list[dict[str, Any]], *, dry: bool = False, **more: Any) -> str:
    rollout = {
        "services": {f"p-model-{name}": found for name, found in services.items()},
        "removed": more.get("removed", []),
    }
    before = {f"p-model-{name}": labels for name, labels in more.get("before", {}).items()}
    return module.changes(rollout, entries, more.get("failed", []), before, dry=dry)


OLD = {"mlflow-anywhere.version": "1", "mlflow-anywhere.name": "digits"}


def test_what_changed_is_told_in_one_line() -> None:
    services = {"digits": state("2", changed=True), "iris": state("1")}
    entries = [entry("digits", "2", 2), entry("iris", "1")]
    before = {"digits": OLD, "iris": OLD}
    assert told(services, entries, before=before) == "digits 1 -> 2 (2 replicas, 31 s), iris unchanged"


def test_what_would_change_is_told_by_a_dry_run() -> None:
    found = state("2", changed=True)
    del found["seconds"]
    assert (
        told({"digits": found}, [entry("digits", "2")], dry=True, before={"digits": OLD})
        == "A run would do: digits 1 -> 2 (1 replica)"
    )


@pytest.mark.parametrize(
    ("services", "entries", "more", "line"),
    [
        ({"iris": state("1", changed=True)}, [entry("iris", "1")], {}, "iris 1 is new (1 replica, 31 s)"),
        (
            {"iris": state("1", changed=True)},
            [entry("iris", "1")],
            {"before": {"iris": OLD}},
            "iris 1 changed (1 replica, 31 s)",
        ),
        ({"iris": state("1")}, [entry("iris", "1")], {}, "iris unchanged"),
        (
            {"iris": state("1", ok=False)},
            [entry("iris", "2")],
            {"failed": ["p-model-iris"], "before": {"iris": OLD}},
            "iris 2 failed, 1 goes on",
        ),
        (
            {"iris": state("", ok=False)},
            [entry("iris", "2")],
            {"failed": ["p-model-iris"]},
            "iris 2 failed, is not served",
        ),
        ({}, [entry("iris", "")], {"failed": ["p-model-iris"], "before": {"iris": OLD}}, "iris failed, 1 goes on"),
        ({}, [], {"removed": ["p-model-digits"], "before": {"digits": OLD}}, "digits 1 removed"),
        ({"iris": state("1")}, [entry("iris", "1", challenger=True)], {}, "iris (challenger) unchanged"),
        ({}, [], {}, "nothing is served"),
    ],
)
def test_every_way_a_rollout_ends_has_its_words(services: Any, entries: Any, more: Any, line: str) -> None:
    assert told(services, entries, **more) == line
