"""The lock of a run, as far as it is on the platform's host.

A process there holds a name in the kernel (an abstract socket), which only one process can have and which ends with it: nothing stays behind. It
answers who holds the lock, and ends when its run says so or is not heard of any more. The text of this file is sent to the host's Python as it is,
hence it imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import hmac
import json
import os
import socket
import struct
import time
from typing import Any

# Seconds after which a run that is not heard of has lost the lock.
LEASE = 60.0
# Seconds that a lock which is just being given up may take, and that an answer may take.
PATIENCE = 10.0
LONGEST = 4096
LONGEST_NAME = 64


def address(platform: str) -> str:
    """Return the name in the kernel; no file belongs to it, and it has no more than 107 bytes."""
    fits = platform if len(platform.encode()) <= LONGEST_NAME else hashlib.sha256(platform.encode()).hexdigest()
    return f"\0mlflow-anywhere/run/{fits}"


class Holder:
    """Holds the lock for one run until that run leaves or falls silent."""

    def __init__(self, listener: socket.socket, token: str, run: dict[str, Any], lease: float = LEASE) -> None:
        """Start with a run that has just been heard of; its token proves who speaks for it, and is told to nobody."""
        self.listener, self.token, self.lease = listener, token, lease
        self.run = {**run, "user": getpass.getuser(), "since": time.time(), "holder": os.getpid()}
        self.heard = time.monotonic()

    def serve(self) -> None:
        """Answer until the lock is given up."""
        while (left := self.heard + self.lease - time.monotonic()) > 0:
            self.listener.settimeout(left)
            with contextlib.suppress(OSError, ValueError, AttributeError):
                connection, _ = self.listener.accept()
                with connection:
                    connection.settimeout(1)
                    if self._answer(connection):
                        return

    def _answer(self, connection: socket.socket) -> bool:
        """Answer one request; whether the lock is given up."""
        asked = json.loads(connection.recv(LONGEST))
        own = hmac.compare_digest(str(asked.get("token", "")), self.token)
        silent = time.monotonic() - self.heard
        if own:
            self.heard = time.monotonic()
        left = asked.get("do") == "leave" and (own or self._may_end(connection, asked))
        reply = {**self.run, "own": own, "left": left, "silent": round(silent, 1), "lease": self.lease}
        connection.sendall(json.dumps(reply).encode())
        return left

    def _may_end(self, connection: socket.socket, asked: dict[str, Any]) -> bool:
        """Whether the other end names this run and belongs to its user or to root, by what the kernel says."""
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", credentials)
        return asked.get("id") == self.run["id"] and user in (0, os.geteuid())


def ask(platform: str, **request: Any) -> dict[str, Any] | None:
    """Return the answer of whoever holds the lock, None if nobody does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(address(platform))
            connection.sendall(json.dumps(request).encode())
            answer = json.loads(connection.recv(LONGEST))
        except (OSError, ValueError):
            return None
    return answer if isinstance(answer, dict) else None


def hold(platform: str, token: str, run: dict[str, Any], lease: float = LEASE) -> bool:
    """Start a process that holds the lock; False if another one has it."""
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address(platform))
        except OSError:
            return False
        listener.listen(16)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return True
        # Twice, so that nobody has to wait for its end.
        os.setsid()
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nothing, stream)
            os.chdir("/")
            with contextlib.suppress(Exception):
                Holder(listener, token, run, lease).serve()
        os._exit(0)


def take(platform: str, token: str, run: dict[str, Any], end: str = "", lease: float = LEASE) -> dict[str, Any]:
    """Take the lock, or go on holding it; ends the run of the id `end`. Returns the holder: `own` says whether it is this run."""
    until = time.monotonic() + PATIENCE
    while True:
        if hold(platform, token, run, lease):
            return {**run, "own": True, "new": True}
        holder = ask(platform, do="keep", token=token)
        if holder and end and holder["id"] == end and not holder["own"]:
            holder = ask(platform, do="leave", id=end)
            if holder and not holder["left"]:
                return holder
        elif holder:
            return holder
        if time.monotonic() > until:
            return holder or {"own": False, "id": "", "who": "a process that does not answer"}
        time.sleep(0.02)


def answer(do: str, platform: str, token: str = "", run: dict[str, Any] | None = None, end: str = "") -> None:
    """Do what a controller asks for and print the answer."""
    reply = take(platform, token, run or {}, end) if do == "take" else ask(platform, do=do, token=token)
    print(json.dumps(reply))
