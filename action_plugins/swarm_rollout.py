"""Call the module swarm_rollout piece by piece, and say between two pieces how far each service is."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

# So long is one piece. A rollout that has nothing to do, or does it faster, is one call.
SECONDS = 10


class ActionModule(ActionBase):
    """The rollout as a task."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take the rollout to its end."""
        super().run(tmp, task_vars)
        resume: dict[str, Any] = {}
        diff: list[Any] = []
        while True:
            arguments = {**self._task.args, "slice": SECONDS, "resume": resume}
            result: dict[str, Any] = self._execute_module("swarm_rollout", module_args=arguments, task_vars=task_vars)
            for line in result.pop("news", []):
                self._display.display(f"  {line}")
            resume = result.pop("unfinished", {})
            diff += result.get("diff", [])
            if not resume:
                return result | ({"diff": diff} if diff else {})
