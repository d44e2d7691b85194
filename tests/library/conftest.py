"""What the tests of several modules need: Ansible's way to module_utils/, and an engine that listens on a socket."""

from pathlib import Path

import ansible.module_utils

from tests.cloud.fixtures import cloud, naps, run, url
from tests.engine import listen

__all__ = ["cloud", "listen", "naps", "run", "url"]

# Ansible ships the directory with a module; here it is found where Ansible would put it.
ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "module_utils"))
