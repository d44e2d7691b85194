"""Print how long every play of a run took and its share of the whole, and what the run did to the models."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: phases
type: aggregate
short_description: Print how long every play of a run took
description: A line for each play at the end of the run, in the order of the plays, and what the models' rollout said with set_stats.
requirements: [enabled in ansible.cfg]
"""


class CallbackModule(CallbackBase):
    """Measure plays; a playbook of this repository has one play for each phase."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "phases"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        """Start the clock of the run."""
        super().__init__()
        self.began = time.monotonic()
        self.plays: list[tuple[str, float]] = []

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Note when a play starts."""
        self.plays.append((play.get_name().strip(), time.monotonic()))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the table."""
        ends = [start for _, start in self.plays[1:]] + [time.monotonic()]
        total = ends[-1] - self.began
        self._display.banner("SECONDS")
        for (name, start), end in zip(self.plays, ends, strict=True):
            self._display.display(f"{end - start:8.1f}  {(end - start) / total:5.0%}  {name}")
        self._display.display(f"{total:8.1f}   100%  the whole run")
        if models := stats.custom.get("_run", {}).get("models"):
            self._display.banner("MODELS")
            self._display.display(models)
