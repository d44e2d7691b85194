"""Hold a platform's lock for as long as this run of Ansible lives."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import hmac
import io
import json
import multiprocessing
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

DOCUMENTATION = """
name: run_lock
short_description: Keep other runs away from a platform
description:
  - Takes the platform's lock on the host that the task runs on, or refuses with the name of the run that has it.
  - A process that is forked here keeps it until this run of Ansible ends in any way; if that process ends too, the lock is lost within 60 seconds.
  - In check mode it takes nothing and is not refused.
options:
  platform: {description: Name of the platform., type: str, required: true}
  take_over: {description: Id of a run that is ended and gives its lock to this one., type: str, default: ""}
  again: {description: Whether the run signs in as another user from now on., type: bool, default: false}
  replaces: {description: The process that has kept the lock so far., type: int, default: 0}
"""

# What does the work on the host.
PROGRAM = Path(__file__).resolve().parents[1] / "roles/lock/files/run_lock.py"

# Seconds between two signs of life; several fit into the lease.
BEAT = 10.0
# The longest wait for a host that does not answer, such as one that restarts.
LONGEST_BEAT = 20.0
MINUTE = 60


def machine() -> str:
    """Return what tells apart the machines, and the containers on them, whose process numbers mean different processes."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def ended(process: int, seconds: float = 0) -> bool:
    """Whether a process of this machine has ended, or does so within these seconds."""
    if not hasattr(os, "pidfd_open"):
        # Not Linux.
        return _ended_elsewhere(process, seconds)
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)


def _ended_elsewhere(process: int, seconds: float) -> bool:
    """Look again and again, where no process can be waited for that is another one's child."""
    until = time.monotonic() + seconds
    while True:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.2)


def is_dead(holder: dict[str, Any]) -> bool:
    """Whether the run that holds the lock ran here and is seen to have ended."""
    return bool(holder.get("machine")) and holder["machine"] == machine() and ended(int(holder["process"]))


def plain(value: Any) -> str:
    """Return what another user's process says of itself as one short line of printable text."""
    return "".join(sign if sign.isprintable() else "?" for sign in str(value))[:100]


def span(seconds: float) -> str:
    """Return a length of time as people say it."""
    return f"{seconds:.0f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.0f} min"


def described(holder: dict[str, Any], now: float) -> str:
    """Say whose run it is and since when."""
    if not holder["id"]:
        return plain(holder["who"])
    since = float(holder["since"])
    return (
        f"{plain(holder['who'])}, process {plain(holder['process'])} there, {plain(holder['command'])}, "
        f"since {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(since))} UTC ({span(max(now - since, 0))} ago), "
        f"last heard of {span(float(holder['silent']))} ago"
    )


def refusal(platform: str, host: str, holder: dict[str, Any], take_over: str, now: float) -> str:
    """Say who has the lock and how to get it."""
    whose = f"Another run is under way on the platform {platform} ({host}): {described(holder, now)}."
    if not holder["id"]:
        return f"{whose} See there: ss -xlp | grep mlflow-anywhere/run"
    if take_over == holder["id"]:
        return (
            f"{whose} lock_take_over={take_over} cannot end it: {plain(holder['user'])} holds the lock on {host}, and this run signs in there as "
            f"another user. Sign in as {plain(holder['user'])}, or add --become and repeat the command."
        )
    return (
        f"{whose} Nothing was changed. Wait for its end. A run that was killed or lost its connection gives way by itself, at the latest "
        f"{float(holder['lease']):.0f} s after it was last heard of. "
        f"If it hangs: repeat the command with -e lock_take_over={plain(holder['id'])}, which ends it."
    )


class Silent:
    """Takes what the keeper would display: nobody reads it."""

    def send_display(self, *_: Any, **__: Any) -> None:
        """Forget it."""


class ActionModule(ActionBase):
    """Take the lock on the host, and leave a process behind that keeps it."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take the lock or say who has it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, asked = self.validate_argument_spec(
            {
                "platform": {"type": "str", "required": True},
                "take_over": {"type": "str", "default": ""},
                "again": {"type": "bool", "default": False},
                "replaces": {"type": "int", "default": 0},
            }
        )
        platform, take_over = asked["platform"], asked["take_over"]
        host = self._task.delegate_to or (task_vars or {}).get("inventory_hostname", "localhost")
        try:
            if self._task.check_mode:
                holder = self._ask(do="tell", platform=platform)
                if holder:
                    self._display.warning(
                        f"Another run is under way on the platform {platform} ({host}): {described(holder, time.time())}."
                    )
                return result
            run = self._this_run()
            holder = self._ask(do="take", platform=platform, token=self._token(), run=run, end=take_over)
            if holder and not holder["own"] and is_dead(holder):
                holder = self._ask(do="take", platform=platform, token=self._token(), run=run, end=holder["id"])
        except AnsibleConnectionFailure:
            # Ansible says itself that a host is unreachable.
            raise
        except AnsibleError as error:
            return {**result, "failed": True, "msg": f"{host} keeps two runs apart, and could not be asked: {error}"}
        if not holder or not holder["own"]:
            holder = holder or {"id": "", "who": "a process that does not answer"}
            return {**result, "failed": True, "msg": refusal(platform, host, holder, take_over, time.time())}
        if holder.get("new") or asked["again"]:
            result["keeper"] = self._leave_keeper(platform, run, host)
        if asked["again"] and asked["replaces"]:
            with contextlib.suppress(OSError):
                os.kill(asked["replaces"], signal.SIGKILL)
        return result

    def _token(self) -> str:
        """Return what proves that a process belongs to this run: made of a key that all forks of one controller share."""
        return hmac.new(multiprocessing.current_process().authkey, b"run_lock", hashlib.sha256).hexdigest()

    def _this_run(self) -> dict[str, Any]:
        """Return what others are told about this run."""
        books = ", ".join(Path(book).name for book in context.CLIARGS.get("args", ()))
        return {
            "id": hashlib.sha256(self._token().encode()).hexdigest()[:8],
            "who": f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}",
            "process": os.getppid(),
            "machine": machine(),
            "command": books or "ansible",
        }

    def _ask(self, **request: Any) -> dict[str, Any] | None:
        """Let the host's Python do what is asked, and return its answer."""
        python = sys.executable if self._connection.transport == "local" else "python3"
        program = f"{PROGRAM.read_text()}\nanswer(**{request!r})\n"
        done = self._low_level_execute_command(f"{python} -IS - mlflow-anywhere-run", in_data=program.encode())
        try:
            answer: dict[str, Any] | None = json.loads(done["stdout"].splitlines()[-1])
        except (ValueError, IndexError) as error:
            raise AnsibleError(f"its {python} answered {done['stdout']!r} {done['stderr']!r}") from error
        return answer

    def _leave_keeper(self, platform: str, run: dict[str, Any], host: str) -> int:
        """Fork the process that keeps the lock until the controller's has ended, and return its number."""
        process = os.fork()
        if process:
            return process
        try:
            os.setsid()
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, signal.SIG_DFL)
            # Whoever reads the output of the run waits for nobody here.
            os.closerange(3, 65536)
            sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
            Display()._final_q = Silent()  # noqa: SLF001 - the only way to be rid of a queue that nobody reads
            self._keep(platform, run, host)
        finally:
            os._exit(0)

    def _keep(self, platform: str, run: dict[str, Any], host: str) -> None:
        """Give signs of life; end the run if the lock has gone to another one."""
        controller, pause = run["process"], BEAT
        while not ended(controller, pause):
            try:
                holder = self._ask(do="take", platform=platform, token=self._token(), run=run)
            except AnsibleError:
                pause = min(2 * pause, LONGEST_BEAT)
                continue
            pause = BEAT
            # One that only gave no answer, on a busy host, is still this run's.
            if holder and holder["id"] and not holder["own"]:
                self._end(
                    controller,
                    f"The lock of the platform {platform} ({host}) has gone to {described(holder, time.time())}. This run ends.",
                )
                return
        with contextlib.suppress(AnsibleError):
            self._ask(do="leave", platform=platform, token=self._token())

    @staticmethod
    def _end(controller: int, reason: str) -> None:
        """End the run, and say why where its messages go."""
        with contextlib.suppress(OSError), Path(f"/proc/{controller}/fd/2").open("w", encoding="utf-8") as messages:
            messages.write(f"\n[ERROR]: {reason}\n")
        os.kill(controller, signal.SIGTERM)
