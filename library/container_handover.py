#!/usr/bin/python
"""Let a container that was made beside another one take its place."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_handover
short_description: Let a container that was made beside another one take its place
description:
  - Stops O(container), gives its name to O(successor), starts that, waits until it is healthy, and removes the stopped one.
  - Names change while nothing runs. Some engines rename no running container that is on a network of Swarm.
  - A successor that does not become healthy is stopped, and the container of before started again.
  - Two containers cannot publish one port, so nobody listens for a moment. New connections to O(ports) wait that long, because the host drops their first
    packet and the client's system sends it again. This needs root and iptables; without them they are refused, and RV(held) is false. The rules end by
    themselves after O(timeout), whatever becomes of the run.
options:
  container:
    description: Name of the running container.
    type: str
    required: true
  successor:
    description: Name of the container that was created, but not started.
    type: str
    required: true
  drain:
    description: Seconds that requests in flight have until the container is killed.
    type: int
    default: 10
  timeout:
    description: Seconds that the successor may take to become healthy.
    type: int
    default: 60
attributes:
  check_mode:
    support: none
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Let the new edge take over
  container_handover:
    container: example-edge
    successor: example-edge-next
"""

RETURN = r"""
held:
  description: Whether new connections waited.
  returned: success
  type: bool
seconds:
  description: How long nobody listened.
  returned: success
  type: float
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.engine import Engine, EngineError, socket_path

CHAIN = "MLFLOW-ANYWHERE-HOLD"
PAUSE = 0.1


class HandoverError(Exception):
    """The successor does not serve; the message says what runs now."""


def published(container: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the addresses and TCP ports that a container publishes."""
    bindings = (container.get("HostConfig") or {}).get("PortBindings") or {}
    return [
        (binding.get("HostIp") or "", int(binding["HostPort"]))
        for port, listed in bindings.items()
        if port.endswith("/tcp")
        for binding in listed or []
    ]


def hold_rules(ports: list[tuple[str, int]], until: float) -> dict[str, list[list[str]]]:
    """Return, by program, the rules that drop the first packet of each connection to the ports until then."""
    # The kernel reads it in UTC.
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(until))
    rules: dict[str, list[list[str]]] = {}
    for address, port in ports:
        programs = ["ip6tables"] if ":" in address else ["iptables"] if address else ["iptables", "ip6tables"]
        for program in programs:
            rule = ["-p", "tcp", "--syn", "--dport", str(port), "-m", "addrtype", "--dst-type", "LOCAL"]
            rule += [] if address in {"", "0.0.0.0", "::"} else ["-d", address]  # noqa: S104 - compared, not bound
            rule += ["-m", "time", "--datestop", end, "-j", "DROP"]
            rules.setdefault(program, []).append(rule)
    return rules


def filter_packets(program: str, *arguments: str) -> bool:
    """Return whether iptables did it; before everything else, so that nothing of the connection is known yet."""
    command = [program, "-w", "5", "-t", "raw", *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0  # noqa: S603


def release(program: str) -> None:
    """Take the rules away, also those that an earlier run left."""
    for hook in ("PREROUTING", "OUTPUT"):
        while filter_packets(program, "-D", hook, "-j", CHAIN):
            pass
    filter_packets(program, "-F", CHAIN)
    filter_packets(program, "-X", CHAIN)


@contextlib.contextmanager
def held(ports: list[tuple[str, int]], seconds: int) -> Iterator[bool]:
    """Let new connections to the ports wait; tell whether all do."""
    rules = hold_rules(ports, time.time() + seconds)
    usable = os.geteuid() == 0 and all(shutil.which(program) for program in rules)
    if not usable:
        yield False
        return
    try:
        done = True
        for program, listed in rules.items():
            release(program)
            done &= filter_packets(program, "-N", CHAIN)
            done &= all(filter_packets(program, "-A", CHAIN, *rule) for rule in listed)
            done &= all(filter_packets(program, "-I", hook, "-j", CHAIN) for hook in ("PREROUTING", "OUTPUT"))
        yield done
    finally:
        for program in rules:
            release(program)


class Handover:
    """One container that gives way to another."""

    def __init__(self, engine: Any, container: str, successor: str) -> None:
        self._engine = engine
        self.container = container
        self.successor = successor
        # The name of what is stopped, until it is removed.
        self.former = f"{container}-before"

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine says of a container; empty where there is none."""
        return self._engine.get(f"/containers/{quote(name)}/json") or {}

    def _do(self, container: str, verb: str, **query: Any) -> None:
        self._engine.post(f"/containers/{quote(container)}/{verb}?{urlencode(query)}")

    def stop(self, name: str, seconds: int) -> None:
        """Stop a container; what it does not end in time is ended."""
        self._do(name, "stop", t=seconds)

    def start(self, name: str) -> None:
        """Start a container."""
        self._do(name, "start")

    def wait(self, name: str, seconds: float) -> None:
        """Wait until a container is healthy; raise HandoverError when it is not in time."""
        end = time.monotonic() + seconds
        while True:
            state = self.inspect(name).get("State") or {}
            health = (state.get("Health") or {}).get("Status", "none")
            if state.get("Running") and health == "healthy":
                return
            if time.monotonic() > end or not state.get("Running"):
                raise HandoverError(f"it is {state.get('Status', 'gone')} and its health {health}")
            time.sleep(PAUSE)

    def rename(self, name: str, new: str) -> None:
        """Give a container that does not run another name."""
        self._do(name, "rename", name=new)

    def remove_former(self) -> None:
        """Remove the container of before."""
        self._engine.ask("DELETE", f"/containers/{quote(self.former)}?force=1&v=1")

    def last_words(self, name: str) -> str:
        """Return the end of a container's log."""
        text: str = self._engine.ask("GET", f"/containers/{quote(name)}/logs?stdout=1&stderr=1&tail=20").decode(
            errors="replace"
        )
        return "".join(letter for letter in text if letter.isprintable() or letter == "\n")


def hand_over(handover: Handover, drain: int, timeout: int) -> tuple[bool, float]:
    """Hand over; return whether new connections waited, and how long nobody listened."""
    ports = published(handover.inspect(handover.container))
    with held(ports, drain + timeout) as waits:
        began = time.monotonic()
        try:
            handover.stop(handover.container, drain)
            handover.rename(handover.container, handover.former)
            handover.rename(handover.successor, handover.container)
            handover.start(handover.container)
            handover.wait(handover.container, timeout)
        except (EngineError, HandoverError) as error:
            words = undo(handover)
            raise HandoverError(f"{handover.successor} did not take over: {error}.{words}") from error
        seconds = time.monotonic() - began
    handover.remove_former()
    return waits, seconds


def undo(handover: Handover) -> str:
    """Let the container of before serve again; return what the other one said."""
    words = ""
    if handover.inspect(handover.former):
        with contextlib.suppress(EngineError):
            words = handover.last_words(handover.container)
            handover.stop(handover.container, 1)
            handover.rename(handover.container, handover.successor)
        handover.rename(handover.former, handover.container)
    handover.start(handover.container)
    return f" {handover.container} of before runs again. Last lines of the other one:\n{words}"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "successor": {"type": "str", "required": True},
            "drain": {"type": "int", "default": 10},
            "timeout": {"type": "int", "default": 60},
        },
    )
    params = module.params
    # The engine answers a stop when the container has stopped.
    engine = Engine(socket_path(), params["drain"] + 60)
    handover = Handover(engine, params["container"], params["successor"])
    try:
        waits, seconds = hand_over(handover, params["drain"], params["timeout"])
    except (EngineError, HandoverError) as error:
        module.fail_json(msg=f"{params['container']} was not replaced: {error}")
    module.exit_json(changed=True, held=waits, seconds=round(seconds, 2))


if __name__ == "__main__":
    main()
