"""Which files can touch a scenario, found by reading what its files name.

A file that names another one leads to it: a playbook to its roles, a role to its modules, a test to what it imports. Where that cannot be told, all that
may be meant counts.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import hashlib
import posixpath
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from runner import ROOT, references

# What every scenario begins with; what these files name counts too.
COMMON = (
    ".config/molecule/config.yml",
    "ansible.cfg",
    "callback_plugins/*",
    "molecule/conftest.py",
    "molecule/pytest.ini",
    "molecule/run.py",
    "molecule/runner/*",
    "molecule/shared/*",
    "requirements.txt",
    "requirements-dev.txt",
    "tools/venv",
    "vars_plugins/*",
)

# What touches no scenario, unless a scenario names it. A file that neither stands here nor is named touches all of them.
NOTHING = {
    "docs/*": "documentation",
    "*.md": "documentation",
    "LICENSE": "documentation",
    ".ci/*": "starts the tests",
    ".github/*": "starts the tests",
    "Makefile": "starts the tests",
    ".gitignore": "for git",
    ".ansible-lint": "for linters",
    ".yamllint": "for linters",
    "pyproject.toml": "for linters and unit tests",
    "tests/*": "unit tests",
    "bench/*": "measures by hand",
    "inventory/*": "for platforms of people",
    "requirements*.in": "what the locks are made of",
    "tools/audit*": "looks up what is known of the locks and images",
    "tools/checkers": "unpacks what unit tests check with",
    "tools/generate_docs.py": "writes documentation",
    "molecule/budget.yml": "is compared with what a run took",
}

# A copy of the golden platform is made by these tasks, and has of the platform what these roles made, and what its scenario starts of it.
_GOLDEN, _COPY = "ma-instance/platform", "molecule/shared/tasks/renew.yml"
_IN_EVERY_COPY = ("docker", "swarm", "base_image", "runtime_image")
_STARTED = {"models": ("training", "serving")}

# A name of a file that is put together at run time.
_COMPUTED = re.compile(r"(\}\}[\w.-]*|')\.(yml|j2|py)\b")
_UPWARDS = re.compile(r"(?:\.\./)+[\w./-]+")


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path is one of those that the patterns describe."""
    return any(fnmatch(path, pattern) for pattern in patterns)


class Tree:
    """The files of a repository as they are now, and what each of them names; read once."""

    def __init__(self, root: Path = ROOT) -> None:
        """Take the directory of the repository."""
        self.root = root
        self._texts: dict[str, str] = {}
        self._data: dict[str, Any] = {}
        self._named: dict[str, dict[str, str]] = {}

    @cached_property
    def files(self) -> list[str]:
        """Every file that git has or would take."""
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True).stdout
        return sorted(path for path in set(listed.split("\0")) if (self.root / path).is_file())

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        """The files below each directory."""
        found: dict[str, list[str]] = {}
        for path in self.files:
            for parent in Path(path).parents[:-1]:
                found.setdefault(parent.as_posix(), []).append(path)
        return found

    @cached_property
    def known(self) -> set[str]:
        """The same, to ask for one of them."""
        return set(self.files)

    @cached_property
    def _roles(self) -> set[str]:
        return {path.split("/")[1] for path in self._below.get("roles", [])}

    @cached_property
    def _modules(self) -> dict[str, list[str]]:
        """Files of each module of our own: what runs on the host, and beside Ansible."""
        found: dict[str, list[str]] = {}
        for path in [*self._below.get("library", []), *self._below.get("action_plugins", [])]:
            found.setdefault(Path(path).stem, []).append(path)
        return found

    @cached_property
    def _filters(self) -> dict[str, str]:
        """File of each filter of our own."""
        plugins = [path for path in self.files if "/filter_plugins/" in f"/{path}" and path.endswith(".py")]
        return {name: path for path in plugins for name in references.filters(self._python(path))}

    @cached_property
    def _filter_use(self) -> re.Pattern[str]:
        names = "|".join(map(re.escape, self._filters)) or "(?!)"
        return re.compile(rf"(?:\|\s*|['\"])({names})\b")

    @cached_property
    def _role_lists(self) -> dict[str, tuple[str, list[str], str]]:
        """Variables that name roles, for a role that includes what it is told: the role, the value by default, and tasks_from."""
        found: dict[str, tuple[str, list[str], str]] = {}
        for path in self._below.get("roles", []):
            role, kind = path.split("/")[1:3]
            if kind != "tasks":
                continue
            for name, entry, _ in self._included(self._yaml(path)):
                if "{{" in name:
                    defaults = self._yaml(f"roles/{role}/defaults/main.yml") or {}
                    named = {
                        key: value
                        for key, value in defaults.items()
                        if isinstance(value, list) and all(item in self._roles for item in map(str, value))
                    }
                    found |= {key: (role, value, entry) for key, value in named.items()}
        return found

    def text(self, path: str) -> str:
        """Content of a file; what is no text has none that matters here."""
        if path not in self._texts:
            self._texts[path] = (self.root / path).read_text(encoding="utf-8", errors="replace")
        return self._texts[path]

    def _yaml(self, path: str) -> Any:
        if path not in self._data:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            # A file that cannot be read names nothing; its test will say so.
            with contextlib.suppress(yaml.YAMLError):
                self._data[path] = yaml.load(self.text(path), loader) if path in self.known else None
        return self._data.setdefault(path, None)

    def _python(self, path: str) -> ast.Module:
        try:
            return ast.parse(self.text(path))
        except SyntaxError:
            return ast.Module([], [])

    @staticmethod
    def _included(data: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Name, tasks_from and variables of every role that tasks include or that plays and roles list."""
        for mapping in references.mappings(data):
            for key, value in mapping.items():
                verb = str(key).rpartition(".")[2]
                if verb in {"include_role", "import_role"} and isinstance(value, dict):
                    yield str(value.get("name")), str(value.get("tasks_from", "main")), mapping.get("vars", {})
                elif verb in {"roles", "dependencies"} and isinstance(value, list):
                    for item in value:
                        entry = item if isinstance(item, dict) else {"role": item}
                        given = {**mapping.get("vars", {}), **entry, **entry.get("vars", {})}
                        yield str(entry.get("role", entry.get("name"))), str(entry.get("tasks_from", "main")), given

    def _role(self, name: str, entry: str) -> list[str]:
        """Files of a role that count where tasks/ENTRY.yml is run: all of them for main, else those that this one leads to."""
        whole = [path for path in self._below.get(f"roles/{name}", []) if not path.endswith("README.md")]
        if entry == "main":
            return whole
        parts = {path: path.split("/")[2] for path in whole}
        begin = [path for path in whole if parts[path] in {"defaults", "handlers", "meta", "vars"}]
        found = [*begin, *({f"roles/{name}/tasks/{entry.removesuffix('.yml')}.yml"} & parts.keys())]
        for path in found:
            text = self.text(path)
            if parts[path] == "tasks" and _COMPUTED.search(text):
                return whole
            found += [other for other in whole if other not in found and Path(other).name in text]
        return found

    def _uses(self, data: Any, by: str) -> Iterator[tuple[str, str]]:
        """Files of the roles that a YAML file uses, each with the reason."""
        chosen: list[tuple[str, str]] = []
        for name, entry, given in self._included(data):
            # Where a role has a list of roles, a computed name is one of them.
            lists = any(by == f"role {owner}" for owner, _, _ in self._role_lists.values())
            computed = "{{" in name and not lists
            chosen += [(role, "main") for role in self._roles] if computed else [(name, entry)]
            for variable, (owner, default, tasks) in self._role_lists.items():
                if owner == name and variable not in given:
                    chosen += [(role, tasks) for role in default]
        for mapping in references.mappings(data):
            for variable in self._role_lists.keys() & mapping.keys():
                owner, _, tasks = self._role_lists[variable]
                # The owner's own value is a default, which counts where it is not replaced.
                if by != f"role {owner}":
                    chosen += [(role, tasks) for role in references.strings(mapping[variable])]
        for role, entry in dict.fromkeys(chosen):
            what = f"role {role}" if entry == "main" else f"tasks {entry} of role {role}"
            yield from ((path, f"{what}, which {by} uses") for path in self._role(role, entry))

    def _at(self, token: str, places: Iterable[str]) -> list[str]:
        """Files that a text names, seen from the first place where there is one of this name; a directory is named with a slash."""
        if not token or token.startswith("/") or len(token) > 200 or not re.fullmatch(r"[\w./-]+", token):
            return []
        for place in places:
            path = posixpath.normpath(posixpath.join(place, token))
            if path in self.known:
                return [path]
            if "/" in token and path != place and path in self._below:
                return self._below[path]
        return []

    def _of_yaml(self, path: str, by: str) -> Iterator[tuple[str, str]]:
        data, here = self._yaml(path), posixpath.dirname(path)
        # A role's paths begin at the role.
        places = ["/".join(path.split("/")[:2]), here] if path.startswith("roles/") else [here]
        for text in references.strings(data):
            for token in {text, *_UPWARDS.findall(text)}:
                yield from ((found, f"{by} names it") for found in self._at(token, places))
        # Among the variables of a role such a key is no module.
        modules = self._modules if not path.startswith("roles/") or path.split("/")[2] in {"handlers", "tasks"} else {}
        for mapping in references.mappings(data):
            for name in modules.keys() & mapping.keys():
                yield from ((found, f"module {name}, which {by} uses") for found in modules[name])
            yield f"inventory_plugins/{mapping.get('plugin')}.py", f"inventory plugin, which {by} uses"
        yield from self._uses(data, by)

    def _of_python(self, path: str, by: str) -> Iterator[tuple[str, str]]:
        module, here = self._python(path), posixpath.dirname(path)
        nodes = list(ast.walk(module))
        for name in references.imports(nodes, here):
            yield from ((found, f"{by} imports it") for found in self._imported(name, ("", "molecule", here)))
        for name in references.programs(nodes):
            yield from ((found, f"{by} runs it") for found in self._below.get(name, []))
        # Molecule runs playbooks from the scenario's directory; what a role has runs on hosts.
        scenario = "/".join(path.split("/")[:2])
        places = (here,) if path.startswith("roles/") else (here, scenario, "", "playbooks")
        for token in set(references.literals(module)):
            for place in places:
                yield from ((found, f"{by} names it") for found in self._at(token, [place]))
            if token in self._modules:
                yield from ((found, f"module {token}, which {by} names") for found in self._modules[token])

    def _imported(self, name: str, places: Iterable[str]) -> Iterator[str]:
        """Files of a module and of the packages around it."""
        parts = name.removeprefix("ansible.").split(".")
        for place in places:
            base = posixpath.join(place, *parts)
            for found in {f"{base}.py", f"{base}/__init__.py"} & self.known:
                yield found
                yield from (posixpath.join(place, *parts[:end], "__init__.py") for end in range(1, len(parts)))

    def _of_config(self, path: str, by: str) -> Iterator[tuple[str, str]]:
        config = configparser.ConfigParser()
        config.read_string(self.text(path))
        inventory = config.get("defaults", "inventory", fallback="")
        # Without Molecule's inventory: when images are built.
        yield from ((found, f"inventory that {by} names") for found in self._below.get(inventory, []))

    def named(self, path: str) -> dict[str, str]:
        """Files that one file names, each with the reason."""
        if path not in self._named:
            by = f"role {path.split('/')[1]}" if path.startswith("roles/") else path
            readers: dict[str, Callable[[str, str], Iterator[tuple[str, str]]]] = {
                ".yml": self._of_yaml,
                ".py": self._of_python,
            }
            # The runner names files to sort them, not to use them.
            reader = None if path.startswith("molecule/runner/") else readers.get(Path(path).suffix)
            reader = self._of_config if path == "ansible.cfg" else reader
            found = list(reader(path, by)) if reader else []
            if path.endswith((".yml", ".j2")):
                used = sorted(set(self._filter_use.findall(self.text(path))))
                found += [(self._filters[name], f"filter {name}, which {by} uses") for name in used]
            self._named[path] = {other: why for other, why in reversed(found) if other in self.known}
        return self._named[path]

    def reach(self, begin: dict[str, str], follow: Callable[[str, str], bool] = lambda _, __: True) -> dict[str, str]:
        """Files that the given ones lead to, themselves included, each with the first reason; `follow` says which steps count."""
        found = dict(begin)
        queue = list(begin)
        for path in queue:
            new = {other: why for other, why in self.named(path).items() if other not in found and follow(path, other)}
            found |= new
            queue += new
        return found

    def scenarios(self) -> list[str]:
        """Names of all scenarios."""
        return sorted(path.split("/")[1] for path in self.files if fnmatch(path, "molecule/*/molecule.yml"))

    @cached_property
    def _common(self) -> list[str]:
        return [path for path in self.files if matches(path, COMMON) and path != _COPY]

    def _begin(self, scenario: str) -> dict[str, str]:
        """Files that touch a scenario without being named: its own, what all have in common, and what its instances are made by."""
        begin = dict.fromkeys(self._below[f"molecule/{scenario}"], "its own")
        begin |= dict.fromkeys(self._common, "common to all scenarios")
        if self._is_copy(scenario):
            data = list(references.mappings(self._yaml(f"molecule/{scenario}/molecule.yml")))
            started = [part for mapping in data for part in references.strings(mapping.get("molecule_start", []))]
            roles = [role for part in started for role in _STARTED.get(part, (part,))]
            for role in (*_IN_EVERY_COPY, *roles):
                begin |= dict.fromkeys(
                    self._role(role, "main"), f"role {role}, of which a copy of the platform begins with what it made"
                )
        return begin

    def _is_copy(self, scenario: str) -> bool:
        platforms = (self._yaml(f"molecule/{scenario}/molecule.yml") or {}).get("platforms", [])
        return any(str(item.get("image", "")).startswith(_GOLDEN) for item in platforms)

    @cached_property
    def _reached(self) -> dict[str, dict[str, str]]:
        def reached(scenario: str) -> dict[str, str]:
            found = self.reach(self._begin(scenario), lambda _, other: other != _COPY)
            return found | ({_COPY: "makes copies of the platform"} if self._is_copy(scenario) else {})

        return {scenario: reached(scenario) for scenario in self.scenarios()}

    @cached_property
    def unknown(self) -> list[str]:
        """Files of which nobody knows what they touch."""
        reached = set().union(*self._reached.values())
        return [path for path in self.files if path not in reached and not matches(path, NOTHING)]

    def inputs(self, scenario: str) -> dict[str, str]:
        """Every file that can touch the scenario, with a reason."""
        return self._reached[scenario] | dict.fromkeys(self.unknown, "nobody knows what it touches")

    def nothing(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths that touch no scenario."""
        inputs = set().union(*map(self.inputs, self.scenarios()))
        return [path for path in paths if path not in inputs and matches(path, NOTHING)]

    def fingerprint(self, scenario: str) -> dict[str, str]:
        """SHA-256 of what each input holds now; one that may be executed is marked, since images are given its mode."""
        return self.digests(self.inputs(scenario))

    def digests(self, paths: Iterable[str]) -> dict[str, str]:
        """The same of any files."""
        return {path: self._digest(self.root / path) for path in sorted(paths)}

    @staticmethod
    def _digest(file: Path) -> str:
        # One that was removed meanwhile differs from what it was.
        if not file.is_file():
            return "removed"
        return hashlib.sha256(file.read_bytes()).hexdigest() + ("+x" if file.stat().st_mode & 0o100 else "")


TREE = Tree()
scenarios, inputs, nothing, fingerprint = TREE.scenarios, TREE.inputs, TREE.nothing, TREE.fingerprint
