"""The check of known vulnerabilities: what it asks, what it calls green, and that nothing unknown is green."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools import audit as module

TODAY = dt.date(2026, 11, 28)
KNOWN = {"id": "PYSEC-1", "aliases": ["CVE-2026-1", "GHSA-x"], "fix_versions": ["2.1"]}
PINS = {("a", "1"): ["one.txt"], ("b-c", "2"): ["one.txt", "two.txt"]}


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": list(packages), "fixes": []}


def clean(name: str, version: str, *vulns: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": version, "vulns": list(vulns)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with two locks."""
    for name, text in {
        "a.in": "a\n",
        "a.txt": "# comment==9\na==1 ; python_full_version < '3' \\\n    --hash=sha256:0\nB_c[x]==2 \\\n    --hash=sha256:0\n",
        "deep/b.in": "a\n",
        "deep/b.txt": "a==1.5 \\\n    --hash=sha256:0\nb.c==2\n",
        "tools/audit_waivers.toml": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


class Machine:
    """Runs pip-audit and docker."""

    def __init__(
        self, vulnerable: str = "", skipped: str = "", images: str = "", apt: str = "complete\n", code: int = 0
    ) -> None:
        self.vulnerable, self.skipped, self.images, self.apt, self.code = vulnerable, skipped, images, apt, code
        self.commands: list[list[str]] = []
        self.asked: list[str] = []

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        if command[:2] == ["docker", "image"]:
            return 0, self.images, ""
        if command[:2] == ["docker", "run"]:
            return self.code, self.apt, "E: no network" if self.code else ""
        files = [command[place + 1] for place, word in enumerate(command) if word == "--requirement"]
        pins = [line.split("==") for file in files for line in Path(file).read_text().splitlines()]
        self.asked = ["==".join(pin) for pin in pins]
        skip = {"name": self.skipped, "skip_reason": "not found"}
        packages = [
            skip if name == self.skipped else clean(name, version, *([KNOWN] if name == self.vulnerable else []))
            for name, version in pins
        ]
        return 1 if self.vulnerable else 0, json.dumps(report(*packages)), "No known vulnerabilities found"


IMAGE = "abc ours/edge:3.0\n"
OUTDATED = "Inst haproxy [3.0-1] (3.0-2 Debian-Security:13/stable-security [amd64])\ncomplete\n"


def test_every_locked_package_is_asked_for_whatever_its_condition(tree: Path) -> None:
    assert module.locks(tree) == {
        ("a", "1"): ["a.txt"],
        ("b-c", "2"): ["a.txt", "deep/b.txt"],
        ("a", "1.5"): ["deep/b.txt"],
    }
    machine = Machine()
    assert module.main(["--locks-only"], machine, tree) == 0
    assert sorted(machine.asked) == ["a==1", "a==1.5", "b-c==2"]
    # No list names a package twice, which pip-audit refuses.
    assert module.lists(module.locks(tree)) == [["a==1", "b-c==2"], ["a==1.5"]]


def test_a_known_vulnerability_fails_with_its_names_its_place_and_what_mends_it(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main(["--locks-only"], Machine(vulnerable="b-c"), tree) == 1
    line = "VULNERABLE  PYSEC-1 CVE-2026-1 GHSA-x: b-c 2 in a.txt, deep/b.txt, fixed in 2.1"
    assert line in capsys.readouterr().out


def test_a_package_that_was_skipped_is_not_green(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(["--locks-only"], Machine(skipped="a"), tree) == 2
    assert "NOT LOOKED UP  a 1.5 (deep/b.txt): not found" in capsys.readouterr().out


def test_a_package_that_the_answer_leaves_out_is_not_green() -> None:
    findings, missing = module.python_findings(report(clean("a", "1")), PINS)
    assert (findings, missing) == ([], ["b-c 2 (one.txt, two.txt): no answer"])
    # Another version is another package.
    assert module.python_findings(report(clean("a", "1"), clean("b-c", "3")), PINS)[1] != []
    assert module.python_findings({}, PINS)[1] != []


@pytest.mark.parametrize("answer", [(127, "", "No such file"), (0, "", ""), (1, "{", "broken pipe")])
def test_no_report_is_not_green(answer: tuple[int, str, str]) -> None:
    findings, missing = module.audit_locks(lambda _: answer, "pip-audit", PINS)
    assert (findings, len(missing)) == ([], 1)
    assert f"pip-audit ended with {answer[0]} and no report" in missing[0]


def test_an_image_that_lacks_a_fix_of_debians_security_suite_fails(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module.main([], Machine(images=IMAGE, apt=OUTDATED), tree) == 1
    assert "debian:haproxy: haproxy 3.0-1 in ours/edge:3.0, fixed in 3.0-2: make update" in capsys.readouterr().out
    newer_but_not_for_security = OUTDATED.replace("Debian-Security:13/stable-security", "Debian:13.8/stable")
    assert module.main([], Machine(images=IMAGE, apt=newer_but_not_for_security), tree) == 0


@pytest.mark.parametrize("broken", [{"code": 100}, {"apt": ""}, {"images": ""}])
def test_images_that_cannot_be_asked_are_not_green(tree: Path, broken: dict[str, Any]) -> None:
    assert module.main([], Machine(**{"images": IMAGE, **broken}), tree) == 2


def test_an_engine_that_does_not_answer_is_not_green() -> None:
    findings, missing = module.audit_images(lambda _: (1, "", "Cannot connect to the Docker daemon"))
    assert (findings, missing) == ([], ["the images on this engine: Cannot connect to the Docker daemon"])


def test_the_question_to_an_image_starts_nothing_of_it() -> None:
    machine = Machine(images=IMAGE)
    module.audit_images(machine)
    command = machine.commands[-1]
    assert command[: command.index("--entrypoint")][:8] == [
        "docker", "run", "--rm", "--no-healthcheck", "--network", "host", "--user", "0",
    ]  # fmt: skip
    place = command.index("--entrypoint")
    assert command[place : place + 4] == ["--entrypoint", "/bin/sh", "abc", "-c"]


def finding(*names: str) -> module.Finding:
    return module.Finding(names, "a 1 in one.txt", "fixed in 2")


def waiver(name: str, days: int) -> module.Waiver:
    return module.Waiver(name, "harmless here", TODAY + dt.timedelta(days=days))


def test_a_waiver_holds_until_its_day_by_any_of_the_names() -> None:
    found = [finding("PYSEC-1", "CVE-2026-1")]
    for name in found[0].names:
        assert module.judge(found, [waiver(name, 0)], TODAY, complete=True) == []
    assert module.judge(found, [waiver("CVE-2026-2", 1)], TODAY, complete=False) != []


def test_an_expired_waiver_fails_and_covers_nothing() -> None:
    wrong = module.judge([finding("CVE-2026-1")], [waiver("CVE-2026-1", -1)], TODAY, complete=True)
    assert len(wrong) == 2
    assert "expired on 2026-11-27" in wrong[1]
    assert len(module.judge([], [waiver("CVE-2026-1", -1)], TODAY, complete=False)) == 1


def test_a_waiver_for_ever_fails() -> None:
    assert "at most 180 days" in module.judge([finding("X")], [waiver("X", 181)], TODAY, complete=True)[0]
    assert module.judge([finding("X")], [waiver("X", 180)], TODAY, complete=True) == []


def test_a_waiver_that_nothing_needs_fails_once_everything_was_looked_up() -> None:
    assert "not needed any more" in module.judge([], [waiver("X", 1)], TODAY, complete=True)[0]
    assert module.judge([], [waiver("X", 1)], TODAY, complete=False) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[waiver]", "no TOML"),
        ("[waivers]\n", "has waivers; only"),
        ('[[waiver]]\nid = "X"\nreason = "r"\n', "must have id, reason and until"),
        ('[[waiver]]\nid = "X"\nreason = " "\nuntil = 2026-12-31\n', "must have id, reason and until"),
        ('[[waiver]]\nid = "X"\nreason = "r"\nuntil = "2026-12-31"\n', "must have id, reason and until"),
        ('[[waiver]]\nid = "X"\nreason = "r"\nuntil = 2026-12-31\nall = true\n', "nothing else"),
    ],
)
def test_a_waiver_that_is_not_whole_is_refused(
    text: str, says: str, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(module.AuditError, match=says):
        module.waivers(text)
    (tree / "tools/audit_waivers.toml").write_text(text)
    assert module.main(["--locks-only"], Machine(), tree) == 1
    assert says in capsys.readouterr().out


def test_the_waivers_of_this_repository_are_whole() -> None:
    module.waivers(module.WAIVERS.read_text())
