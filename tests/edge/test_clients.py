"""Who may call: the filter that finds mistakes, and the tables that the edge reads."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from roles.edge.filter_plugins.edge_clients import edge_client_problems

from .conftest import Render

GOOD = {"name": "web", "models": ["iris"], "keys": ["k1", {"sha256": "Ab" * 32}]}


def test_a_good_list_has_no_problems() -> None:
    assert edge_client_problems([GOOD, {"name": "all", "models": ["*"], "keys": ["k1"], "rate": 0}], ["iris"]) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "operator"}, "name is 'operator'"),
        ({"name": "Web"}, "name is 'Web'"),
        ({"name": "a" * 33}, "1 to 32"),
        ({"models": ["rose"]}, "there is no model 'rose'. Allowed: '*', iris"),
        ({"keys": ["a_b"]}, "neither a name nor a hash"),
        ({"keys": [{"sha256": "ab"}]}, "neither a name nor a hash"),
        ({"keys": [{"sha256": "ab" * 32, "name": "x"}]}, "neither a name nor a hash"),
        ({"keys": [5]}, "neither a name nor a hash"),
        ({"rate": -1}, "rate is -1"),
        ({"keys": ["k1", "k1"]}, "every key once"),
    ],
)
def test_every_mistake_is_named(change: dict[str, Any], said: str) -> None:
    (problem,) = edge_client_problems([{**GOOD, **change}], ["iris"])
    assert said in problem


def test_a_key_that_was_written_down_by_mistake_is_not_shown() -> None:
    (problem,) = edge_client_problems([{**GOOD, "keys": ["SECRET-key"]}], ["iris"])
    assert "SECRET" not in problem


def test_two_clients_share_neither_name_nor_key() -> None:
    problems = edge_client_problems([GOOD, {**GOOD, "keys": [{"sha256": "aB" * 32}]}], ["iris"])
    assert len(problems) == 2


def test_tables_have_hashes_and_no_keys(render: Render, tmp_path: Path) -> None:
    clients = [GOOD, {"name": "all", "models": ["*"], "keys": ["k2"], "rate": 5}]
    given = {"edge_api_clients": clients, "platform_auth": True, "platform_secrets_dir": str(tmp_path)}
    keys = dict(line.split() for line in render("keys.map.j2", **given).splitlines())
    made = {file.name: file.read_text().strip() for file in tmp_path.iterdir()}
    assert {name: keys[hashlib.sha256(key.encode()).hexdigest()] for name, key in made.items()} == {
        "api_key_web_k1": "web",
        "api_key_all_k2": "all",
        "operator_key": "operator",
    }
    assert keys["ab" * 32] == "web"
    assert render("grants.map.j2", **given).splitlines() == ["web/iris 1", "all/* 1", "operator/* 1"]
    assert render("rates.map.j2", **given).splitlines() == ["web 1000", "all 50", "operator 0"]
