#!/usr/bin/python3 -IS
"""Write what is in this image, every Debian package and every Python distribution, as a CycloneDX document.

Nothing is imported or run of what is listed: a model's packages are somebody else's.
"""

from __future__ import annotations

import json
import os
import re
import sys
from urllib.parse import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PLACE = "usr/share/sbom/image.cdx.json"
# What the kernel and the engine put there is not the image's.
LEFT_OUT = {"proc", "sys", "dev", "run"}
# More than any description in a package's metadata has before its name and version.
HEAD = 65536


def fields(text: str) -> dict[str, str]:
    """Return the fields of one paragraph, as Debian and Python's metadata have them, up to the first empty line."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            found.setdefault(name.lower(), value.strip())
    return found


def debian_packages(root: str) -> Iterator[dict[str, str]]:
    """Yield the installed packages of Debian."""
    try:
        with open(os.path.join(root, "var/lib/dpkg/status"), encoding="utf-8", errors="replace") as file:  # noqa: PTH123, PTH118 - pathlib takes long to import
            paragraphs = file.read().split("\n\n")
    except FileNotFoundError:
        return
    for paragraph in paragraphs:
        package = fields(paragraph)
        if package.get("status", "").endswith(" installed"):
            name, version, machine = package["package"], package["version"], package.get("architecture", "all")
            yield component(name, version, f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={machine}")


def distributions(root: str) -> Iterator[dict[str, str]]:
    """Yield every Python distribution, wherever it lies."""
    for place, directories, files in os.walk(root):
        if place == root:
            directories[:] = [name for name in directories if name not in LEFT_OUT]
        for name in sorted(directories + files):
            metadata = {".dist-info": ["METADATA"], ".egg-info": ["PKG-INFO", ""]}.get(os.path.splitext(name)[1], [])  # noqa: PTH122
            for file in metadata:
                found = head(os.path.join(place, name, file) if file else os.path.join(place, name))  # noqa: PTH118
                if found.get("name") and found.get("version"):
                    plain = re.sub(r"[-_.]+", "-", found["name"]).lower()
                    yield component(found["name"], found["version"], f"pkg:pypi/{plain}@{quote(found['version'])}")
                    break


def head(path: str) -> dict[str, str]:
    """Return the fields at the beginning of a file; none where it is no file."""
    if os.path.islink(path) or not os.path.isfile(path):  # noqa: PTH113, PTH114
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        return fields(file.read(HEAD))


def component(name: str, version: str, purl: str) -> dict[str, str]:
    """Return one entry of the list."""
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def document(components: Iterable[dict[str, str]]) -> dict[str, object]:
    """Return the list: each entry once, in the order of their addresses, so that the same content is the same text."""
    once = {entry["purl"]: entry for entry in components}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": "image", "name": "image"}},
        "components": [once[purl] for purl in sorted(once)],
    }


def main(root: str) -> int:
    """Write the list below `root`."""
    listed = document([*debian_packages(root), *distributions(root)])
    target = os.path.join(root, PLACE)  # noqa: PTH118
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    with open(target, "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump(listed, file, indent=1)
        file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "/"))
