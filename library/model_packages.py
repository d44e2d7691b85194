#!/usr/bin/python
"""Say whether the packages that a model needs are on this host already."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_packages
short_description: Say whether the packages that a model needs are on this host already
description:
  - The label C(mlflow-anywhere.packages) of the runtime image says which ones it has. Requirements that it fulfils need no package index and no container.
  - The label C(mlflow-anywhere.added-packages) of a model's image stands for those that it adds. One of the same requirements and runtime has them already.
  - Changes nothing.
options:
  runtime:
    description: Name and tag of the runtime image.
    type: str
    required: true
  requirements:
    description: The model's requirements, one a line.
    type: list
    elements: str
    required: true
  sources:
    description: What may be built from source for this model, C(name==version) each. An image in whose packages more was allowed is another one's.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Look for the packages of the model
  model_packages:
    runtime: example/runtime:1
    requirements: [scikit-learn==1.6.1]
  register: packages
"""

RETURN = r"""
key:
  description: What the label of an image with these packages says; empty where the runtime image has them.
  returned: success
  type: str
image:
  description: The id of an image that has them, empty where there is none.
  returned: success
  type: str
"""

import hashlib
import json
import re
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine, EngineError, socket_path

RUNTIME_LABEL = "mlflow-anywhere.packages"
MODEL_LABEL = "mlflow-anywhere.added-packages"
# With extras, markers or anything else it is uv that has to judge.
PLAIN = re.compile(r"([A-Za-z0-9._-]+)\s*==\s*([A-Za-z0-9.+!_-]+)(\s+--hash[ =]\S+)*", re.ASCII)


def pin(name: str, version: str) -> str:
    """Return a package with its version in the one spelling that can be compared."""
    return re.sub(r"[-_.]+", "-", name).lower() + "==" + version


def fulfils(packages: str, requirements: list[str]) -> bool:
    """Return whether `packages`, each `name==version`, are certain to fulfil the requirements."""
    there = {pin(*package.split("==", 1)) for package in packages.split() if "==" in package}
    plain = [PLAIN.fullmatch(line.strip()) for line in requirements]
    return all(found is not None and pin(found[1], found[2]) in there for found in plain)


def key_of(runtime: str, requirements: list[str], sources: list[str]) -> str:
    """Return what stands for the packages that the requirements add to the runtime image with this id."""
    parts = [runtime, sorted(requirements), *([sorted(sources)] if sources else [])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def image_with(engine: Engine, key: str) -> str:
    """Return the id of an image with these packages, or nothing."""
    filters = quote(json.dumps({"label": [f"{MODEL_LABEL}={key}"], "dangling": ["false"]}))
    found = engine.get(f"/images/json?filters={filters}") or []
    return str(max(found, key=lambda image: image["Created"])["Id"]) if found else ""


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "runtime": {"type": "str", "required": True},
            "requirements": {"type": "list", "elements": "str", "required": True},
            "sources": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    runtime, requirements = module.params["runtime"], module.params["requirements"]
    engine = Engine(socket_path())
    try:
        found = engine.image(runtime)
        if not found:
            module.fail_json(msg=f"The packages of {runtime} cannot be looked up: there is no image {runtime}")
        labels = (found.get("Config") or {}).get("Labels") or {}
        key = (
            ""
            if fulfils(labels.get(RUNTIME_LABEL, ""), requirements)
            else key_of(found["Id"], requirements, module.params["sources"])
        )
        module.exit_json(changed=False, key=key, image=image_with(engine, key) if key else "")
    except EngineError as error:
        module.fail_json(msg=f"The packages of {runtime} cannot be looked up: {error}")


if __name__ == "__main__":
    main()
