#!/usr/bin/python3 -IS
"""Get the certificate of the edge from an ACME server, and renew it for as long as this container runs.

acme run             asks certbot again and again; certbot renews when it is time, a failure is tried again soon
acme wait SECONDS    waits for the first answer; fails with what the ACME server said
acme health          fails when nobody has asked for too long
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETTINGS = Path("/settings/acme.json")
STATE = Path("/state")
STATUS = STATE / "status.json"
CERTIFICATE = Path("/certificates/edge.pem")
CERTBOT = "/opt/certbot/bin/certbot"
FIRST_PAUSE, LONGEST_PAUSE = 15, 3600
# Longest that certbot takes; what it said that an error message shows.
PATIENCE = 900
SHOWN = 1500


def lineage(settings: dict[str, Any]) -> str:
    """Name of the certificates of one server: certbot would keep another server's for as long as it is good."""
    return "edge-" + hashlib.sha256(settings["directory"].encode()).hexdigest()[:12]


def command(settings: dict[str, Any]) -> list[str]:
    """What certbot is asked: a certificate for the names, unless it has one that is good for a while."""
    directories = [f"--{kind}-dir={STATE / kind}" for kind in ("config", "work", "logs")]
    names = [f"--domain={name}" for name in settings["domains"]] + [
        f"--ip-address={ip}" for ip in settings["addresses"]
    ]
    email = settings["email"]
    return [
        *(CERTBOT, "certonly", "--non-interactive", "--agree-tos", "--no-eff-email", *directories),
        f"--cert-name={lineage(settings)}",
        *(
            "--standalone",
            "--http-01-port=8080",
            "--preferred-challenges=http",
            "--key-type=ecdsa",
            "--max-log-backups=5",
        ),
        *("--keep-until-expiring", "--renew-with-new-domains", f"--server={settings['directory']}", *names),
        *([f"--email={email}"] if email else ["--register-unsafely-without-email"]),
        *([f"--preferred-profile={settings['profile']}"] if settings["profile"] else []),
    ]


def deliver(settings: dict[str, Any]) -> bool:
    """Hand the certificate to the edge if it has another one; the edge notices by itself."""
    live = STATE / "config" / "live" / lineage(settings)
    text = (live / "fullchain.pem").read_bytes() + (live / "privkey.pem").read_bytes()
    if CERTIFICATE.is_file() and CERTIFICATE.read_bytes() == text:
        return False
    new = CERTIFICATE.with_name("edge.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(text)
    new.replace(CERTIFICATE)
    return True


def attempt(settings: dict[str, Any]) -> str:
    """Ask once; return what went wrong, or nothing."""
    environment = {"HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108 - the container's own
    if settings["ca"]:
        environment["REQUESTS_CA_BUNDLE"] = str(SETTINGS.with_name("ca.pem"))
    try:
        asked = subprocess.run(  # noqa: S603 - the names are checked by the role
            command(settings), env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        if asked.returncode:
            return (asked.stdout + asked.stderr).strip()[-SHOWN:]
        if deliver(settings):
            print("A new certificate is there.", flush=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


def run() -> None:
    """Ask, tell how it went, sleep."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = json.loads(SETTINGS.read_text())
    # Whoever waits, waits for an answer of this run.
    STATUS.unlink(missing_ok=True)
    pause = FIRST_PAUSE
    while True:
        problem = attempt(settings)
        new = STATUS.with_suffix(".new")
        sleep = pause if problem else int(settings["check_seconds"])
        new.write_text(json.dumps({"problem": problem, "next": time.time() + sleep, "settings": settings}))
        new.replace(STATUS)
        if problem:
            print(f"No certificate, tried again in {sleep} s; the old one serves on:\n{problem}", flush=True)
        pause = min(2 * pause, LONGEST_PAUSE) if problem else FIRST_PAUSE
        time.sleep(sleep)


def wait(seconds: str) -> None:
    """Wait until the settings of now have brought a certificate."""
    settings = json.loads(SETTINGS.read_text())
    until = time.monotonic() + float(seconds)
    status: dict[str, object] = {}
    while time.monotonic() < until:
        if STATUS.is_file():
            status = json.loads(STATUS.read_text())
            if status["settings"] == settings and not status["problem"]:
                return
        time.sleep(0.5)
    sys.exit(str(status.get("problem") or "certbot has not answered yet"))


def health() -> None:
    """Fail when the next attempt is overdue."""
    if STATUS.is_file() and time.time() > json.loads(STATUS.read_text())["next"] + PATIENCE:
        sys.exit("no attempt for too long")


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"run": run, "wait": wait, "health": health}
    commands[sys.argv[1]](*sys.argv[2:])
