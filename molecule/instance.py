"""What tests ask a test instance: its engine, its files, its HTTP services, and where a secret can be read."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from pace import too_late

# An image of the machine's own Python and its libraries.
_PYTHON_IMAGE = """
set -e; mkdir -p /root/image; cd /root/image
for file in /usr/bin/python3 $(ldd /usr/bin/python3 | grep -o '/[^ ]*'); do cp --dereference --parents "$file" .; done
cp --archive --parents /usr/lib/python3* .
tar --create . | docker import - python >/dev/null
"""
_HTTP_CLIENT = (Path(__file__).parent / "shared" / "files" / "http_client.py").read_text()


@dataclass
class Answer:
    """An HTTP answer; status 0 means that nobody answered, and body says why."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class Recap:
    """What a run of a playbook did to one instance."""

    changed: int
    output: str = field(repr=False)


class Instance:
    """One test instance, seen from outside its containers."""

    def __init__(self, host: Any) -> None:
        """Take testinfra's host."""
        self.host = host
        self.name: str = host.backend.get_hostname()

    def sh(self, command: str) -> str:
        """Standard output of a shell command that must succeed."""
        result = self.host.run(command)
        assert result.rc == 0, f"{self.name}: {command!r} ended with {result.rc}\n{result.stdout}\n{result.stderr}"
        return str(result.stdout)

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        """What the engine says about containers, images, networks, volumes or nodes."""
        found: list[dict[str, Any]] = json.loads(self.sh("docker inspect " + " ".join(names)))
        return found

    def service(self, name: str) -> dict[str, Any]:
        """What the engine says about a service of Swarm; a network may have its name."""
        [found] = json.loads(self.sh(f"docker service inspect {name}"))
        return dict(found)

    def containers(self) -> list[str]:
        """Names of all containers, running or not."""
        return self.sh("docker ps --all --format '{{.Names}}'").split()

    def logs(self, container: str, lines: int | str = "all") -> str:
        """Both output streams of a container."""
        return str(self.host.run(f"docker logs --tail {lines} {container} 2>&1").stdout)

    def http(
        self,
        url: str,
        body: Any = None,
        *,
        method: str = "",
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        """Ask from inside the instance, past proxies and without checking certificates; a body that is no text is sent as JSON."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, str):
            body = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        if auth:
            sent["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
        asked = {
            "url": url,
            "body": body,
            "headers": sent,
            "method": method or ("GET" if body is None else "POST"),
            "timeout": timeout,
        }
        argument = base64.b64encode(json.dumps(asked).encode()).decode()
        return Answer(*json.loads(self.sh(f"python3 -c {shlex.quote(_HTTP_CLIENT)} {argument}")))

    def python_image(self) -> str:
        """An image that holds /usr/bin/python3 and nothing else, for engines that have none of the product's; nothing is pulled."""
        self.sh(_PYTHON_IMAGE)
        return "python"

    def modes(self, directory: str) -> dict[str, str]:
        """Mode, owner and group of everything below a directory, such as `0400 10001:10001`."""
        lines = self.sh(f"find {directory} -printf '%p\\t%#m %U:%G\\n'").splitlines()
        return dict(line.split("\t") for line in lines)

    def leaks(self, secrets: dict[str, str]) -> dict[str, list[str]]:
        """Where somebody who may not read a secret's file can read the secret, as it is or escaped: places by the secret's name, those of none left out."""
        places = {
            "containers": "docker ps -aq | xargs -r docker inspect",
            "services": "docker service ls -q | xargs -r docker service inspect",
            "configs": "docker config ls -q | xargs -r docker config inspect",
            "images": "docker images -q | sort -u | xargs -r docker inspect",
            "image history": "docker images -q | sort -u | xargs -r -n 1 docker history --no-trunc",
            "process list": "ps -eww -o args",
            "environments": "cat /proc/[0-9]*/environ | tr '\\0' '\\n'",
            "container logs": "for c in $(docker ps -aq); do docker logs $c; done 2>&1",
            "journal": "journalctl --no-pager --output cat",
        }
        found: dict[str, list[str]] = {}
        for place, command in places.items():
            text = str(self.host.run(command).stdout)
            for name, secret in secrets.items():
                if any(form in text for form in _spellings(secret)):
                    found.setdefault(name, []).append(place)
        return found

    def converge(self, playbook: str = "converge.yml", **variables: Any) -> Recap:
        """Run a playbook of the scenario once more, on this instance alone."""
        ran = self.play(playbook, **variables)
        output = ran.stdout + ran.stderr
        assert ran.returncode == 0, output
        changed = re.search(rf"^{re.escape(self.name)} .*\bchanged=(\d+)", output, re.MULTILINE)
        assert changed, output
        return Recap(int(changed[1]), output)

    def refusal(self, playbook: str = "converge.yml", **variables: Any) -> str:
        """Message of a run that must fail before it changes anything, its lines run together."""
        ran = self.play(playbook, **variables)
        output = ran.stdout + ran.stderr
        assert ran.returncode != 0, output
        assert re.search(rf"^{re.escape(self.name)} .*\bchanged=0\b", output, re.MULTILINE), output
        return " ".join(output.split())

    def play(self, playbook: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the scenario on this instance alone, however it ends."""
        scenario = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
        inventory = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
        chosen = ["--inventory", str(inventory), "--limit", self.name, "--extra-vars", json.dumps(variables)]
        return subprocess.run(
            ["ansible-playbook", *chosen, str(scenario / playbook)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
        )

    def report(self) -> str:
        """What somebody needs who reads about a failed test hours later."""
        text = [str(self.host.run("docker ps --all; docker service ls; docker volume ls 2>&1").stdout)]
        containers = str(self.host.run("docker ps --all --format '{{.Names}}'").stdout).split()
        text += [f"--- docker logs {container}\n{self.logs(container, 50)}" for container in containers]
        # The engine complains about every kernel parameter that it cannot read, and modules log their arguments.
        journal = self.host.run(
            "journalctl --no-pager | grep -v -e 'error reading the kernel parameter' -e ' ansible-' | cut -c -300 | tail -60"
        )
        text.append(f"--- journal\n{journal.stdout}")
        return "\n".join(text)


def _spellings(secret: str) -> set[str]:
    """A secret as addresses, JSON and programs in Go write it."""
    quoted = json.dumps(secret)[1:-1]
    ampersand = quoted.replace("&", "\\u0026")
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quoted, ampersand}


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until the condition was true, which may take longer where the machine has more to do."""
    began = time.monotonic()
    while not condition():
        assert not too_late(began, seconds), f"after {seconds:.0f} s {what}"
        # The question itself takes the machine's time, and what is waited for needs it.
        time.sleep(min(2.0, 0.3 + (time.monotonic() - began) / 10))
    return time.monotonic() - began
