#!/usr/bin/python
"""Run a command in a running container."""

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_exec
short_description: Run a command in a running container
description:
  - Runs a command in a container over the engine's socket, with nothing but Python's standard library. The library that
    M(community.docker.docker_container_exec) loads takes half a second, longer than most commands.
options:
  container:
    description: Name of the container.
    type: str
    required: true
  argv:
    description: The command and its arguments.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: none
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Load the new configuration
  engine_exec:
    container: edge
    argv: [/usr/local/bin/edge, reload]
  register: loaded
  changed_when: loaded.stdout == 'reloaded'
"""

RETURN = r"""
rc:
  description: The exit code; another than 0 fails the task.
  returned: always
  type: int
stdout:
  description: Its output, without the line break at the end.
  returned: always
  type: str
stderr:
  description: Its complaints, without the line break at the end.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine, EngineError, socket_path


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "argv": {"type": "list", "elements": "str", "required": True},
        },
    )
    container, argv = module.params["container"], module.params["argv"]
    try:
        code, output, errors = Engine(socket_path()).execute(container, argv)
    except EngineError as error:
        module.fail_json(msg=f"{argv[0]} cannot be run in {container}: {error}")
    result = {"changed": True, "rc": code, "stdout": output.rstrip("\n"), "stderr": errors.rstrip("\n")}
    if code:
        module.fail_json(
            msg=f"{argv[0]} in {container} ended with {code}: {result['stderr'] or result['stdout']}", **result
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
