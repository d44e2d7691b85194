"""Every promise of docs/security.md is shown by a test that exists, and its figures are those of the tables."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:molecule|tests)/[\w/]+\.py)::(\w+)`", PAGE)))
ROWS = [
    line
    for line in PAGE[PAGE.index("## What breaks") :].splitlines()
    if line.startswith("| ") and line.count("|") == 5 and "what is promised" not in line
]


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[test for _, test in NAMED])
def test_what_shows_a_promise_exists(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_names_what_shows_it() -> None:
    assert len(ROWS) > 45
    for row in ROWS:
        assert re.search(r"`(molecule|tests)/[\w/]+\.py(::test_\w+)?`", row), row


def test_the_page_counts_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "molecule"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import hostile
    import hostile_models

    assert len(hostile.cases()) >= 60
    assert len(hostile_models.MODELS) >= 25
    assert f"{len(hostile.cases())} hostile requests" in PAGE
    assert f"{len(hostile_models.MODELS)} hostile models" in PAGE
    assert {case.place for case in hostile.cases()} == set(hostile.PLACES)
