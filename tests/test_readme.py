"""What the pages for people say exists: targets, files, links, anchors, ports, variables, and bodies that parse. Runs nothing of it."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDE = ["README.md", "CHANGELOG.md", "docs/README.md", "docs/operate.md", "docs/troubleshooting.md"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# Ports of the test server that a reader starts by hand, and of the Swarm.
OTHER_PORTS = {8080, 2377, 7946, 4789}


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*##", text_of("Makefile"), re.MULTILINE))


def anchors(text: str) -> set[str]:
    """The anchors that a page has for its headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def defaults() -> dict[str, object]:
    """The defaults of all roles."""
    merged: dict[str, object] = {}
    for file in ROOT.glob("roles/*/defaults/main.yml"):
        merged |= yaml.safe_load(file.read_text()) or {}
    return merged


def ports() -> set[int]:
    """The ports that the inventory and the defaults make the platform listen on."""
    declared = yaml.safe_load(text_of("inventory/local/group_vars/all/models.yml"))
    known = defaults()
    return {
        int(str(known["platform_tracking_port"])),
        int(str(known["platform_models_port"])),
        *(model["port"] for model in declared["served_models"] if "port" in model),
    }


@pytest.mark.parametrize("name", GUIDE)
def test_targets_exist(name: str) -> None:
    named = set(re.findall(r"^make ([a-z]+)", commands(text_of(name)), re.MULTILINE))
    assert named - targets() == set()


def commands(text: str) -> str:
    """Everything that a page sets as code, each on a line of its own."""
    code = [body for _, body in FENCE.findall(text)]
    return "\n".join(code + re.findall(r"`([^`\n]+)`", FENCE.sub("", text)))


def test_every_target_is_in_the_table() -> None:
    assert {name for name in targets() if f"| `make {name}` |" not in README} == set()


@pytest.mark.parametrize("name", GUIDE)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", GUIDE)
def test_files_named_in_code_exist(name: str) -> None:
    named = re.findall(
        r"(?<![\w./~:-])((?:playbooks|roles|training|inventory|docs|molecule|tests|library|tools)/[\w./-]*[\w/])",
        commands(text_of(name)),
    )
    made_by_reader = {"inventory/local/group_vars/all/secrets.yml", "inventory/local/group_vars/all/artifacts.yml"}
    assert [path for path in named if path not in made_by_reader and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", GUIDE)
def test_ports_are_the_declared_ones(name: str) -> None:
    named = {int(port) for port in re.findall(r"(?:localhost|127\.0\.0\.1):(\d+)", text_of(name))}
    assert named - ports() - OTHER_PORTS == set()


def test_every_port_is_named() -> None:
    assert {port for port in ports() if f"http://localhost:{port}" not in README} == set()


def test_json_parses() -> None:
    assert blocks(README, "json")
    for block in blocks(README, "json"):
        json.loads(block)


@pytest.mark.parametrize("name", GUIDE)
def test_yaml_parses(name: str) -> None:
    for block in blocks(text_of(name), "yaml"):
        yaml.safe_load(block)


def test_python_parses() -> None:
    assert blocks(README, "python")
    for block in blocks(README, "python"):
        ast.parse(block)


@pytest.mark.parametrize("name", GUIDE)
def test_bodies_of_requests_parse(name: str) -> None:
    """Every curl command is complete, and what it sends as JSON is JSON."""
    lines = [
        line for block in blocks(text_of(name), "") for line in block.splitlines() if re.search(r"(^|\| )curl ", line)
    ]
    for line in lines:
        words = shlex.split(line)
        words = words[words.index("curl") :]
        assert [word for word in words if word.startswith("http://localhost:")]
        if "-d" in words and (body := words[words.index("-d") + 1]) != "@-":
            assert isinstance(json.loads(body), dict)
            assert "Content-Type: application/json" in words


@pytest.mark.parametrize("name", GUIDE)
def test_variables_named_in_code_exist(name: str) -> None:
    """A name in backticks that begins like a variable of a role is one, or a key of one."""
    documented = text_of("docs/variables.md")
    roles = sorted(path.name for path in (ROOT / "roles").iterdir())
    spans = re.findall(r"`([a-z0-9]+_[a-z0-9_]+)`", FENCE.sub("", text_of(name)))
    variables = [span for span in spans if span.startswith(tuple(f"{role}_" for role in roles)) and span not in roles]
    assert [variable for variable in variables if f"`{variable}`" not in documented] == []


def test_the_version_is_the_one_that_runs() -> None:
    locked = dict(
        re.findall(r"^([\w-]+)==([\w.]+)", text_of("roles/runtime_image/files/requirements.txt"), re.MULTILINE)
    )
    named = set(re.findall(r"\b(mlflow|scikit-learn|skops)==([\d.]+)", README))
    assert named
    assert [(package, version) for package, version in named if locked[package] != version] == []


def test_messages_of_troubleshooting_are_said_by_something() -> None:
    """The fixed beginning of every message in the tables of refusals stands in a role, a module or a tool."""
    page = text_of("docs/troubleshooting.md")
    refusals = page[page.index("## Before anything starts") : page.index("## A model that does not become healthy")]
    sources = [
        *ROOT.glob("roles/**/*"),
        *ROOT.glob("library/*.py"),
        *ROOT.glob("module_utils/*.py"),
        *ROOT.glob("*_plugins/*.py"),
        ROOT / "tools/venv",
    ]
    said = "\n".join(
        path.read_text()
        for path in sources
        if path.is_file() and path.suffix != ".md" and "__pycache__" not in path.parts
    )
    # What a template puts in is `...` on the page; so are parts that are joined in an expression.
    said = re.sub(r"\s+", " ", re.sub(r"\{\{?(?P<name>[^{}]*)\}\}?", r"...\g<name>...", said))
    unknown = []
    for message in re.findall(r"^\| `([^`]+)` \|", refusals, re.MULTILINE):
        parts = [part.strip(" .:'") for part in re.split(r"\.\.\.|\d+(?:\.\d+)*|\bapi\b", message)]
        unknown += [message for part in parts if len(part) > 12 and part not in said]
    assert set(unknown) == {"make: command not found"}


def test_changelog_has_an_unreleased_section() -> None:
    text = text_of("CHANGELOG.md")
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)
    assert re.search(r"^### (Added|Changed|Deprecated|Removed|Fixed|Security)$", text, re.MULTILINE)


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs/images").glob("*.png"))
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 200_000] == []
    assert [path.name for path in pictures if f"docs/images/{path.name}" not in README] == []


def test_the_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load(text_of(".github/workflows/test.yml"))
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] == 90
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
