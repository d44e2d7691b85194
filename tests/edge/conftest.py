"""Render the role's templates from its defaults, without a host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).parents[2] / "roles"
EDGE = ROLES / "edge"

MODELS = [
    {"name": "iris"},
    {
        "name": "digits",
        "engine": "api",
        "replicas": 2,
        "port": 9201,
        "challenger": {"alias": "challenger", "percent": 10},
    },
]
HOST = {
    "inventory_dir": "/inventories/local",
    "ansible_managed": "Ansible managed",
    "ansible_facts": {"user_uid": 0, "user_dir": "/root"},
    "served_models": MODELS,
    "serving_default_model": "digits",
}

Render = Callable[..., str]


def trusted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def variables(overrides: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for path in (ROLES / "platform/defaults/main.yml", EDGE / "defaults/main.yml", EDGE / "vars/main.yml"):
        merged |= yaml.safe_load(path.read_text())
    return {key: trusted(value) for key, value in (merged | HOST | overrides).items()}


@pytest.fixture(scope="session")
def render() -> Render:
    """Text of a template of the role for the given variables."""
    init_plugin_loader()
    for plugins in (ROLES.parent / "filter_plugins", EDGE / "filter_plugins"):
        filter_loader.add_directory(str(plugins))

    def rendered(name: str, **overrides: Any) -> str:
        loader = DataLoader()
        loader.set_basedir(str(EDGE))
        template = (EDGE / "templates" / name).read_text()
        result = Templar(loader, variables(overrides)).template(
            trust_as_template("#jinja2: trim_blocks: True, lstrip_blocks: False\n" + template)
        )
        return str(result)

    return rendered
