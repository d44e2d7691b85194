"""Which scenarios and unit tests a change selects, and what is said of it."""

import json
import subprocess
from pathlib import Path

import pytest
from runner.affected import (
    ALWAYS,
    EVERY_TEST,
    GREEN,
    UNIT_TESTS,
    Choice,
    changed,
    choose,
    choose_units,
    show,
    stamp,
    unit_tests,
)
from runner.inputs import TREE, Tree, matches

from .conftest import Repository


def green(tree: Tree) -> Path:
    """Stamp all scenarios; gives the repository, which is read anew after a change."""
    for name in tree.scenarios():
        stamp(name, tree.fingerprint(name), tree=tree)
    return tree.root


def chosen(root: Path, base: str | None = None) -> dict[str, str]:
    """Scenarios that run, each with the reason."""
    return {choice.scenario: choice.why for choice in choose(["one", "two"], base, tree=Tree(root)) if choice.run}


def head(root: Path) -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_scenario_that_was_never_green_runs(repository: Repository) -> None:
    assert chosen(repository({}).root) == dict.fromkeys(["one", "two"], "never green here")


def test_a_green_scenario_is_left_out_until_something_changes(repository: Repository) -> None:
    root = green(repository({}))
    tree = Tree(root)
    count = len(tree.inputs("one"))
    why = f"none of its {count} files changed since it was green at {head(root)[:7]}"
    assert choose(["one"], tree=tree) == [Choice("one", run=False, why=why)]


def test_a_stamp_holds_the_commit_and_the_files(repository: Repository) -> None:
    tree = repository({})
    stamp("one", {"a": "1"}, tree=tree)
    directory = tree.root / GREEN
    assert [path.name for path in directory.iterdir()] == ["one.json"]
    assert json.loads((directory / "one.json").read_text()) == {"commit": head(tree.root), "files": {"a": "1"}}


def test_a_stamp_that_cannot_be_read_is_none(repository: Repository) -> None:
    root = green(repository({}))
    (root / GREEN / "two.json").write_text('{"commit"')
    assert chosen(root) == {"two": "never green here"}


def test_a_changed_file_selects(repository: Repository) -> None:
    root = green(repository({}))
    (root / "roles/alpha/tasks/main.yml").write_text("- mend:\n")
    reason = "roles/alpha/tasks/main.yml changed (role alpha, which molecule/one/converge.yml uses)"
    assert chosen(root) == {"one": f"{reason}, since it was green at {head(root)[:7]}"}
    assert chosen(root, "HEAD") == {"one": f"{reason}, since HEAD"}


def test_an_added_file_selects(repository: Repository) -> None:
    root = green(repository({}))
    (root / "roles/beta/tasks/more.yml").touch()
    reason = "(role beta, which molecule/two/converge.yml uses), since"
    assert chosen(root) == {"two": f"roles/beta/tasks/more.yml added {reason} it was green at {head(root)[:7]}"}
    assert chosen(root, "HEAD") == {"two": f"roles/beta/tasks/more.yml changed {reason} HEAD"}


def test_a_removed_file_selects(repository: Repository) -> None:
    root = green(repository({}))
    (root / "molecule/one/tests/test_one.py").unlink()
    assert chosen(root) == {"one": f"molecule/one/tests/test_one.py removed, since it was green at {head(root)[:7]}"}
    assert chosen(root, "HEAD") == {"one": "molecule/one/tests/test_one.py removed, since HEAD"}


def test_what_nothing_stands_beside_any_more_touches_all_unless_it_touches_none(repository: Repository) -> None:
    root = repository({"roles/gone/tasks/main.yml": "", "docs/gone.md": ""}).root
    (root / "docs/gone.md").unlink()
    assert chosen(root, "HEAD") == {}
    (root / "roles/gone/tasks/main.yml").unlink()
    assert chosen(root, "HEAD") == dict.fromkeys(["one", "two"], "roles/gone/tasks/main.yml removed, since HEAD")


def test_a_document_selects_none(repository: Repository) -> None:
    root = green(repository({}))
    (root / "LICENSE").write_text("all rights given away")
    (root / "roles/alpha/README.md").write_text("# Alpha\n")
    assert chosen(root) == chosen(root, "HEAD") == {}
    assert {choice.why for choice in choose(["two"], "HEAD", tree=Tree(root))} == {
        f"none of its {len(Tree(root).inputs('two'))} files changed since HEAD"
    }


def test_no_more_than_three_files_are_named(repository: Repository) -> None:
    root = green(repository({}))
    for name in "abcde":
        (root / f"molecule/two/{name}.yml").touch()
    assert chosen(root)["two"].startswith("molecule/two/a.yml added (its own), molecule/two/b.yml added")
    assert " and 2 more, since " in chosen(root)["two"]


def test_changed_files_are_committed_or_not(repository: Repository) -> None:
    root = repository({}).root
    (root / "LICENSE").rename(root / "COPYING")
    (root / "ansible.cfg").write_text("")
    (root / "ignored.log").touch()
    assert changed("HEAD", tree=Tree(root)) == ["COPYING", "LICENSE", "ansible.cfg"]


def test_the_table_says_what_runs_first(capsys: pytest.CaptureFixture[str]) -> None:
    show([Choice("one", run=False, why="nothing changed"), Choice("two", run=True, why="never green here")])
    assert capsys.readouterr().out.splitlines() == [
        "run       two          never green here",
        "left out  one          nothing changed",
    ]


# What a change selects besides the tests that read the whole repository.
UNIT = {
    "docs/edge.md": {"tests/serving/test_statuses.py", "tests/training/test_cli.py"},
    "library/do_droplet.py": {"tests/cloud/test_playbook.py", "tests/library/test_do_droplet.py"},
    "library/write_files.py": {"tests/library/test_write_files.py"},
    "molecule/edge/client.py": set(),
    "roles/droplet/tasks/present.yml": {"tests/cloud/test_playbook.py"},
    "roles/edge/templates/haproxy.cfg.j2": {"tests/edge/test_haproxy_cfg.py", "tests/edge/test_clients.py"},
    "serving/pages/page.js": {"tests/serving/test_pages.py"},
    "serving/errors.py": {"tests/serving/test_errors.py", "tests/serving/test_app.py"},
    "tests/serving/trained.py": {"tests/serving/test_model.py"},
}
# And what it does not, however much else is tested to be sure.
NOT = {
    "library/do_droplet.py": {"tests/library/test_write_files.py", "tests/serving/test_errors.py"},
    "library/write_files.py": {"tests/library/test_engine.py"},
    "roles/edge/templates/haproxy.cfg.j2": {"tests/serving/test_app.py", "tests/tracking/test_accounts.py"},
    "serving/errors.py": {"tests/training/test_idx.py", "tests/edge/test_pages.py"},
    "tests/serving/trained.py": {"tests/training/test_idx.py"},
}


@pytest.mark.parametrize("path", UNIT)
def test_unit_tests_of_a_change(path: str) -> None:
    assert path in TREE.files
    selected = set(unit_tests([path]) or ())
    assert {test for test in TREE.files if matches(test, ALWAYS) and "/test_" in test} <= selected
    assert UNIT[path] <= selected
    assert NOT.get(path, set()).isdisjoint(selected)


@pytest.mark.parametrize("path", EVERY_TEST)
def test_some_changes_touch_every_unit_test(path: str) -> None:
    assert unit_tests(["LICENSE", path]) is None


def test_a_conftest_touches_the_tests_below_it() -> None:
    selected = [test for test in unit_tests(["tests/serving/conftest.py"]) or () if not matches(test, ALWAYS)]
    assert selected == [test for test in TREE.files if matches(test, ["tests/serving/test_*.py"])]


def test_a_removed_module_touches_the_tests_of_those_beside_it() -> None:
    assert "tests/serving/test_errors.py" in (unit_tests(["serving/gone.py"]) or ())
    assert "tests/training/test_idx.py" not in (unit_tests(["serving/gone.py"]) or ())


def test_unit_tests_are_chosen_by_what_changed_since_they_were_green(repository: Repository) -> None:
    tree = repository({"tests/test_a.py": "import a\n", "a.py": "", "tests/test_b.py": "", "b.py": ""})
    assert choose_units(tree=tree) is None
    stamp(UNIT_TESTS, tree.digests(tree.files), tree=tree)
    assert choose_units(tree=tree) == []
    (tree.root / "a.py").write_text("A = 1\n")
    assert choose_units(tree=Tree(tree.root)) == ["tests/test_a.py"]
    assert choose_units("HEAD", tree=Tree(tree.root)) == ["tests/test_a.py"]
