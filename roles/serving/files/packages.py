"""Fetch the wheels that a model needs beyond its runtime image, and unpack them. Each step in a container of its own.

    packages.py fetch       with a network, and nothing of the model unpacked: the wheels go to FETCHED as they are
    packages.py install     without a network: the wheels are unpacked to PACKAGES and compiled

Neither step executes anything of a package: only wheels are taken, which need no build; uv asks a Python who it is before anything is unpacked; and
Python compiles without its module site, which would execute the packages' .pth files.

Source distributions that the inventory allows by name and version come before that:

    packages.py sources     with a network: the files as they are, and the wheels that their builds need, to FETCHED
    packages.py build       without a network: executes what they bring, and leaves wheels in BUILT, which is memory and bounded
    packages.py collect     without a network, and nothing executed: those of BUILT that were asked for go to FETCHED
"""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

FETCHED = Path("/fetched")
PACKAGES = Path("/opt/model-packages")
# Where source distributions are built.
BUILT = Path("/built")
RUNTIME_PYTHON = "/opt/mlflow/bin/python"
# What serves the model, and so what its scripts name: it finds PACKAGES before those of the runtime image.
MODEL_PYTHON = "/opt/model-env/bin/python"
PYTHON = "/usr/bin/python3"
# Debian's module venv has pip's own wheel, which runs without being installed. uv cannot download.
PIP_WHEELS = Path("/usr/share/python-wheels")
SECONDS = 900
# Unpacked here, in the build's context, and twice in the engine's storage.
COPIES = 4
WHEELLESS = re.compile(r"Wheels are required for `([^`]+)`")
WAY_OUT = (
    "Only wheels are installed, because building a source distribution executes it. Log the model again with pip_requirements=[...] of versions that "
    "have a wheel for this Python, or put a wheel of it on a package index of your own (runtime_image_index_url), or let it be built without a network: "
    "build_from_source: [{}] in the model's entry of served_models."
)
# What a source distribution may be: packed, and unpacked with all that its index says.
LARGEST_SOURCE = 256 * 2**20
LARGEST_UNPACKED = 2**31
LARGEST_PAGE = 32 * 2**20
LARGEST_TEXT = 2**20
# What builds a package that does not say what builds it.
DEFAULT_BUILDER = ["setuptools>=40.8.0", "wheel"]
BUILDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(\[[A-Za-z0-9._, -]*\])?[ \t]*([<>=!~;(][^@\n\r#]*)?", re.ASCII)


class PackagesError(Exception):
    """The packages cannot be had; the text is for whoever logged the model."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command, its complaints kept for the message."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S603 - no shell, and names come from uv
    except subprocess.TimeoutExpired as error:
        raise PackagesError(f"{command[0]} was not done after {SECONDS} seconds") from error


def normal(name: str) -> str:
    """Return the one spelling of a package's name that indexes compare."""
    return re.sub(r"[-_.]+", "-", name).lower()


def refusal(complaint: str, versions: dict[str, str]) -> str:
    """Return what uv says against the requirements, with the way out where a package has no wheel."""
    names = list(dict.fromkeys(WHEELLESS.findall(complaint)))
    if not names:
        return complaint.strip()
    options = ", ".join(f'"{name}=={versions.get(normal(name), "VERSION")}"' for name in names)
    return f"{complaint.strip()}\n{', '.join(names)}: no wheel fits. {WAY_OUT.format(options)}"


def pins(requirements: Path) -> dict[str, str]:
    """Return name and version of every package to install over the runtime image, which keeps what it has in that version."""
    done = run(
        *("uv", "pip", "install", "--dry-run", "--output-format", "json", "--no-build", "--no-cache", "--color", "never"),
        *("--python", RUNTIME_PYTHON, *built_here(), "--requirements", str(requirements)),
    )  # fmt: skip
    if done.returncode:
        raise PackagesError(refusal(done.stderr, named(requirements.read_text())))
    changes = json.loads(done.stdout)["changes"]
    return {change["name"]: change["version"] for change in changes if change["action"] != "uninstalled"}


def named(requirements: str) -> dict[str, str]:
    """Return the version of each package that the requirements name."""
    found = re.findall(r"^\s*([A-Za-z0-9._-]+)[^=\n]*==\s*([^\s;]+)", requirements, re.MULTILINE)
    return {normal(name): version for name, version in found}


def hashes(requirements: str) -> dict[str, str]:
    """Return the options --hash that the requirements have, by package."""
    found = re.findall(r"^\s*([A-Za-z0-9._-]+).*?((?:\s+--hash[ =]\S+)*)\s*$", requirements, re.MULTILINE)
    return {normal(name): options for name, options in found if options}


def fetch() -> None:
    """Write the wheels, and the versions to install with the hashes that the model asks for."""
    requirements, wheels = FETCHED / "requirements.txt", FETCHED / "wheels"
    wheels.mkdir()
    # The hash of a source distribution was compared when it came; its wheel has another one.
    built = {normal(name) for name, _ in allowed_sources()}
    known = {name: options for name, options in hashes(requirements.read_text()).items() if name not in built}
    text = re.sub(r"\s+--hash[ =]\S+", "", requirements.read_text()) if built else requirements.read_text()
    requirements.write_text(text)
    wanted = pins(requirements)
    lines = [f"{name}=={version}{known.get(normal(name), '')}\n" for name, version in sorted(wanted.items())]
    (FETCHED / "pins.txt").write_text("".join(lines))
    download([f"{name}=={version}" for name, version in sorted(wanted.items())], wheels)


def download(wanted: list[str], wheels: Path) -> None:
    """Fetch the wheels of these versions as they are."""
    if not wanted:
        return
    done = run(
        *(PYTHON, "-I", pip(), "download", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", *built_here(), "--dest", str(wheels), *wanted),
    )  # fmt: skip
    if done.returncode:
        raise PackagesError(done.stderr.strip())


def default_index() -> str:
    """Return the address of the index that pip asks where nothing else is said."""
    program = f"import sys; sys.path.insert(0, {str(Path(pip()).parent)!r}); from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    return run(PYTHON, "-I", "-c", program).stdout.strip()


def built_here() -> tuple[str, ...]:
    """Return the options by which uv and pip find the wheels that were built."""
    wheels = FETCHED / "built"
    return ("--find-links", str(wheels)) if wheels.exists() else ()


def pip() -> str:
    """Return the program pip in its wheel."""
    return f"{next(PIP_WHEELS.glob('pip-*.whl'))}/pip"


def allowed_sources() -> list[tuple[str, str]]:
    """Return name and version of what may be built from source."""
    file = FETCHED / "sources.txt"
    lines = file.read_text().split() if file.exists() else []
    return [(name, version) for name, _, version in (line.partition("==") for line in lines)]


class Links(html.parser.HTMLParser):
    """The addresses on a page of an index."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keep where an <a> leads."""
        self.found += [value for key, value in attributes if (tag, key) == ("a", "href") and value]


def ask(url: str, largest: int) -> tuple[bytes, str]:
    """Return what lies at the address, and the address after all redirections. The password in an address is for its own host alone."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise PackagesError(f"{url} is no address of a package index")
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl())  # noqa: S310 - http(s) alone
    if parts.username:
        secret = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - http(s) alone
            content: bytes = answer.read(largest + 1)
            where: str = answer.url
    except (OSError, ValueError) as error:
        raise PackagesError(f"{request.full_url}: {error}") from error
    if len(content) > largest:
        raise PackagesError(f"{request.full_url} has more than {largest} bytes, which is more than a build takes")
    return content, where


def source_of(name: str, version: str) -> tuple[str, bytes]:
    """Return name and content of the source distribution of a version. Asked directly: pip executes what it only has to fetch."""
    index = os.environ.get("PIP_INDEX_URL") or default_index()
    page, where = ask(f"{index.rstrip('/')}/{normal(name)}/", LARGEST_PAGE)
    links = Links()
    links.feed(page.decode(errors="replace"))
    for link in links.found:
        url = urllib.parse.urljoin(where, link)
        parts = urllib.parse.urlsplit(url)
        file = PurePosixPath(urllib.parse.unquote(parts.path)).name
        stem, dash, found = file.removesuffix(".tar.gz").rpartition("-")
        if file.endswith(".tar.gz") and dash and normal(stem) == normal(name) and found == version:
            content, _ = ask(credentials_of(index, url), LARGEST_SOURCE)
            digest = hashlib.sha256(content).hexdigest()
            said = parts.fragment.removeprefix("sha256=")
            if parts.fragment.startswith("sha256=") and said != digest:
                raise PackagesError(f"{file} has the SHA-256 {digest}, and the index says {said}")
            return file, content
    raise PackagesError(
        f"build_from_source names {name}=={version}, and the index has no {normal(name)}-{version}.tar.gz. Correct it in the entry of served_models."
    )


def credentials_of(index: str, url: str) -> str:
    """Return the address of a file with the password of its index, if it is on the same host."""
    own, there = urllib.parse.urlsplit(index), urllib.parse.urlsplit(url)
    secret, _, host = own.netloc.rpartition("@")
    return there._replace(netloc=f"{secret}@{host}").geturl() if secret and there.netloc == host else url


def builders(archive: Path) -> list[str]:
    """Return the requirements of a build, as the source distribution states them; read without unpacking it."""
    size, text = 0, b""
    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                size += member.size
                if size > LARGEST_UNPACKED:
                    raise PackagesError(
                        f"{archive.name} becomes more than {LARGEST_UNPACKED} bytes, which is more than a build takes"
                    )
                parts = PurePosixPath(member.name).parts
                if (
                    member.isfile()
                    and len(parts) == len(("package-version", "pyproject.toml"))
                    and parts[1] == "pyproject.toml"
                ):
                    file = members.extractfile(member)
                    text = file.read(LARGEST_TEXT) if file else b""
        system = tomllib.loads(text.decode()).get("build-system", {})
        wanted = system.get("requires", DEFAULT_BUILDER)
    except (tarfile.TarError, OSError, EOFError, ValueError, AttributeError, RecursionError) as error:
        raise PackagesError(f"{archive.name} is no source distribution that can be read: {error}") from error
    lines: list[object] = wanted if isinstance(wanted, list) else [{"requires": wanted}]
    names: list[str] = []
    for line in lines:
        if not isinstance(line, str) or not BUILDER.fullmatch(line.strip()):
            raise PackagesError(
                f"{archive.name} wants {str(line)[:200]!r} for its build; only names of packages with versions are allowed. It cannot be built here: put a "
                "wheel of it on a package index of your own (runtime_image_index_url)."
            )
        names.append(line.strip())
    return names


def fetch_sources() -> None:
    """Write each source distribution that may be built, and the wheels that its build needs."""
    asked_for = hashes((FETCHED / "requirements.txt").read_text())
    (FETCHED / "built").mkdir(exist_ok=True)
    for name, version in allowed_sources():
        place = FETCHED / "sources" / normal(name)
        (place / "wheels").mkdir(parents=True)
        file, content = source_of(name, version)
        digest = hashlib.sha256(content).hexdigest()
        if normal(name) in asked_for and digest not in asked_for[normal(name)]:
            raise PackagesError(
                f"{file} has the SHA-256 {digest}, which is none of those that the model asks for:{asked_for[normal(name)]}"
            )
        (place / file).write_bytes(content)
        (place / "requires.txt").write_text("".join(f"{line}\n" for line in builders(place / file)))
        done = run(
            *("uv", "pip", "compile", "--quiet", "--no-build", "--no-cache", "--no-header", "--no-annotate", "--color", "never"),
            *("--python", PYTHON, "--output-file", str(place / "pins.txt"), str(place / "requires.txt")),
        )  # fmt: skip
        if done.returncode:
            raise PackagesError(
                f"{file} cannot be built: what its build needs ({', '.join(builders(place / file))}) cannot be had as wheels. {done.stderr.strip()}\n"
                "Put a wheel of it on a package index of your own (runtime_image_index_url)."
            )
        download((place / "pins.txt").read_text().split("\n")[:-1], place / "wheels")


def build_sources() -> None:
    """Make a wheel of each source distribution. This executes what it brings."""
    (BUILT / "wheels").mkdir()
    for place in sorted((FETCHED / "sources").iterdir()):
        (archive,) = place.glob("*.tar.gz")
        python = BUILT / f"env-{place.name}" / "bin/python"
        wheels = (
            "--offline",
            "--no-index",
            "--no-deps",
            "--no-build",
            "--no-cache",
            "--find-links",
            str(place / "wheels"),
        )
        for command in (
            ("uv", "venv", "--quiet", "--offline", "--no-cache", "--python", PYTHON, str(python.parents[1])),
            ("uv", "pip", "install", "--quiet", *wheels, "--python", str(python), "--requirements", str(place / "pins.txt")),
            (str(python), "-I", pip(), "wheel", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--no-index", "--no-deps",
             "--use-pep517", "--no-build-isolation", "--wheel-dir", str(BUILT / "wheels"), str(archive)),
        ):  # fmt: skip
            done = run(*command)
            if done.returncode:
                said = "\n".join(f"{done.stdout}{done.stderr}".strip().splitlines()[-20:])
                raise PackagesError(
                    f"{archive.name} cannot be built without a network and a compiler:\n{said}\n"
                    "Put a wheel of it on a package index of your own (runtime_image_index_url)."
                )


def collect() -> None:
    """Copy the wheels that were asked for, and nothing else that a build left."""
    for name, version in allowed_sources():
        found = [
            file
            for file in (BUILT / "wheels").glob("*.whl")
            if normal(file.name.split("-")[0]) == normal(name) and same_version(file.name.split("-")[1], version)
        ]
        if len(found) != 1:
            raise PackagesError(
                f"The build of {name}=={version} left {len(found)} wheels of that name and version, and one is allowed."
            )
        # What a build left may be a link to anywhere, or something that never ends.
        source = os.open(found[0], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(source, "rb") as file:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise PackagesError(f"The build of {name}=={version} left a wheel that is no file.")
            (FETCHED / "built" / found[0].name).write_bytes(file.read(LARGEST_SOURCE))


def same_version(left: str, right: str) -> bool:
    """Whether two spellings mean one version, as far as a build may spell it anew."""
    return re.sub(r"[-_.]?([a-z]+)[-_.]?", r"\1", left.lower()) == re.sub(r"[-_.]?([a-z]+)[-_.]?", r"\1", right.lower())


def check(wheels: list[Path], room: int) -> None:
    """Refuse wheels that lead out of their place or do not fit; uv unpacks no more of a file than the wheel says."""
    size = 0
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, ValueError) as error:
            raise PackagesError(f"{wheel.name} is no wheel: {error}") from error
        for member in members:
            path = PurePosixPath(member.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise PackagesError(
                    f"{wheel.name} holds {member.filename!r}, which leads out of it. No wheel may do so."
                )
        size += sum(member.file_size for member in members)
    if size * COPIES > room:
        raise PackagesError(
            f"The packages have {size} bytes, of which {COPIES} copies are made, and the disk has room for {room}. Make room, or log the model again "
            "with fewer packages."
        )


def install() -> None:
    """Unpack the wheels and compile what is in them."""
    wheels = sorted((FETCHED / "wheels").glob("*.whl"))
    if not wheels:
        return
    check(wheels, shutil.disk_usage(PACKAGES).free)
    done = run(
        *("uv", "pip", "install", "--offline", "--no-index", "--no-deps", "--no-build", "--no-cache", "--color", "never"),
        *("--python", MODEL_PYTHON, "--prefix", str(PACKAGES)),
        *("--find-links", str(FETCHED / "wheels"), "--requirements", str(FETCHED / "pins.txt")),
    )  # fmt: skip
    if done.returncode:
        raise PackagesError(done.stderr.strip())
    # By content, as the files get other times on their way into the image. What cannot be compiled stays as it is.
    run(
        PYTHON,
        "-I",
        "-S",
        "-m",
        "compileall",
        "-qq",
        "-j0",
        "--invalidation-mode",
        "unchecked-hash",
        str(PACKAGES / "lib"),
    )


STEPS = {"sources": fetch_sources, "build": build_sources, "collect": collect, "fetch": fetch, "install": install}


def main() -> None:
    """Do the step that the command names."""
    try:
        STEPS[sys.argv[1]]()
    except PackagesError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
