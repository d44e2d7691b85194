"""A short form of `python -m bench fuzz`: some hundred cases for each model."""

import pytest

from bench import fuzz, small
from bench.live import Live

CASES, BY_SCHEMA = 300, 12


@pytest.mark.parametrize("name", small.ALL)
def test_whatever_is_sent_is_answered(lives: dict[str, Live], name: str) -> None:
    found = fuzz.attack(lives[name], name, CASES, seed=1)
    assert found.failures == []
    assert found.cases >= CASES
    # Not everything is refused, and not everything for the same reason.
    assert {200, 400, 404, 405, 415, 422} <= set(found.statuses)


@pytest.mark.parametrize("name", small.ALL)
def test_the_answers_are_those_of_the_description(lives: dict[str, Live], name: str) -> None:
    found = fuzz.described(lives[name], BY_SCHEMA, seed=1)
    assert found.failures == []
    assert 422 in found.statuses


@pytest.mark.parametrize(
    ("document", "way", "place", "value", "changed"),
    [
        ({"a": [1, 2]}, "replace", 1, 5, {"a": 5}),
        ({"a": [1, 2]}, "delete", 3, 5, {"a": [1]}),
        ({"a": [1, 2]}, "add", 1, 5, {"a": [1, 2, 5]}),
        ({"a": [1, 2]}, "double", 1, 5, {"a": [1, 2, 1, 2]}),
        ({"a": [1, 2]}, "wrap", 2, 5, {"a": [[1], 2]}),
        ({"a": [1, 2]}, "rename", 1, "b", {"b": [1, 2]}),
        ({"a": [1, 2]}, "empty", 1, 5, {"a": []}),
        ({"a": [1, 2]}, "replace", 4, 5, 5),
        ([], "delete", 0, 5, 5),
    ],
)
def test_a_document_is_changed_in_one_place(
    document: object, way: str, place: int, value: object, changed: object
) -> None:
    assert fuzz.change(document, way, place, value) == changed
