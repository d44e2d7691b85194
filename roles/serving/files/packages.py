"""Fetch the wheels that a model needs beyond its runtime image, and unpack them. Two steps, each in a container of its own.

    packages.py fetch       with a network, and nothing of the model unpacked: the wheels go to FETCHED as they are
    packages.py install     without a network: the wheels are unpacked to PACKAGES and compiled

Neither step executes anything of a package: only wheels are taken, which need no build; uv asks a Python who it is before anything is unpacked; and
Python compiles without its module site, which would execute the packages' .pth files.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

FETCHED = Path("/fetched")
PACKAGES = Path("/opt/model-packages")
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
    "have a wheel for this Python, or put a wheel of it on a package index of your own (runtime_image_index_url)."
)


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


def refusal(complaint: str) -> str:
    """Return what uv says against the requirements, with the way out where a package has no wheel."""
    names = list(dict.fromkeys(WHEELLESS.findall(complaint)))
    return f"{complaint.strip()}\n{', '.join(names)}: no wheel fits. {WAY_OUT}" if names else complaint.strip()


def pins(requirements: Path) -> dict[str, str]:
    """Return name and version of every package to install over the runtime image, which keeps what it has in that version."""
    done = run(
        *("uv", "pip", "install", "--dry-run", "--output-format", "json", "--no-build", "--no-cache", "--color", "never"),
        *("--python", RUNTIME_PYTHON, "--requirements", str(requirements)),
    )  # fmt: skip
    if done.returncode:
        raise PackagesError(refusal(done.stderr))
    changes = json.loads(done.stdout)["changes"]
    return {change["name"]: change["version"] for change in changes if change["action"] != "uninstalled"}


def hashes(requirements: str) -> dict[str, str]:
    """Return the options --hash that the requirements have, by package."""
    found = re.findall(r"^\s*([A-Za-z0-9._-]+).*?((?:\s+--hash[ =]\S+)*)\s*$", requirements, re.MULTILINE)
    return {normal(name): options for name, options in found if options}


def fetch() -> None:
    """Write the wheels, and the versions to install with the hashes that the model asks for."""
    requirements, wheels = FETCHED / "requirements.txt", FETCHED / "wheels"
    wheels.mkdir()
    wanted = pins(requirements)
    known = hashes(requirements.read_text())
    lines = [f"{name}=={version}{known.get(normal(name), '')}\n" for name, version in sorted(wanted.items())]
    (FETCHED / "pins.txt").write_text("".join(lines))
    if not wanted:
        return
    pip = next(PIP_WHEELS.glob("pip-*.whl"))
    done = run(
        *(PYTHON, "-I", f"{pip}/pip", "download", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(wheels)),
        *(f"{name}=={version}" for name, version in sorted(wanted.items())),
    )  # fmt: skip
    if done.returncode:
        raise PackagesError(done.stderr.strip())


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


def main() -> None:
    """Do the step that the command names."""
    try:
        {"fetch": fetch, "install": install}[sys.argv[1]]()
    except PackagesError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
