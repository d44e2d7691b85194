"""The packages of a model: fetched from an index and unpacked, with everything that a hostile one can bring, and nothing of it executed."""

from __future__ import annotations

import ensurepip
import hashlib
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roles.serving.files import packages

# What a hostile package executes wherever it is let.
SPY = "import os; open(os.environ['SPY'], 'a').write('executed\\n')\n"


class Index:
    """A package index with what the tests put there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []

    def add(self, name: str, version: str, files: dict[str, str], needs: str = "", modes: int = 0o644) -> Path:
        """Add a wheel, which need not be a good one."""
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
            f"Requires-Dist: {needs}\n" if needs else ""
        )
        wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        files = files | {f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
        files[f"{info}/RECORD"] = "".join(
            f"{path},,\n" for path in [*files, f"{info}/RECORD", "../../../../../etc/passwd"]
        )
        directory = self.root / name.replace("_", "-")
        directory.mkdir(exist_ok=True)
        path = directory / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in files.items():
                entry = zipfile.ZipInfo(member)
                entry.external_attr = (stat.S_IFREG | modes) << 16
                archive.writestr(entry, content)
        return path

    def add_source(self, name: str, files: dict[str, str] | None = None) -> Path:
        """Add a source distribution, whose build executes what it brings."""
        (self.root / name).mkdir()
        with tarfile.open(self.root / name / f"{name}-1.0.tar.gz", "w:gz") as archive:
            for path, text in {
                "setup.py": SPY,
                "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
                **(files or {}),
            }.items():
                member = tarfile.TarInfo(f"{name}-1.0/{path}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        return self.root / name / f"{name}-1.0.tar.gz"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    found = Index(tmp_path / "index")
    found.root.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            found.asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(found.root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}/")
        yield found
        server.shutdown()


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there as soon as something of a package was executed."""
    path = tmp_path / "spy"
    monkeypatch.setenv("SPY", str(path))
    return path


SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environments of the runtime image, with one package, and where those of a model go."""
    root = tmp_path_factory.mktemp("environments")
    for name in ("runtime", "model"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / name], check=True)
    (root / "model" / SITE / "packages.pth").write_text(f"import site; site.addsitedir('{root}/packages/{SITE}')\n")
    info = root / "runtime" / SITE / "six-1.17.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: six\nVersion: 1.17.0\n")
    return root


@pytest.fixture(autouse=True)
def place(environments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the model's packages come to lie; everything else is as the containers have it."""
    (environments / "packages" / SITE).mkdir(parents=True)
    (tmp_path / "fetched").mkdir()
    monkeypatch.setattr(packages, "FETCHED", tmp_path / "fetched")
    monkeypatch.setattr(packages, "PACKAGES", environments / "packages")
    (tmp_path / "built").mkdir()
    monkeypatch.setattr(packages, "BUILT", tmp_path / "built")
    monkeypatch.setattr(packages, "RUNTIME_PYTHON", str(environments / "runtime/bin/python"))
    monkeypatch.setattr(packages, "MODEL_PYTHON", str(environments / "model/bin/python"))
    monkeypatch.setattr(packages, "PYTHON", sys.executable)
    bundled = Path(ensurepip.__file__).parent / "_bundled"
    if bundled.is_dir():
        monkeypatch.setattr(packages, "PIP_WHEELS", bundled)
    # Nothing of this machine's own configuration.
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield environments / "packages" / SITE
    shutil.rmtree(environments / "packages")


def bring(*requirements: str) -> None:
    (packages.FETCHED / "requirements.txt").write_text("\n".join([*requirements, ""]))
    packages.fetch()
    packages.install()


def served(code: str) -> str:
    """What the Python that serves the model says."""
    return subprocess.run(
        [packages.MODEL_PYTHON, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_nothing_of_a_package_is_executed(index: Index, place: Path, spy: Path) -> None:
    evil = {
        "evil.pth": f"exec({SPY!r})\n",
        "sitecustomize.py": SPY,
        "usercustomize.py": SPY,
        "compileall.py": SPY,
        "py_compile.py": SPY,
    }
    index.add(
        "evil",
        "1.0",
        evil | {"evil.py": "x = 1\n", "evil-1.0.dist-info/entry_points.txt": "[console_scripts]\nuv = evil:x\n"},
    )
    bring("evil==1.0")
    assert (place / "evil.pth").exists()
    assert not spy.exists()
    # The net holds: whoever serves the model does execute it.
    served("pass")
    assert spy.exists()


def test_files_are_compiled_by_content_and_one_that_cannot_be_stays(index: Index, place: Path) -> None:
    index.add(
        "old", "1.0", {"good.py": "x = 1\n", "python2.py": "print 'x'\n", "deep.py": "x = " + "(" * 5000 + ")" * 5000}
    )
    bring("old==1.0")
    compiled = sorted(path.name.partition(".")[0] for path in (place / "__pycache__").iterdir())
    assert compiled == ["good"]
    (path,) = (place / "__pycache__").iterdir()
    # A hash that Python does not compare: times and owners change on the way into the image.
    assert path.read_bytes()[4:8] == b"\1\0\0\0"
    assert {"python2.py", "deep.py"} < {path.name for path in place.iterdir()}


@pytest.mark.parametrize("needs", [False, True])
def test_a_package_without_a_wheel_is_refused_with_its_name_and_a_way_out(index: Index, spy: Path, needs: bool) -> None:
    index.add_source("onlysource")
    index.add("other", "1.0", {"other.py": ""}, needs="onlysource")
    with pytest.raises(packages.PackagesError) as refusal:
        bring("other==1.0" if needs else "onlysource==1.0")
    assert "\nonlysource: no wheel fits. Only wheels are installed" in str(refusal.value)
    assert "pip_requirements=[...]" in str(refusal.value)
    assert "runtime_image_index_url" in str(refusal.value)
    assert f'build_from_source: ["onlysource=={"VERSION" if needs else "1.0"}"]' in str(refusal.value)
    assert not spy.exists()
    assert not [path for path in index.asked if path.endswith(".tar.gz")]


def test_what_the_index_does_not_have_is_named(index: Index) -> None:
    index.add("known", "1.0", {"known.py": ""})
    with pytest.raises(packages.PackagesError, match=r"there is no version of known==2\.0"):
        bring("known==2.0")
    with pytest.raises(packages.PackagesError, match="unknown was not found"):
        packages.pins(_requirements("unknown==1.0"))


def _requirements(*lines: str) -> Path:
    path = packages.FETCHED / "requirements.txt"
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.mark.usefixtures("index")
def test_an_index_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/")
    with pytest.raises(packages.PackagesError, match=r"http://127.0.0.1:9/"):
        packages.pins(_requirements("unknown==1.0"))


def test_what_the_runtime_has_is_not_installed_again_and_the_index_not_asked(index: Index, place: Path) -> None:
    bring("six==1.17.0")
    assert list(place.iterdir()) == []
    assert index.asked == []


def test_another_version_comes_with_what_it_needs(index: Index) -> None:
    index.add("seven", "7.0", {"seven.py": "y = 7\n"})
    entry = {"six-1.16.0.dist-info/entry_points.txt": "[console_scripts]\nsix = six:run\n"}
    index.add("six", "1.16.0", {"six.py": "x = 16\ndef run(): print(x)\n"} | entry, needs="seven")
    bring("six==1.16.0")
    assert (
        served("import six, seven, importlib.metadata as m; print(six.x, seven.y, m.version('six'))") == "16 7 1.16.0"
    )
    script = packages.PACKAGES / "bin/six"
    assert script.read_text().startswith(f"#!{packages.MODEL_PYTHON}\n")
    assert subprocess.run([script], capture_output=True, text=True, check=True).stdout == "16\n"


def test_a_file_with_another_hash_than_the_model_asks_for_is_refused(index: Index, place: Path) -> None:
    index.add("six", "1.0", {"six.py": ""})
    index.add("seven", "1.0", {"seven.py": ""})
    with pytest.raises(packages.PackagesError, match=r"Hash mismatch for `six==1\.0`"):
        bring("seven==1.0", f"six==1.0 --hash=sha256:{'0' * 64} --hash=sha256:{'1' * 64}")
    assert list(place.iterdir()) == []


def test_hashes_belong_to_their_package() -> None:
    text = "A_b==1 --hash=sha256:1 --hash sha256:2\nc==2\n\nd[x]==3 --hash=sha256:3\n"
    assert packages.hashes(text) == {"a-b": " --hash=sha256:1 --hash sha256:2", "d": " --hash=sha256:3"}


@pytest.mark.parametrize(
    "name", ["../../pwned.py", "/pwned.py", "a/../../pwned.py", "..\\pwned.py", "evil-1.0.data/data/../../../pwned.py"]
)
def test_a_wheel_that_leads_out_of_its_place_is_refused(index: Index, name: str) -> None:
    wheel = index.add("evil", "1.0", {name: "x = 1\n"})
    with pytest.raises(packages.PackagesError, match=r"evil-1.0-py3-none-any.whl holds .*, which leads out of it"):
        packages.check([wheel], 10**9)


def test_scripts_and_data_stay_in_their_place_and_gain_nothing(index: Index, environments: Path) -> None:
    data = "evil-1.0.data"
    files = {
        f"{data}/scripts/root": "#!python\n",
        f"{data}/data/opt/file": "x",
        f"{data}/data/pyvenv.cfg": "home = /nowhere\n",
    }
    index.add("evil", "1.0", files, modes=0o6777)
    before = (environments / "model/pyvenv.cfg").read_text()
    bring("evil==1.0")
    assert (packages.PACKAGES / "opt/file").exists()
    assert (packages.PACKAGES / "bin/root").exists()
    assert not [path for path in packages.PACKAGES.rglob("*") if path.lstat().st_mode & 0o6000 or path.is_symlink()]
    assert (environments / "model/pyvenv.cfg").read_text() == before


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"PK no")
    with pytest.raises(packages.PackagesError, match=r"x.whl is no wheel"):
        packages.check([tmp_path / "x.whl"], 10**9)


def test_more_than_the_disk_can_take_is_refused(index: Index) -> None:
    wheel = index.add("big", "1.0", {"big.py": "x" * 1000})
    packages.check([wheel], 10**6)
    with pytest.raises(packages.PackagesError, match="the disk has room for 4000"):
        packages.check([wheel], 4000)


def test_a_command_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "SECONDS", 0.1)
    with pytest.raises(packages.PackagesError, match=r"sleep was not done after 0.1 seconds"):
        packages.run("sleep", "60")


@pytest.mark.usefixtures("index")
def test_the_program_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    _requirements("unknown==1.0")
    monkeypatch.setattr(sys, "argv", ["-c", "fetch"])
    with pytest.raises(SystemExit, match="unknown was not found"):
        packages.main()


# A build of its own, so that no test needs setuptools: it writes a wheel as a builder does, and says that it ran.
BACKEND = """
import os, zipfile
open(os.environ["SPY"], "a").write("executed\\n")
def build_wheel(directory, config_settings=None, metadata_directory=None):
    info, name = "onlysource-1.0.dist-info", "onlysource-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("onlysource.py", "import tool" if TOOL else "x = 1")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: onlysource\\nVersion: 1.0\\nRequires-Dist: seven\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


def project(requires: str = "[]", backend: str = BACKEND.replace("TOOL", "False")) -> dict[str, str]:
    """What a source distribution with a build of its own holds."""
    system = f'[build-system]\nrequires = {requires}\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    return {"pyproject.toml": system, "backend.py": backend}


def allow(*sources: str, requirements: str = "onlysource==1.0") -> None:
    (packages.FETCHED / "sources.txt").write_text("\n".join([*sources, ""]))
    (packages.FETCHED / "requirements.txt").write_text(f"{requirements}\n")


def test_what_is_allowed_is_built_and_installed_with_what_it_needs(index: Index, place: Path, spy: Path) -> None:
    index.add_source("onlysource", project('["tool>=1"]', "import tool\n" + BACKEND.replace("TOOL", "True")))
    index.add("tool", "1.5", {"tool.py": ""})
    index.add("seven", "7.0", {"seven.py": ""})
    allow("OnlySource==1.0")
    packages.fetch_sources()
    # Fetching executes nothing.
    assert not spy.exists()
    assert (packages.FETCHED / "sources/onlysource/wheels/tool-1.5-py3-none-any.whl").exists()
    packages.build_sources()
    assert spy.exists()
    packages.collect()
    packages.fetch()
    packages.install()
    assert (place / "onlysource.py").read_text() == "import tool"
    assert (place / "seven.py").exists()
    # What the build needs is no package of the model.
    assert not (place / "tool.py").exists()


@pytest.mark.parametrize(
    ("requires", "said"),
    [
        (
            '["onlytool"]',
            "onlysource-1.0.tar.gz cannot be built: what its build needs (onlytool) cannot be had as wheels",
        ),
        ('["nowhere"]', "what its build needs (nowhere) cannot be had as wheels"),
        ('["a @ http://127.0.0.1/a.tar.gz"]', "'a @ http://127.0.0.1/a.tar.gz' for its build; only names of packages"),
        ('["--index-url=http://127.0.0.1/"]', "'--index-url=http://127.0.0.1/' for its build"),
        ('["a\\n-r /etc/passwd"]', "for its build; only names of packages with versions are allowed"),
        ('["./a"]', "'./a' for its build"),
        ('"a"', "for its build"),
        ("[1]", "'1' for its build"),
        ("[", "is no source distribution that can be read"),
    ],
)
def test_what_a_build_needs_are_wheels(index: Index, spy: Path, requires: str, said: str) -> None:
    index.add_source("onlytool")
    index.add_source("onlysource", project(requires))
    allow("onlysource==1.0")
    with pytest.raises(packages.PackagesError) as refusal:
        packages.fetch_sources()
    assert said in str(refusal.value)
    assert "runtime_image_index_url" in str(refusal.value) or "can be read" in said
    assert not spy.exists()


def test_without_a_statement_setuptools_builds(index: Index) -> None:
    assert packages.builders(index.add_source("onlysource")) == ["setuptools>=40.8.0", "wheel"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08" + b"\0" * 40])
def test_a_source_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a-1.0.tar.gz").write_bytes(content)
    with pytest.raises(packages.PackagesError, match=r"a-1\.0\.tar\.gz is no source distribution that can be read"):
        packages.builders(tmp_path / "a-1.0.tar.gz")


def test_a_source_that_unpacks_to_more_than_there_is_room_for_is_refused(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "LARGEST_UNPACKED", 100)
    archive = index.add_source("onlysource", {"large.txt": "x" * 101})
    with pytest.raises(packages.PackagesError, match="becomes more than 100 bytes"):
        packages.builders(archive)


def test_another_source_than_the_model_asks_for_is_refused(index: Index, place: Path, spy: Path) -> None:
    content = index.add_source("onlysource", project()).read_bytes()
    index.add("seven", "7.0", {"seven.py": ""})
    allow("onlysource==1.0", requirements=f"onlysource==1.0 --hash=sha256:{'0' * 64}")
    with pytest.raises(packages.PackagesError, match="which is none of those that the model asks for"):
        packages.fetch_sources()
    assert not spy.exists()
    shutil.rmtree(packages.FETCHED / "sources")
    own = hashlib.sha256(content).hexdigest()
    allow("onlysource==1.0", requirements=f"onlysource==1.0 --hash=sha256:{own}")
    packages.fetch_sources()
    packages.build_sources()
    packages.collect()
    packages.fetch()
    packages.install()
    assert (place / "onlysource.py").exists()


@pytest.mark.parametrize("source", ["onlysource==2.0", "another==1.0"])
def test_a_source_that_the_index_does_not_have_is_named(index: Index, source: str) -> None:
    index.add_source("onlysource", project())
    allow(source)
    with pytest.raises(packages.PackagesError) as refusal:
        packages.fetch_sources()
    assert source in str(refusal.value) or "404" in str(refusal.value)


def test_what_is_not_allowed_is_still_refused(index: Index, spy: Path) -> None:
    index.add_source("onlysource", project())
    index.add_source("another", project())
    allow("another==1.0")
    with pytest.raises(packages.PackagesError, match="onlysource: no wheel fits"):
        packages.fetch()
    assert not spy.exists()


def test_a_build_that_fails_shows_what_it_said(index: Index) -> None:
    index.add_source("onlysource", project(backend="raise SystemExit('there is no compiler')"))
    allow("onlysource==1.0")
    packages.fetch_sources()
    with pytest.raises(packages.PackagesError, match=r"(?s)cannot be built without a network.*there is no compiler"):
        packages.build_sources()


def test_of_what_a_build_leaves_only_the_wheel_that_was_asked_for_is_taken(tmp_path: Path) -> None:
    allow("onlysource==1.0")
    wheels = packages.BUILT / "wheels"
    wheels.mkdir()
    (packages.FETCHED / "built").mkdir()
    (wheels / "six-1.17.0-py3-none-any.whl").write_bytes(b"")
    (wheels / "onlysource-2.0-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(packages.PackagesError, match="left 0 wheels"):
        packages.collect()
    wheel = wheels / "onlysource-1.0-py3-none-any.whl"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    wheel.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        packages.collect()
    wheel.unlink()
    os.mkfifo(wheel)
    with pytest.raises(packages.PackagesError, match="is no file"):
        packages.collect()
    wheel.unlink()
    wheel.write_bytes(b"good")
    packages.collect()
    assert [path.name for path in (packages.FETCHED / "built").iterdir()] == [wheel.name]


def test_the_password_of_an_index_goes_to_its_own_host_alone() -> None:
    index = "https://user:secret@index.example/simple/"
    same, other = "https://index.example/files/a-1.0.tar.gz", "https://elsewhere.example/a-1.0.tar.gz"
    assert packages.credentials_of(index, same) == "https://user:secret@index.example/files/a-1.0.tar.gz"
    assert packages.credentials_of(index, other) == other
    with pytest.raises(packages.PackagesError, match="is no address of a package index"):
        packages.ask("file:///etc/passwd", 10)


def test_the_index_is_that_of_pip_where_none_is_named() -> None:
    assert packages.default_index().startswith("https://")
