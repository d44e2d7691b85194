"""The list of all contents that lies in every image."""

from __future__ import annotations

import json
import re
import runpy
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

PROGRAM = runpy.run_path(str(Path(__file__).parents[2] / "roles/base_image/files/sbom.py"))

STATUS = """Package: libssl3t64
Status: install ok installed
Architecture: amd64
Version: 3.5.4-1~deb13u1
Description: first line
 Version: 9, as a description may say

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1.0

Package: vim-common
Status: hold ok installed
Architecture: all
Version: 2:9.1.1230-2
"""


def listed(root: Path) -> dict[str, Any]:
    assert PROGRAM["main"](str(root)) == 0
    document: dict[str, Any] = json.loads((root / "usr/share/sbom/image.cdx.json").read_text())
    return document


def purls(root: Path) -> list[str]:
    return [entry["purl"] for entry in listed(root)["components"]]


def put(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_every_installed_package_of_debian_is_listed_and_no_other(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/dpkg/status", STATUS)
    assert listed(tmp_path)["components"] == [
        {
            "type": "library",
            "bom-ref": "pkg:deb/debian/libssl3t64@3.5.4-1~deb13u1?arch=amd64",
            "name": "libssl3t64",
            "version": "3.5.4-1~deb13u1",
            "purl": "pkg:deb/debian/libssl3t64@3.5.4-1~deb13u1?arch=amd64",
        },
        {
            "type": "library",
            "bom-ref": "pkg:deb/debian/vim-common@2%3A9.1.1230-2?arch=all",
            "name": "vim-common",
            "version": "2:9.1.1230-2",
            "purl": "pkg:deb/debian/vim-common@2%3A9.1.1230-2?arch=all",
        },
    ]


def test_every_distribution_is_listed_wherever_it_lies(tmp_path: Path) -> None:
    put(
        tmp_path,
        "opt/model-packages/lib/python3.13/site-packages/a_b-1.dist-info/METADATA",
        "Name: A_b.c\nVersion: 1\n",
    )
    put(
        tmp_path,
        "usr/lib/python3/dist-packages/d-2.egg-info/PKG-INFO",
        "Metadata-Version: 1\nName: d\nVersion: 2+local\n",
    )
    put(tmp_path, "usr/lib/python3/dist-packages/e-3.egg-info", "Name: e\nVersion: 3\n")
    put(tmp_path, "proc/1/f-4.dist-info/METADATA", "Name: f\nVersion: 4\n")
    put(tmp_path, "opt/proc/g-5.dist-info/METADATA", "Name: g\nVersion: 5\n\nVersion: 6\n")
    assert purls(tmp_path) == ["pkg:pypi/a-b-c@1", "pkg:pypi/d@2%2Blocal", "pkg:pypi/e@3", "pkg:pypi/g@5"]


def test_two_versions_of_one_package_are_both_listed_and_one_twice_is_not(tmp_path: Path) -> None:
    for place, version in (("a", "1"), ("b", "2"), ("c", "2")):
        put(tmp_path, f"opt/{place}/x-{version}.dist-info/METADATA", f"Name: x\nVersion: {version}\n")
    assert purls(tmp_path) == ["pkg:pypi/x@1", "pkg:pypi/x@2"]


def test_a_package_cannot_make_the_list_read_what_is_not_its_own(tmp_path: Path) -> None:
    secret = put(tmp_path, "secret", "Name: secret\nVersion: 1\n")
    (tmp_path / "opt/x-1.dist-info").mkdir(parents=True)
    (tmp_path / "opt/x-1.dist-info/METADATA").symlink_to(secret)
    put(tmp_path, "opt/y-1.dist-info/METADATA", "\n" * 3)
    put(tmp_path, "opt/z-1.dist-info/METADATA", "x" * 10**6 + "\nName: z\nVersion: 1\n")
    assert purls(tmp_path) == []


def test_the_same_content_is_the_same_text(tmp_path: Path) -> None:
    put(tmp_path, "var/lib/dpkg/status", STATUS)
    listed(tmp_path)
    first = (tmp_path / "usr/share/sbom/image.cdx.json").read_bytes()
    listed(tmp_path)
    assert (tmp_path / "usr/share/sbom/image.cdx.json").read_bytes() == first


def test_what_python_finds_in_this_environment_is_listed() -> None:
    site = next(path for path in sys.path if path.endswith("site-packages"))
    found = {entry["purl"] for entry in PROGRAM["distributions"](site)}
    assert {(d.metadata["Name"], d.version) for d in distributions(path=[site])}
    wanted = {
        f"pkg:pypi/{re.sub(r'[-_.]+', '-', d.metadata['Name']).lower()}@{quote(d.version)}"
        for d in distributions(path=[site])
    }
    assert wanted - found == set()


def test_every_image_lists_its_contents_after_the_last_package() -> None:
    """Tracking server and training jobs add none to the runtime image, whose list they keep."""
    roles = Path(__file__).parents[2] / "roles"
    texts = {path.parts[-3]: path.read_text() for path in roles.glob("*/templates/Dockerfile.j2")}
    installing = ("apt-get install", "pip install", "pip sync", "COPY packages", "apt-get dist-upgrade")
    for role, text in texts.items():
        last = max(text.rfind(word) for word in installing)
        place = max(text.rfind("sbom\n"), text.rfind('/usr/local/bin/sbom"]'))
        assert last < 0 or place > last, f"the image of {role} installs packages and does not list them"
