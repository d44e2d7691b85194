"""Several files in one call: what differs is written, the rest is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from library import write_files


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the module on a directory below the test's own and return its result."""

    def call(**parameters: Any) -> dict[str, Any]:
        with patch_module_args({"directory": str(tmp_path / "new" / "files"), **parameters}):
            basic._ANSIBLE_PROFILE = "legacy"
            with pytest.raises(SystemExit):
                write_files.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return call


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "new" / "files"


def test_makes_the_directory_and_the_files(run: Any, directory: Path) -> None:
    result = run(files={"a": "one\n", "b": "zwei ü"}, mode="0400", directory_mode="0700")
    assert result["changed"]
    assert result["written"] == ["a", "b"]
    assert (directory / "a").read_text() == "one\n"
    assert (directory / "b").read_text(encoding="utf-8") == "zwei ü"
    assert (directory / "a").stat().st_mode & 0o777 == 0o400
    assert directory.stat().st_mode & 0o777 == 0o700


def test_changes_nothing_the_second_time(run: Any, directory: Path) -> None:
    run(files={"a": "one"})
    inode = (directory / "a").stat().st_ino
    assert not run(files={"a": "one"})["changed"]
    assert (directory / "a").stat().st_ino == inode


def test_writes_only_what_differs(run: Any, directory: Path) -> None:
    run(files={"a": "one", "b": "two"})
    inode = (directory / "a").stat().st_ino
    result = run(files={"a": "one", "b": "three"})
    assert result["changed"]
    assert result["written"] == ["b"]
    assert (directory / "a").stat().st_ino == inode
    assert [(part["before"], part["after"]) for part in result["diff"]] == [("two", "three")]


def test_mends_mode_of_file_and_directory(run: Any, directory: Path) -> None:
    run(files={"a": "one"})
    (directory / "a").chmod(0o666)
    directory.chmod(0o777)
    result = run(files={"a": "one"})
    assert result["changed"]
    assert result["written"] == []
    assert (directory / "a").stat().st_mode & 0o777 == 0o644
    assert directory.stat().st_mode & 0o777 == 0o755


def test_a_dry_run_says_so_and_writes_nothing(run: Any, directory: Path) -> None:
    result = run(files={"a": "one"}, _ansible_check_mode=True)
    assert result["changed"]
    assert result["written"] == ["a"]
    assert not directory.exists()


def test_keeps_what_is_there_when_told_to(run: Any, directory: Path) -> None:
    run(files={"a": "one"})
    result = run(files={"a": "two", "b": "new"}, overwrite=False)
    assert result["written"] == ["b"]
    assert (directory / "a").read_text() == "one"


def test_leaves_no_partial_file_behind(run: Any, directory: Path) -> None:
    run(files={"a": "one"})
    (directory / "b").mkdir()
    result = run(files={"b": "text"})
    assert result["failed"]
    assert "could not be written" in result["msg"]
    assert sorted(path.name for path in directory.iterdir()) == ["a", "b"]


def test_a_difference_tells_long_lines_in_short(run: Any, directory: Path) -> None:
    pixels = "[" + "0.0, " * 5000 + "0]"
    run(files={"a": f"one\n{pixels}\n"})
    [diff] = run(files={"a": f"one\n{pixels} \ntwo\n"})["diff"]
    assert len(diff["before"]) + len(diff["after"]) < 500
    assert diff["before"].splitlines()[1] != diff["after"].splitlines()[1]
    assert diff["after"].startswith("one\n[0.0, ")
    assert diff["after"].endswith("\ntwo\n")
    assert (directory / "a").read_text() == f"one\n{pixels} \ntwo\n"
