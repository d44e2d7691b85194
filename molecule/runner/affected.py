"""Which scenarios and unit tests a change can touch, and why the others are left out."""

# ruff: noqa: T201 (prints a table)
from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runner.inputs import NOTHING, TREE, Tree, matches

# Below the repository: NAME.json holds what the inputs of a scenario were when it was green last.
GREEN = Path(".cache/molecule/green")

# A change of one of these can touch every unit test.
EVERY_TEST = (
    "ansible.cfg",
    "pyproject.toml",
    "requirements.txt",
    "requirements-dev.txt",
    "tests/conftest.py",
    "tools/venv",
)
# These read the whole repository, so every change can touch them.
ALWAYS = ("tests/molecule/*", "tests/test_readme.py", "tests/test_repository.py", "tests/test_roles.py")

# The unit tests as a whole have a stamp as a scenario has.
UNIT_TESTS = "unit"

# So many files of a change are named.
_NAMED = 3


@dataclass
class Choice:
    """Whether a scenario is to run, and why."""

    scenario: str
    run: bool
    why: str


def _git(tree: Tree, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=tree.root, capture_output=True, text=True, check=True).stdout


def _file(scenario: str, tree: Tree) -> Path:
    return tree.root / GREEN / f"{scenario}.json"


def stamp(scenario: str, files: dict[str, str], *, tree: Tree = TREE) -> None:
    """Remember that the scenario was green with these files: its fingerprint from before the run."""
    file = _file(scenario, tree)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"commit": _git(tree, "rev-parse", "HEAD").strip(), "files": files}, indent=1))
    new.replace(file)


def changed(base: str, *, tree: Tree = TREE) -> list[str]:
    """Files that differ from a commit: added, changed, removed, committed or not."""
    differing = _git(tree, "diff", "--name-only", "--no-renames", "-z", base, "--").split("\0")
    untracked = _git(tree, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
    return sorted({path for path in differing if path} | (set(untracked) & tree.known))


def _removed_from(path: str, tree: Tree) -> list[str]:
    """Scenarios that a file touched which is there no more: those that use something beside it, else all, unless it is of a kind that touches none."""
    beside = "/".join(path.split("/")[:-1][:2]) + "/"
    near = [name for name in tree.scenarios() if any(other.startswith(beside) for other in tree.inputs(name))]
    return near or ([] if matches(path, NOTHING) else tree.scenarios())


def _touching(scenario: str, paths: Iterable[str], tree: Tree) -> dict[str, str]:
    """Those of the changed files that touch the scenario, each with what became of it."""
    inputs = tree.inputs(scenario)
    found = {}
    for path in paths:
        if path in inputs:
            found[path] = "changed"
        elif path not in tree.known and scenario in _removed_from(path, tree):
            found[path] = "removed"
    return found


def _differing(green: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """Files in which two fingerprints differ, each with what became of it."""
    differing = sorted(path for path in green.keys() | now.keys() if green.get(path) != now.get(path))
    return {path: "removed" if path not in now else "changed" if path in green else "added" for path in differing}


def _choice(scenario: str, changes: dict[str, str], since: str, tree: Tree) -> Choice:
    inputs = tree.inputs(scenario)
    if not changes:
        return Choice(scenario, run=False, why=f"none of its {len(inputs)} files changed since {since}")
    named = [
        f"{path} {what}" + (f" ({inputs[path]})" if path in inputs else "")
        for path, what in list(changes.items())[:_NAMED]
    ]
    more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
    return Choice(scenario, run=True, why=f"{', '.join(named)}{more}, since {since}")


def choose(names: Iterable[str], base: str | None = None, *, tree: Tree = TREE) -> list[Choice]:
    """For each scenario, whether a change since the commit `base` can touch it; without one, a change since it was green."""
    if base:
        paths = changed(base, tree=tree)
        return [_choice(name, _touching(name, paths, tree), base, tree) for name in names]
    choices = []
    for name in names:
        try:
            green = json.loads(_file(name, tree).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            choices.append(Choice(name, run=True, why="never green here"))
        else:
            changes = _differing(green["files"], tree.fingerprint(name))
            choices.append(_choice(name, changes, f"it was green at {green['commit'][:7]}", tree))
    return choices


def show(choices: Iterable[Choice]) -> None:
    """Print what is run and what is left out, each with the reason."""
    for choice in sorted(choices, key=lambda choice: not choice.run):
        print(f"{'run' if choice.run else 'left out':<8}  {choice.scenario:<12} {choice.why}")


def _in_a_unit_test(path: str, other: str) -> bool:
    """Whether a file uses the other one in a unit test; a program that a test imports names playbooks and pages that it would run and write elsewhere."""
    return (
        path.startswith("tests/")
        or not path.endswith(".py")
        or other.endswith(".py")
        or PurePosixPath(path).parts[0] == PurePosixPath(other).parts[0]
    )


def _tests_file(test: str, paths: Iterable[str], tree: Tree) -> bool:
    """Whether what a test file imports, names or has beside it is among the changed files."""
    directories = [*PurePosixPath(test).parents][:-1]
    begin = [test, *(path for parent in directories if (path := f"{parent}/conftest.py") in tree.known)]
    reached = tree.reach(dict.fromkeys(begin, "its own"), _in_a_unit_test)
    beside = {PurePosixPath(path).parent for path in reached} - {PurePosixPath()}
    words = {word for path in reached if path.startswith("tests/") for word in re.findall(r"\w+", tree.text(path))}
    for path in paths:
        place = path.split("/")
        # What is no module is read by one beside it, by a name that may be computed; so is what was removed.
        data = not path.endswith(".py") or path not in tree.known
        if (
            path in reached
            or (data and PurePosixPath(path).parent in beside)
            # A role's directory is often named in pieces.
            or (place[0] == "roles" and words.issuperset(place[:2]))
        ):
            return True
    return False


def unit_tests(paths: Iterable[str], *, tree: Tree = TREE) -> list[str] | None:
    """Test files that a change of these files can touch; None stands for all of them."""
    paths = list(paths)
    if any(path in EVERY_TEST for path in paths):
        return None
    tests = [path for path in tree.files if path.startswith("tests/") and re.search(r"/test_\w+\.py$", path)]
    return [test for test in tests if matches(test, ALWAYS) or _tests_file(test, paths, tree)]


def choose_units(base: str | None = None, *, tree: Tree = TREE) -> list[str] | None:
    """Test files that a change since the commit `base` can touch, or since all that were touched were green; None stands for all."""
    if base:
        return unit_tests(changed(base, tree=tree), tree=tree)
    try:
        green = json.loads(_file(UNIT_TESTS, tree).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    changes = _differing(green["files"], tree.digests(tree.files))
    return unit_tests(changes, tree=tree) if changes else []
