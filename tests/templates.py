"""What a role writes, made of its templates and defaults without a host."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).parents[1] / "roles"
HOST = {
    "inventory_dir": "/inventories/local",
    "ansible_managed": "Ansible managed",
    "ansible_facts": {"user_uid": 0, "user_dir": "/root", "user_id": "root"},
}

Render = Callable[..., str]


load_plugins = cache(init_plugin_loader)


def trusted(value: Any) -> Any:
    """A value whose text is a template, as that of a role's files is."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def variables(role: str) -> dict[str, Any]:
    """The defaults and variables of the role and of `platform`, on which it depends."""
    merged: dict[str, Any] = {}
    for name in ("platform/defaults", "platform/vars", f"{role}/defaults", f"{role}/vars"):
        path = ROLES / name / "main.yml"
        merged |= yaml.safe_load(path.read_text()) if path.exists() else {}
    return merged


def text_renderer(role: str, **given: Any) -> Render:
    """Function that gives what a text of the role becomes, with the variables `given` and those of the call."""
    load_plugins()
    for plugins in (ROLES.parent / "filter_plugins", ROLES / role / "filter_plugins"):
        filter_loader.add_directory(str(plugins))
    loader = DataLoader()
    loader.set_basedir(str(ROLES / role))
    known = variables(role) | HOST | given

    def rendered(text: str, **overrides: Any) -> str:
        values = {key: trusted(value) for key, value in (known | overrides).items()}
        return str(Templar(loader, values).template(trust_as_template(text)))

    return rendered


def renderer(role: str, **given: Any) -> Render:
    """Function that gives what a template of the role becomes, by the name of its file."""
    rendered_text = text_renderer(role, **given)

    def rendered(name: str, **overrides: Any) -> str:
        # As the module `template` does it.
        header = "#jinja2: trim_blocks: True, lstrip_blocks: False\n"
        return rendered_text(header + (ROLES / role / "templates" / name).read_text(), **overrides)

    return rendered
