"""Load filters and tests once in a run; Ansible's workers, a process for each task and host, would each load all of them again."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = """
name: preload
type: aggregate
short_description: Load filters and tests once in a run
description: Workers are copies of the process that this plug-in is in, and find loaded what it loaded.
requirements: [enabled in ansible.cfg]
"""


class CallbackModule(CallbackBase):
    """Loads before each task what is not loaded yet: a role that is included brings filters of its own."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002, FBT001 - called by these names
        """Ask for one of each, with which all of them come."""
        filter_loader.get("bool")
        test_loader.get("defined")
