"""Ansible ships module_utils/ with a module; here it is found where Ansible would put it."""

from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "module_utils"))
