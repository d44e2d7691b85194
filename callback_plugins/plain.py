"""Ansible's own output in plain words: a long task says its name while it runs, and a failure says its message once."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import MutableMapping
from typing import Any

from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
name: plain
type: stdout
short_description: Ansible's own output in plain words
description:
  - Ansible holds the heading of a task back until its first result where skipped tasks are not shown. This plug-in prints it when the task has run
    for some seconds, and how long it took.
  - A failure that says what is wrong is printed once, without what Ansible wraps around it. C(-v) shows all there is.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements: [set as stdout_callback in ansible.cfg]
options:
  heading_after:
    description: Seconds after which a task that still runs says its name.
    type: float
    default: 3
    env: [{name: ANSIBLE_PLAIN_HEADING_AFTER}]
  again_after:
    description: Seconds after which it says that it still runs, again and again.
    type: float
    default: 30
    env: [{name: ANSIBLE_PLAIN_AGAIN_AFTER}]
"""

# What Ansible puts before the message of a filter of ours, or of a module.
WRAPPING = re.compile(
    r"(Task failed: |Action failed: |Module failed: |Finalization of task args for '[^']*' failed: |Error while resolving value for '[^']*': "
    r"|Error while evaluating conditional: |Error rendering template: |The conditional check '.*?' failed\. The error was: "
    r"|The (?:filter|lookup|test) plugin '[^']*' failed: )+",
    re.DOTALL,
)
TEMPLATE = re.compile(r"Finalization|Error while|Error rendering|The conditional check")
OWN_WORDS = re.compile(r"The (?:filter|lookup|test) plugin '[^']*' failed: ")
# What a failed check says besides its message.
NOISE = ("argument_errors", "argument_spec_data", "validate_args_context", "assertion", "evaluated_to")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plain(result: MutableMapping[str, Any]) -> None:
    """Leave of a failed result what a person needs, once."""
    message = result.get("msg")
    if not isinstance(message, str) or not message:
        # Where the result is hidden, the error is all that says what is wrong.
        return
    wrapping = WRAPPING.match(message)
    if wrapping and TEMPLATE.search(wrapping[0]) and not OWN_WORDS.search(wrapping[0]):
        # A mistake in a template: the place where it stands is what is needed.
        return
    result["msg"] = ESCAPES.sub("", message[wrapping.end() :] if wrapping else message)
    for name in ("exception", *NOISE):
        result.pop(name, None)


class CallbackModule(Default):
    """Ansible's own output, with headings in time and messages once."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "plain"

    def __init__(self) -> None:
        """Watch nothing yet."""
        super().__init__()
        self.printing = threading.RLock()
        self.watched: Any = None
        self.timer = threading.Timer(0, lambda: None)
        self.began = 0.0
        self.named = False

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: FBT001 - called by these names
        """Begin to watch a task."""
        self._end_watch()
        super().v2_playbook_on_task_start(task, is_conditional)
        self._begin_watch(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """Begin to watch a handler."""
        self._end_watch()
        super().v2_playbook_on_handler_task_start(task)
        self._begin_watch(task)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """End the watch of the play before."""
        self._end_watch()
        super().v2_playbook_on_play_start(play)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End the last watch."""
        self._end_watch()
        super().v2_playbook_on_stats(stats)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: FBT001, FBT002 - as Ansible calls it
        """Print a failure, plainly."""
        if not self._display.verbosity:
            plain(result.result)
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Print the failure of one item of a loop, plainly."""
        if not self._display.verbosity:
            plain(result.result)
        super().v2_runner_item_on_failed(result)

    def _begin_watch(self, task: Any) -> None:
        self.watched, self.began = task, time.monotonic()
        self._look_again(task, self.get_option("heading_after"))

    def _look_again(self, task: Any, seconds: float) -> None:
        self.timer = threading.Timer(seconds, self._still_running, [task])
        self.timer.daemon = True
        self.timer.start()

    def _still_running(self, task: Any) -> None:
        with self.printing:
            if task is not self.watched:
                return
            if self._last_task_banner != task._uuid:  # noqa: SLF001 - how Ansible's own plug-in knows a task
                self._print_task_banner(task)
            elif self.named:
                self._display.display(f"  ... {self._seconds()} s")
            self.named = True
            self._look_again(task, self.get_option("again_after"))

    def _end_watch(self) -> None:
        with self.printing:
            self.watched = None
            self.timer.cancel()
            if self.named:
                self._display.display(f"  took {self._seconds()} s")
            self.named = False

    def _print_task_banner(self, task: Any) -> None:
        with self.printing:
            if self._last_task_banner != task._uuid:  # noqa: SLF001 - see above
                super()._print_task_banner(task)

    def _seconds(self) -> int:
        return round(time.monotonic() - self.began)
