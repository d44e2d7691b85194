"""What the repository promises as a whole: verbs, pages, lock files, names of images and hosts. Runs nothing."""

from __future__ import annotations

import configparser
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PLAYBOOKS = sorted(path.name for path in (ROOT / "playbooks").glob("*.yml"))
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
LOCKS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("requirements*.txt")) + [
    f"roles/runtime_image/files/{name}.txt" for name in ("requirements", "uv")
]
LOCKS += ["roles/certificate/files/requirements.txt", "tools/audit.txt"]
LOCKS += [
    path.relative_to(ROOT).as_posix()
    for place in ("bench/serving/peers", "tests/serving/clients")
    for path in (ROOT / place).glob("*.txt")
]

# In parts, so that this file does not hold what it looks for.
INDEX_HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "test." + "pypi",
    "conda" + ".anaconda.org",
    "repo." + "anaconda",
]
CONTAINER_HOSTS = ["docker" + ".io/", "ghcr" + ".io", "quay" + ".io", "gcr" + ".io", "registry.k8s" + ".io"]
CONTAINER_HOSTS += ["public.ecr" + ".aws", "mcr.microsoft" + ".com"]
OTHER_HOSTS = [
    "npm" + "js.org",
    "crates" + ".io",
    "ruby" + "gems.org",
    "galaxy.ansible" + ".com",
    "proxy.golang" + ".org",
]
REGISTRIES = re.compile("|".join(map(re.escape, INDEX_HOSTS + CONTAINER_HOSTS + OTHER_HOSTS)), re.IGNORECASE)
FLOATING_TAG = re.compile(r"[\w/}]:(latest|stable|edge|main|master)\b(?!\s*/)")


def tracked() -> Iterator[tuple[str, str]]:
    """Name and text of every file under version control."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        file = ROOT / name
        if name and file.is_file():
            yield name, file.read_bytes().decode(errors="replace")


def pages_text() -> str:
    """All of the guide and the README."""
    return "\n".join(path.read_text() for path in [*ROOT.glob("README.md"), *(ROOT / "docs").rglob("*.md")])


def pins(text: str) -> dict[str, str | None]:
    """Names in a list of requirements, and their versions where they are pinned."""
    found: dict[str, str | None] = {}
    for line in text.splitlines():
        if named := re.match(r"([A-Za-z0-9][\w.-]*)(\[[^]]*\])?\s*(?:==([^\s;\\]+))?", line):
            found[re.sub(r"[-_.]+", "-", named[1]).lower()] = named[3]
    return found


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_playbook_is_part_of_site_or_documented(name: str) -> None:
    imported = [play.get("ansible.builtin.import_playbook") for play in yaml.safe_load((ROOT / "site.yml").read_text())]
    assert f"playbooks/{name}" in imported or f"playbooks/{name}" in pages_text()


def test_site_imports_playbooks_that_exist() -> None:
    imported = [play["ansible.builtin.import_playbook"] for play in yaml.safe_load((ROOT / "site.yml").read_text())]
    assert [name for name in imported if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_page_is_in_the_index(page: str) -> None:
    assert f"]({page})" in (ROOT / "docs" / "README.md").read_text() or f"](docs/{page})" in pages_text()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    file = ROOT / "docs" / page
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock: str) -> None:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    requirements = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    assert requirements
    assert [
        line for line in requirements if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", line)
    ] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index(lock: str) -> None:
    assert [
        line for line in (ROOT / lock).read_text().splitlines() if "://" in line or "index" in line.split("#")[0]
    ] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_its_source_asks_for(lock: str) -> None:
    locked = pins((ROOT / lock).read_text())
    wanted = pins((ROOT / lock).with_suffix(".in").read_text())
    assert wanted
    assert [name for name in wanted if name not in locked] == []
    assert {name: locked[name] for name, version in wanted.items() if version} == {
        name: version for name, version in wanted.items() if version
    }


def test_every_source_of_a_lock_is_locked() -> None:
    sources = {name.removesuffix(".in") + ".txt" for name, _ in tracked() if name.endswith(".in")}
    assert sources == set(LOCKS)


def test_no_file_names_a_registry() -> None:
    """Where packages and images come from is the machine's to say."""
    assert [(name, found[0]) for name, text in tracked() if (found := REGISTRIES.search(text))] == []


def test_no_image_has_a_floating_tag() -> None:
    places = ("roles/", "molecule/", "playbooks/", "inventory/")
    files = [
        (name, text) for name, text in tracked() if name.startswith(places) and name.endswith((".yml", ".j2", "file"))
    ]
    assert files
    assert [(name, found[0]) for name, text in files if (found := FLOATING_TAG.search(text))] == []


def test_the_paths_of_the_configuration_exist() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "ansible.cfg")
    keys = [
        "inventory",
        "roles_path",
        "library",
        "filter_plugins",
        "action_plugins",
        "callback_plugins",
        "inventory_plugins",
        "vars_plugins",
    ]
    assert [key for key in keys if not (ROOT / config["defaults"][key]).is_dir()] == []


def test_enabled_callbacks_exist() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "ansible.cfg")
    enabled = config["defaults"]["callbacks_enabled"].split(",")
    assert [name for name in enabled if not (ROOT / "callback_plugins" / f"{name.strip()}.py").is_file()] == []
