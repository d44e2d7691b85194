"""What every role promises: its files, variables, names, secrets and containers. Reads the repository, runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.playbook.block import Block
from ansible.playbook.handler import Handler

from filter_plugins.served_models import CHALLENGER_KEYS, KEYS, served_models
from tools.generate_docs import INVENTORY, ROOT, generated

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
OWN_MODULES = {
    path.stem: path.read_text() for name in ("action_plugins", "library") for path in (ROOT / name).glob("*.py")
}
KEYWORDS = {*Handler.fattributes, *Block.fattributes, "block", "rescue", "always"}
SECTIONS = ("block", "rescue", "always")

# Files that may be longer than the rest, with the reason.
LONG_FILES: dict[str, str] = {}
SECURE_LOGGING = "{{ platform_secure_logging }}"


def load(path: Path) -> Any:
    """Content of a YAML file, or an empty mapping."""
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def one_line(value: Any) -> Any:
    """Value in which the line breaks of folded text do not count."""
    return " ".join(value.split()) if isinstance(value, str) else value


def mentions(text: str, names: set[str]) -> bool:
    """Whether one of the names stands in the text as a whole word."""
    return bool(names & set(re.findall(r"\w+", text)))


@dataclass
class Task:
    """A task or block, with what it inherits of the blocks around it."""

    where: str
    data: dict[str, Any]
    no_log: Any = None

    @property
    def module(self) -> str | None:
        """Name of the module; a block has none."""
        return next((key for key in self.data if key not in KEYWORDS and not key.startswith("with_")), None)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of the module, where they are a mapping."""
        arguments = self.data.get(self.module or "")
        return arguments if isinstance(arguments, dict) else {}

    @property
    def text(self) -> str:
        """All of the task but the tasks inside it and its name."""
        return yaml.safe_dump({key: value for key, value in self.data.items() if key not in (*SECTIONS, "name")})

    def __str__(self) -> str:
        return f"{self.where}: {self.data.get('name', self.data)}"


def walk(tasks: list[dict[str, Any]], where: str, no_log: Any = None) -> Iterator[Task]:
    """Tasks and blocks of a list, in depth."""
    for data in tasks:
        task = Task(where, data, data.get("no_log", no_log))
        yield task
        for section in SECTIONS:
            yield from walk(data.get(section, []), where, task.no_log)


@dataclass
class Role:
    """The files of a role."""

    name: str
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        self.path = ROOT / "roles" / self.name

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Public variables."""
        return dict(load(self.path / "defaults" / "main.yml"))

    @cached_property
    def entry_points(self) -> dict[str, dict[str, Any]]:
        """Options of every entry point."""
        specs = load(self.path / "meta" / "argument_specs.yml").get("argument_specs", {})
        return {name: entry.get("options", {}) for name, entry in specs.items()}

    @cached_property
    def options(self) -> dict[str, Any]:
        """Options of all entry points together."""
        return {name: option for options in self.entry_points.values() for name, option in options.items()}

    @cached_property
    def task_files(self) -> list[Path]:
        """Files with tasks and handlers."""
        return sorted([*self.path.glob("tasks/**/*.yml"), *self.path.glob("handlers/**/*.yml")])

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks and blocks."""
        return [task for file in self.task_files for task in walk(load(file) or [], str(file.relative_to(ROOT)))]


@pytest.fixture(params=ROLES)
def role(request: pytest.FixtureRequest) -> Role:
    return Role(request.param)


def every_option(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Options with those inside them, and their full names."""
    for name, option in options.items():
        yield prefix + name, option
        yield from every_option(option.get("options", {}), f"{prefix}{name}.")


@cache
def public_names() -> set[str]:
    """Variables that one role may hand to another."""
    return {name for other in ROLES for name in Role(other).options}


@cache
def secret_names() -> set[str]:
    """Variables that hold a secret, and those made of one."""
    options = [item for other in ROLES for item in every_option(Role(other).options)]
    names = {name.rpartition(".")[2] for name, option in options if option.get("no_log")}
    names |= {name for name, _ in options if re.search(r"_(password|passphrase|token|secret)$", name)}
    variables = [
        item
        for other in ROLES
        for file in ("defaults", "vars")
        for item in load(Role(other).path / file / "main.yml").items()
    ]
    while made := {name for name, value in variables if mentions(yaml.safe_dump(value), names)} - names:
        names |= made
    return names


def test_a_role_has_its_files(role: Role) -> None:
    needed = ["defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml", "README.md"]
    assert [file for file in needed if not (role.path / file).is_file()] == []


def test_every_default_is_specified(role: Role) -> None:
    assert sorted(set(role.defaults) - set(role.options)) == []


def test_every_option_has_a_default_or_is_required(role: Role) -> None:
    """An option without a default must be required and stand in the defaults as a comment; entry points may have their own."""
    text = (role.path / "defaults" / "main.yml").read_text()
    options = role.entry_points.get("main", {})
    missing = [name for name in options if name not in role.defaults and not options[name].get("required")]
    required = {name for name, option in options.items() if option.get("required")}
    assert missing == []
    assert [name for name in required if name in role.defaults or f"\n# {name}: " not in text] == []


def test_defaults_and_specification_have_the_same_values(role: Role) -> None:
    """A secret's default stays out of the specification: a failed check prints that, resolved."""
    both = {name: option for name, option in role.options.items() if name in role.defaults}
    stated = {name: one_line(option["default"]) for name, option in both.items() if "default" in option}
    unstated = {name for name, option in both.items() if "default" not in option}
    assert stated == {name: one_line(role.defaults[name]) for name in stated}
    assert unstated == {name for name, option in both.items() if option.get("no_log") and role.defaults[name]}


def test_options_have_a_type_and_a_description_in_sentences(role: Role) -> None:
    for name, option in every_option(role.options):
        text = option["description"] if isinstance(option["description"], str) else " ".join(option["description"])
        assert option.get("type"), f"{name} has no type"
        assert text[0].isupper(), f"{name}: {text}"
        assert text.endswith("."), f"{name}: {text}"


def test_options_that_hold_a_secret_say_so(role: Role) -> None:
    pattern = re.compile(r"(password|passphrase|token|secret|secret_access_key|operator_key)$")
    assert [
        name for name, option in every_option(role.options) if pattern.search(name) and not option.get("no_log")
    ] == []


def test_public_variables_carry_the_name_of_the_role(role: Role) -> None:
    assert [name for name in {*role.defaults, *role.options} if not name.startswith(f"{role.name}_")] == []


def test_public_variables_are_used(role: Role) -> None:
    """In a task, template, variable or another default; not only in what describes them."""
    used: set[str] = set()
    for file in (ROOT / "roles").rglob("*"):
        if file.suffix not in {".yml", ".j2"} or "meta" in file.parts:
            continue
        lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
        if file.parent.name == "defaults":
            lines = [re.sub(r"^\w+:", "", line) for line in lines]
        used |= set(re.findall(r"\w+", "\n".join(lines)))
    assert sorted(set(role.defaults) - used) == []


def test_internal_names_carry_the_name_of_the_role(role: Role) -> None:
    """Facts, results, loop variables and variables of tasks, except what is handed to a role under its public name."""
    internal, public = f"__{role.name}_", public_names()
    for task in role.tasks:
        facts = task.arguments if task.module == "ansible.builtin.set_fact" else {}
        names = [*facts, *filter(None, [task.data.get("register"), task.data.get("loop_control", {}).get("loop_var")])]
        wrong = [name for name in names if not name.startswith((internal, "ansible_"))]
        variables = [name for name in task.data.get("vars", {}) if name not in public]
        wrong += [name for name in variables if not name.startswith((internal, "ansible_"))]
        assert wrong == [], str(task)
    assert [name for name in load(role.path / "vars" / "main.yml") if not name.startswith(internal)] == []


def test_files_are_short(role: Role) -> None:
    limits = dict.fromkeys(role.task_files, 80)
    limits |= {role.path / "tasks" / "main.yml": 60, role.path / "defaults" / "main.yml": 100}
    lengths = {
        str(file.relative_to(ROOT)): (len(file.read_text().splitlines()), limit) for file, limit in limits.items()
    }
    assert [file for file, (lines, limit) in lengths.items() if lines > limit and file not in LONG_FILES] == []


def test_every_task_has_a_name(role: Role) -> None:
    assert [str(task) for task in role.tasks if not task.data.get("name")] == []


def test_modules_are_named_in_full(role: Role) -> None:
    """`namespace.collection.module`, or a module of ours."""
    modules = {task.module for task in role.tasks if task.module}
    assert [name for name in modules if name.count(".") < 2 and name not in OWN_MODULES] == []


def test_errors_are_not_ignored(role: Role) -> None:
    assert [str(task) for task in role.tasks if "ignore_errors" in task.data] == []


def hides_its_password(task: Task) -> bool:
    """Whether the task's module is ours, takes its secrets as `password` and `key` only, and hides those itself."""
    module = OWN_MODULES.get(task.module or "", "")
    hidden = set(
        re.findall(r"""["']?\b(password|key)["']?\s*[:=]\s*(?:\{|dict\()[^})]*no_log["']?\s*[:=]\s*True""", module)
    )
    arguments = {key: value for key, value in task.arguments.items() if key not in hidden}
    others = [{key: value for key, value in task.data.items() if key != task.module}, arguments]
    return bool(hidden) and not mentions(yaml.safe_dump(others), secret_names())


def test_tasks_with_a_secret_hide_it(role: Role) -> None:
    secrets = secret_names()
    templates = {file.name for file in role.path.glob("templates/*") if mentions(file.read_text(), secrets)}
    for task in role.tasks:
        if mentions(task.text, secrets) or any(name in task.text for name in templates):
            assert task.no_log == SECURE_LOGGING or hides_its_password(task), str(task)


def containers(role: Role) -> list[Task]:
    """Tasks that start a container."""
    found = [task for task in role.tasks if task.module == "community.docker.docker_container"]
    return [task for task in found if "image" in task.arguments and task.arguments.get("state") != "absent"]


def test_containers_may_do_nothing_they_need_not(role: Role) -> None:
    for task in containers(role):
        arguments = task.arguments
        assert arguments.get("user") == "{{ platform_uid }}", str(task)
        assert arguments.get("read_only") is True, str(task)
        assert arguments.get("cap_drop") == ["ALL"], str(task)
        assert "no-new-privileges" in arguments.get("security_opts", []), str(task)
        assert {"privileged", "capabilities"}.isdisjoint(arguments), str(task)


def test_containers_that_stay_have_limits_and_a_health_check(role: Role) -> None:
    """A container that ends with its task (`detach: false`) needs none of it."""
    needed = {"memory", "pids_limit", "restart_policy", "healthcheck", "log_options"}
    for task in containers(role):
        if task.arguments.get("detach") is not False:
            assert sorted(needed - set(task.arguments)) == [], str(task)
            # That of the edge is also made beside the one that runs, to take over from it.
            assert task.arguments.get("state") in {"healthy", "{{ __edge_state | default('healthy') }}"}, str(task)


def test_what_all_wait_for_gets_the_processor_before_models() -> None:
    """Engines make a weight of shares in two ways: by one of them 2048 is less than the default, which models have."""
    for role in ("edge", "postgres", "tracking"):
        (task,) = [task for task in containers(Role(role)) if "healthy" in task.arguments.get("state", "")]
        assert task.arguments.get("cpu_shares") == f"{{{{ {role}_cpu_shares }}}}"
        assert Role(role).defaults[f"{role}_cpu_shares"] >= 8192
    assert "NanoCPUs" not in (ROOT / "roles/serving/templates/services.yml.j2").read_text()


@pytest.mark.parametrize(
    "file", sorted((ROOT / "roles").glob("*/templates/*Dockerfile*")), ids=lambda file: str(file.parts[-3])
)
def test_images_take_files_by_copy_and_hold_no_secret(file: Path) -> None:
    """CIS Docker Benchmark 4.9 and 4.10: ADD fetches and unpacks what nobody checked."""
    text = file.read_text()
    assert re.findall(r"^ADD\b", text, re.MULTILINE) == []
    assert not mentions(text, secret_names())


def test_containers_are_tested_for() -> None:
    """The two tests above see the platform's containers."""
    assert {role for role in ROLES if containers(Role(role))} >= {"postgres", "tracking", "edge", "training"}


def test_preflight_checks_every_role_that_site_runs() -> None:
    imported = [play["ansible.builtin.import_playbook"] for play in load(ROOT / "site.yml")]
    plays = [play for file in imported for play in load(ROOT / file)]
    run = list(dict.fromkeys(entry["role"] for play in plays for entry in play["roles"]))
    assert Role("preflight").defaults["preflight_roles"] == ["platform", *(role for role in run if role != "preflight")]


def test_preflight_runs_every_validation() -> None:
    text = (ROOT / "roles" / "preflight" / "tasks" / "main.yml").read_text()
    named = re.search(r"__preflight_validated: \[(.*)\]", text)
    assert named
    listed = Role("preflight").defaults["preflight_roles"]
    assert named[1].split(", ") == [name for name in listed if (Role(name).path / "tasks" / "validate.yml").exists()]


@pytest.mark.parametrize("name", Role("preflight").defaults["preflight_roles"])
def test_preflight_can_read_templates_as_text(name: str) -> None:
    """Preflight takes the specifications of other roles as they stand, so a default that is a template must pass as text."""
    options = Role(name).entry_points["main"].items()
    templates = {key: option for key, option in options if "{{" in str(option.get("default"))}
    allowed = {("str", None), ("path", None), ("raw", None), ("list", "str"), ("list", "raw")}
    assert [key for key, option in templates.items() if (option["type"], option.get("elements")) not in allowed] == []


def test_the_keys_of_served_models_are_documented() -> None:
    documented = INVENTORY["served_models"]["options"]
    assert list(documented) == list(KEYS)
    assert list(documented["challenger"]["options"]) == list(CHALLENGER_KEYS)
    (complete,) = served_models([{"name": "x"}])
    assert {key: complete[key] for key, option in documented.items() if "default" in option} == {
        key: option["default"] for key, option in documented.items() if "default" in option
    }


@pytest.mark.parametrize(
    ("file", "text"),
    [pytest.param(file, text, id=str(file.relative_to(ROOT))) for file, text in generated(ROOT).items()],
)
def test_generated_documentation_is_up_to_date(file: Path, text: str | None) -> None:
    assert text is not None, f"{file} lacks the lines between which tools/generate_docs.py writes"
    assert file.read_text() == text, "run: python tools/generate_docs.py"
