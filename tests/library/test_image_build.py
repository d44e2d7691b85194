"""The module image_build: what decides that an image is built anew, and the context that the engine gets."""

import base64
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

from library import image_build as module

DOCKERFILE = "FROM base:1\nCOPY a.txt /\n"


def item(dest: str, **what: Any) -> dict[str, Any]:
    return {
        "dest": dest,
        "content": None,
        "archive": None,
        "remote_src": None,
        "follow": True,
        "executable": False,
        **what,
    }


def archive(**files: str) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/b.txt").write_text("b")
    (tmp_path / "tree/run").write_text("#!/bin/sh\n")
    (tmp_path / "tree/run").chmod(0o755)
    return tmp_path / "tree"


def test_everything_that_goes_in_decides(directory: Path) -> None:
    def digests() -> list[str]:
        files = [item("a.txt", content="a"), item("tree", remote_src=str(directory)), item("p", archive=archive(m="1"))]
        base = module.digest(DOCKERFILE, ["sha256:1"], ["x"], files)
        return [
            base,
            module.digest(DOCKERFILE + "RUN true\n", ["sha256:1"], ["x"], files),
            module.digest(DOCKERFILE, ["sha256:2"], ["x"], files),
            module.digest(DOCKERFILE, ["sha256:1"], ["y"], files),
            module.digest(DOCKERFILE, ["sha256:1"], ["x"], [item("a.txt", content="A"), *files[1:]]),
            module.digest(DOCKERFILE, ["sha256:1"], ["x"], [item("b.txt", content="a"), *files[1:]]),
            module.digest(DOCKERFILE, ["sha256:1"], ["x"], [item("a.txt", content="a", executable=True), *files[1:]]),
            module.digest(DOCKERFILE, ["sha256:1"], ["x"], [*files[:2], item("p", archive=archive(m="2"))]),
        ]

    first = digests()
    assert len(set(first)) == len(first)
    assert digests() == first
    (directory / "deep/b.txt").write_text("c")
    assert digests()[0] != first[0]


def test_times_and_the_place_of_a_directory_do_not_decide(directory: Path, tmp_path: Path) -> None:
    before = module.digest(DOCKERFILE, [], None, [item("tree", remote_src=str(directory))])
    os.utime(directory / "run", (1, 1))
    moved = directory.rename(tmp_path / "elsewhere")
    assert module.digest(DOCKERFILE, [], None, [item("tree", remote_src=str(moved))]) == before


def test_the_context_holds_every_file_with_its_mode(directory: Path) -> None:
    buffer = io.BytesIO()
    files = [
        item("a.txt", content="ä"),
        item("entry", content="x", executable=True),
        item("tree", remote_src=str(directory)),
        item("pack/", archive=archive(**{"m.py": "1"})),
        item("ca", remote_src="/nonexistent"),
    ]
    module.write_context(buffer, DOCKERFILE, files)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        modes = {member.name: oct(member.mode) for member in tar.getmembers()}
        content = tar.extractfile("a.txt")
        assert content
        assert content.read().decode() == "ä"
    assert modes == {
        "Dockerfile": "0o644",
        "a.txt": "0o644",
        "entry": "0o755",
        "tree/deep/b.txt": "0o644",
        "tree/run": "0o755",
        "pack/m.py": "0o644",
        # COPY of a directory that is not there would end the build.
        "ca/.empty": "0o644",
    }


def test_a_link_in_what_somebody_else_wrote_does_not_bring_in_a_file_of_the_host(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s")
    (directory / "link").symlink_to(tmp_path / "secret")
    (directory / "linked").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(directory / "pipe")
    kept = [name for name, *_ in module.entries([item("t", remote_src=str(directory), follow=False)])]
    assert kept == ["t/deep/b.txt", "t/run"]
    # Certificates of the host are often links.
    followed = [name for name, *_ in module.entries([item("t", remote_src=str(directory))])]
    assert followed == ["t/deep/b.txt", "t/link", "t/run"]


def test_nobody_gains_rights_in_an_image(directory: Path) -> None:
    (directory / "run").chmod(0o6777)
    buffer = io.BytesIO()
    module.write_context(buffer, DOCKERFILE, [item("t", remote_src=str(directory))])
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        assert {(member.mode, member.uid, member.gid) for member in tar.getmembers()} == {(0o644, 0, 0), (0o755, 0, 0)}


@pytest.mark.parametrize(
    ("dockerfile", "parents"),
    [
        ("FROM base:1\nRUN true\n", ["base:1"]),
        ("from a AS x\nFROM b:2 AS y\n", ["a", "b:2"]),
        ("ARG PARENT\nFROM ${PARENT}\n", []),
        ("FROM scratch\nADD root.tar /\n", []),
    ],
)
def test_images_that_a_dockerfile_starts_from(dockerfile: str, parents: list[str]) -> None:
    assert module.parents_of(dockerfile) == parents


class FakeEngine:
    """An engine whose build goes as it is told."""

    def __init__(self, steps: list[dict[str, str]]) -> None:
        self.steps = steps
        self.asked: dict[str, Any] = {}

    def build(self, _context: object, options: dict[str, Any]) -> list[dict[str, str]]:
        self.asked = options
        return self.steps


def parameters(**changes: Any) -> dict[str, Any]:
    known = {"ref": "x:1", "dockerfile": DOCKERFILE, "files": [], "network": "host", "args": {}}
    return {**known, **changes}


def test_a_failed_step_is_an_error_with_the_end_of_the_log() -> None:
    steps = [{"stream": f"line {number}\n"} for number in range(100)] + [{"error": "exit code 7"}]
    with pytest.raises(module.BuildError, match="exit code 7") as caught:
        module.build(FakeEngine(steps), parameters(), "d")
    assert caught.value.log.splitlines() == [f"line {number}" for number in range(60, 100)]


def test_proxies_of_the_host_and_the_digest_reach_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    engine = FakeEngine([{"stream": "done"}])
    module.build(engine, parameters(args={"N": 1}), "the-digest")
    assert engine.asked["buildargs"]["HTTPS_PROXY"] == "http://proxy:3128"
    assert engine.asked["buildargs"]["N"] == "1"
    assert engine.asked["labels"] == {module.DIGEST_LABEL: "the-digest"}


def test_a_build_without_a_network_gets_no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:password@proxy:3128")
    engine = FakeEngine([{"stream": "done"}])
    module.build(engine, parameters(network="none"), "d")
    assert engine.asked["networkmode"] == "none"
    assert engine.asked["buildargs"] == {}


class Renewing:
    """An engine with one image, whose build and whose apt are simulated."""

    def __init__(self, label: str, apt: str = "complete\n", code: int = 0) -> None:
        self.label = label
        self.apt = apt
        self.code = code
        self.asked = 0
        self.built: list[dict[str, Any]] = []

    def image(self, ref: str) -> dict[str, Any]:
        identity = f"sha256:{len(self.built)}"
        return {"Id": identity, "RepoTags": [ref], "Config": {"Labels": {module.DIGEST_LABEL: self.label}}}

    def run(self, _: dict[str, Any]) -> tuple[int, str, str]:
        self.asked += 1
        return self.code, self.apt, "E: no network"

    def build(self, _: Any, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.built.append(options)
        yield {"stream": "done"}


NEWER = "Inst haproxy [3.0-1] (3.0-2 Debian-Security:13/stable-security [amd64])\ncomplete\n"
SAME = module.digest("FROM scratch\n", [], None, [])


@pytest.fixture
def renewed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run the module on a simulated engine and return its result."""

    def call(engine: Renewing, renew: str, *, check: bool = False) -> dict[str, Any]:
        monkeypatch.setattr(module, "Engine", lambda *_: engine)
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy")
        given = {"ref": "ours/edge:3.0", "dockerfile": "FROM scratch\n", "renew": renew, "_ansible_check_mode": check}
        with patch_module_args(given), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return call


@pytest.mark.parametrize(
    ("label", "apt", "renew", "asked", "built"),
    [
        (SAME, NEWER, "never", 0, []),
        (SAME, NEWER, "outdated", 1, [1]),
        (SAME, "complete\n", "outdated", 1, []),
        (SAME, "complete\n", "always", 0, [1]),
        # What goes in has changed anyway; the packages are fetched anew in an update, and else where the engine has kept none.
        ("other", NEWER, "never", 0, [0]),
        ("other", NEWER, "outdated", 0, [1]),
    ],
)
def test_an_image_is_renewed_only_where_debian_has_newer_packages(
    label: str,
    apt: str,
    renew: str,
    asked: int,
    built: list[int],
    renewed: Callable[..., dict[str, Any]],
) -> None:
    engine = Renewing(label, apt)
    result = renewed(engine, renew)
    assert (engine.asked, [options["nocache"] for options in engine.built]) == (asked, built)
    assert result["changed"] == bool(built)
    assert result["newer"] == (["haproxy 3.0-1 -> 3.0-2 (security)"] if asked and apt == NEWER else [])


def test_where_debian_does_not_answer_nothing_is_called_current(renewed: Callable[..., dict[str, Any]]) -> None:
    engine = Renewing(SAME, code=100)
    result = renewed(engine, "outdated")
    assert "apt ended with 100: E: no network" in result["msg"]
    assert engine.built == []


def test_a_dry_run_asks_and_builds_nothing(renewed: Callable[..., dict[str, Any]]) -> None:
    engine = Renewing(SAME, NEWER)
    result = renewed(engine, "outdated", check=True)
    assert (result["changed"], result["image"], engine.built) == (True, "", [])
    assert "haproxy 3.0-1 -> 3.0-2" in result["diff"]["after"]


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("\x1b[91merror\x1b[0m\x1b[91m:\x1b[0m\x1b[91m no such package\n\x1b[0m", "error: no such package\n"),
        ("Step 1/2\r\n", "Step 1/2\n"),
        ("10 %\r50 %\rdone\nnext", "done\nnext"),
        ("\x1b]0;title\x07text\x1b[?25l\x1b[2K", "text"),
        ("plain", "plain"),
    ],
)
def test_what_a_program_said_is_plain_lines(said: str, left: str) -> None:
    assert module.words(said) == left


def test_a_painted_error_is_one_line() -> None:
    pieces = ["\x1b[91merror\x1b[0m", "\x1b[91m:\x1b[0m", "\x1b[91m no such package\n\x1b[0m"]
    steps = [{"stream": piece} for piece in pieces] + [
        {"error": "The command returned a non-zero code: \x1b[1m1\x1b[0m"}
    ]
    with pytest.raises(module.BuildError) as caught:
        module.build(FakeEngine(steps), parameters(), "d")
    assert caught.value.log == "error: no such package"
    assert str(caught.value) == "The command returned a non-zero code: 1"
