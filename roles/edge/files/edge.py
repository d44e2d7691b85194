#!/usr/bin/python3 -IS
"""Run and reload HAProxy inside the edge's container."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

CONFIG = Path("/edge")
CERTIFICATES = CONFIG / "certificates"
RUN = Path("/run/haproxy")
LOADED = RUN / "loaded"
STATE = RUN / "servers.state"
CONFINED = RUN / "haproxy.cfg"
ADMIN = RUN / "admin.sock"
MASTER = RUN / "master.sock"
HEALTH = ("127.0.0.1", 8404)
HAPROXY = ["/usr/sbin/haproxy", "-f", str(CONFINED)]
# Networks on which the edge asks and is never asked.
POOL = os.environ.get("EDGE_INTERNAL_POOL", "")
ROUTES = Path("/proc/net/fib_trie")
ANSWER_TIMEOUT = 30
# Bytes of lines that wait for the engine, some 2,700 requests; seconds between two pieces.
LOG_BUFFER = 2**20
LOG_PAUSE = 0.05
# Seconds between two looks at the certificates.
WATCH_PAUSE = 2.0
WATCH_LONGEST = 60.0


def digest(*directories: Path) -> str:
    """One hash over everything HAProxy reads, or over the files of other directories."""
    total = hashlib.sha256()
    for directory in directories or (CONFIG, CERTIFICATES):
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            if path.is_file() and not path.name.startswith("candidate") and path.suffix != ".new":
                total.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return total.hexdigest()


def watched() -> str:
    """What changes by itself: certificates, and the addresses of the container."""
    return " ".join([digest(CERTIFICATES), *addresses()])


def addresses() -> list[str]:
    """The IPv4 addresses of the container but those on inner networks; none where there are no such networks."""
    if not POOL:
        return []
    pool = ipaddress.ip_network(POOL, strict=False)
    found = re.findall(r"-- (\S+)\n\s+/32 host LOCAL", ROUTES.read_text())
    return sorted({"127.0.0.1", *(one for one in found if ipaddress.ip_address(one) not in pool)})


def confined(config: str, listening: list[str]) -> str:
    """The configuration with every port that would be open on all addresses open on these alone."""

    def bind(match: re.Match[str]) -> str:
        return match[1] + ",".join(f"{address}:{match[2]}" for address in listening)

    return re.sub(r"(?m)^(\s*bind )\*?:(\d+)", bind, config) if listening else config


def write_confined(listening: list[str]) -> None:
    """Write the configuration that HAProxy reads."""
    CONFINED.write_text(confined((CONFIG / "haproxy.cfg").read_text(), listening))


def ask(path: Path, command: str) -> str:
    """The answer of one of HAProxy's sockets to a command."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_TIMEOUT)
        connection.connect(str(path))
        connection.sendall(command.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")


def health() -> None:
    """Fail unless the worker answers HTTP."""
    with socket.create_connection(HEALTH, timeout=2) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = connection.recv(4096)
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        sys.exit(f"/healthz answered {answer[:80]!r}")


def run() -> int:
    """Keep HAProxy (a master that reloads, workers that serve) and pass its log on; return how it ended."""
    LOADED.write_text(f"{digest()} {watched()}")
    # Before HAProxy reads them: what is replaced from now on is loaded by the watch.
    found = watched()
    write_confined(addresses())
    STATE.write_text("1\n")
    log, lines = os.pipe()
    with contextlib.suppress(OSError):  # Beyond what the host allows to a user, the buffer stays at 64 KiB.
        fcntl.fcntl(lines, fcntl.F_SETPIPE_SZ, LOG_BUFFER)
    running: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _: object) -> None:
        if not running:
            sys.exit(128 + number)
        running[0].send_signal(number)

    # The first process of a container gets no signal that it does not ask for.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, hand_on)
    with subprocess.Popen([*HAPROXY, "-W", "-db", "-S", f"{MASTER},mode,600"], stdout=lines) as haproxy:  # noqa: S603 - constants
        running.append(haproxy)
        threading.Thread(target=watch, args=(found,), daemon=True).start()
        os.close(lines)
        pass_on(log, sys.stdout.fileno())
    return haproxy.returncode


def pass_on(log: int, output: int) -> None:
    """Copy the log to its end, many lines at a time: the engine does most of its work for each piece that it is handed."""
    while lines := os.read(log, LOG_BUFFER):
        while lines:
            lines = lines[os.write(output, lines) :]
        time.sleep(LOG_PAUSE)


def watch(loaded: str) -> None:
    """Load certificates and listen on addresses that somebody else has changed since `loaded`, which tells them."""
    pause = WATCH_PAUSE
    while True:
        time.sleep(pause)
        try:
            found = watched()
            if found != loaded:
                reload()
                loaded = found
            pause = WATCH_PAUSE
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it was, the next certificate must be loaded
            # What is refused now will be refused at once again: not every other second in the log.
            pause = min(2 * pause, WATCH_LONGEST)
            print(
                f"What changed is not loaded, tried again in {pause:g} s: {error}",
                file=sys.stderr,
                flush=True,
            )


def reload() -> None:
    """Load what changed since the last start or reload without closing a connection; one caller after the other."""
    with (RUN / "reload.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        load()


def load() -> None:
    """Load what changed."""
    wanted = f"{digest()} {watched()}"
    if LOADED.read_text() == wanted:
        print("unchanged")
        return
    write_confined(addresses())
    check = subprocess.run([*HAPROXY, "-c"], capture_output=True, text=True, check=False)  # noqa: S603 - constants
    if check.returncode:
        sys.exit(f"HAProxy refuses the new configuration and goes on with the old one:\n{check.stdout}{check.stderr}")
    # New workers know at once which servers there are, and in which state.
    STATE.write_text(ask(ADMIN, "show servers state"))
    answer = ask(MASTER, "reload")
    if "Success=1" not in answer:
        sys.exit(f"HAProxy did not reload and goes on with the old configuration:\n{answer}")
    LOADED.write_text(wanted)
    until = time.monotonic() + ANSWER_TIMEOUT
    while True:
        try:
            health()
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    print("reloaded")


if __name__ == "__main__":
    commands = {"run": run, "reload": reload}
    command = commands.get(" ".join(sys.argv[1:]))
    if command is None:
        sys.exit(f"usage: edge {'|'.join(commands)}")
    sys.exit(command())
