"""A mistake in a file of variables is told with file, line and excerpt; a file without one is read as Ansible reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vars_plugins import named_vars

ROOT = Path(__file__).parents[2]
TAB = "served_models:\n\t- name: iris\n"
COLON = "served_models:\n  - name: iris\n    alias: champion\n     engine: mlflow\n"
QUOTE = "a: 1\nb: 'open\nc: 2\n"
SECRET = "a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  00\n"


def run(place: Path, **files: str) -> subprocess.CompletedProcess[str]:
    """Show the variables of a host whose inventory has these files of group_vars/all."""
    variables = place / "group_vars/all"
    variables.mkdir(parents=True)
    (place / "hosts.yml").write_text("all: {hosts: {here: {}}}\n")
    for name, text in files.items():
        (variables / f"{name}.yml").write_text(text)
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(place), "--host", "here"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = plain | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_mistake_names_file_line_and_excerpt(tmp_path: Path) -> None:
    done = run(tmp_path, models=COLON, platform="x: 1\n")
    assert done.returncode != 0
    assert (
        f"{tmp_path}/group_vars/all/models.yml, line 4, column 12: mapping values are not allowed here" in done.stderr
    )
    assert "3      alias: champion\n4       engine: mlflow\n              ^" in done.stderr
    assert done.stderr.count("column 12") == 1


def test_what_is_right_is_read(tmp_path: Path) -> None:
    done = run(tmp_path, models="served_models: [{name: iris}]\n", platform="x: '{{ 1 + 1 }}'\n")
    assert done.returncode == 0, done.stderr
    assert '"name": "iris"' in done.stdout


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (TAB, 2, "Indent with spaces"),
        (COLON, 4, "Keys of one entry begin in the same column"),
        ("a: b: c\n", 1, "stands in quotes"),
        (QUOTE, 4, "A quote is not closed"),
        ("a: [1, 2\nb: 3\n", 2, "^"),
        ('a: "\\d"\n', 1, "single quotes"),
        ("a: *x\n", 1, "begins with *"),
        ("a: @x\n", 1, "stands in quotes"),
        ("a: 1\nb: \x07\n", 2, "'\\x07' is not allowed"),
        ("a: 1\nb\nc: 2\n", 3, "A key ends with a colon"),
        ("a:\n  - 1\n b: 2\n", 3, "indentation"),
    ],
)
def test_every_mistake_has_its_line_and_a_way_out(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = tmp_path / "models.yml"
    file.write_text(text)
    said = named_vars.described(str(file).encode(), ValueError("no"))
    assert said.startswith(f"{file}, line {line}, column ")
    assert words in said


def test_the_sign_stands_below_the_column(tmp_path: Path) -> None:
    file = tmp_path / "models.yml"
    file.write_text("a: 1\n" * 9 + "b: c: d\n")
    shown = named_vars.described(str(file), ValueError()).splitlines()
    sign = next(number for number, row in enumerate(shown) if row.strip() == "^")
    assert shown[sign - 1] == "10  b: c: d"
    assert shown[sign - 1][shown[sign].index("^")] == ":"
    assert [row[:2] for row in shown[sign - 3 : sign]] == [" 8", " 9", "10"]


def test_other_errors_keep_their_words(tmp_path: Path) -> None:
    file = tmp_path / "secret.yml"
    file.write_text(SECRET)
    assert named_vars.described(str(file), ValueError("no password")) == f"{file}: no password"
    assert "cannot be read" in named_vars.described(str(tmp_path / "away.yml"), ValueError())
