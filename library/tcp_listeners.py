#!/usr/bin/python
"""Tell which processes listen on TCP ports, from /proc alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tcp_listeners
short_description: Tell which processes listen on TCP ports
description:
  - Reads C(/proc/net/tcp) and C(/proc/net/tcp6), so it needs no program on the host. Processes of other users are named to root only.
options:
  address:
    description: Address that is about to be listened on. Listeners on it and on the wildcard address stand in its way.
    type: str
    required: true
  ports:
    description: The ports to look at.
    type: list
    elements: int
    required: true
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Look for what listens on the port of the tracking server
  tcp_listeners:
    address: 127.0.0.1
    ports: [5000]
  register: found
"""

RETURN = r"""
listeners:
  description: What stands in the way, in the order of the ports.
  returned: always
  type: list
  elements: dict
  contains:
    port:
      description: The port.
      type: int
    address:
      description: The address that it is taken on.
      type: str
    pid:
      description: The process, or 0 where this user may not see it.
      type: int
    process:
      description: Its command line.
      type: str
    description:
      description: All of it in one sentence.
      type: str
"""

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule

LISTEN = "0A"  # TCP_LISTEN in include/net/tcp_states.h of Linux


class Listener(NamedTuple):
    """A listening socket: its address, port, and the inode that names it in /proc/PID/fd."""

    address: str
    port: int
    inode: str


def parse_address(text: str) -> str:
    """Return the address that /proc/net/tcp writes as hexadecimal words in the host's byte order."""
    words = [text[i : i + 8] for i in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    return str(ipaddress.ip_address(packed))


def parse_listeners(lines: Iterable[str]) -> Iterator[Listener]:
    """Yield the listening sockets of a /proc/net/tcp table, whose first line is a heading."""
    for line in list(lines)[1:]:
        fields = line.split()
        if fields[3] == LISTEN:
            address, _, port = fields[1].rpartition(":")
            yield Listener(parse_address(address), int(port, 16), fields[9])


def in_the_way(listener: Listener, address: str, ports: Iterable[int]) -> bool:
    """Tell whether `listener` keeps anybody from listening on one of `ports` at `address`."""
    wildcards = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return listener.port in ports and bool({listener.address, address} & wildcards or listener.address == address)


def owner(inode: str, proc: Path) -> tuple[int, str]:
    """Return process id and command line of the socket's owner, or (0, "") where this user may not look."""
    for directory in proc.glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) == f"socket:[{inode}]" for fd in (directory / "fd").iterdir()):
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return int(directory.name), command
        except OSError:  # the process ended, or is another user's
            continue
    return 0, ""


def find(address: str, ports: list[int], proc: Path = Path("/proc")) -> list[dict[str, object]]:
    """Return what listens on `ports` and stands in the way of `address`, one item for each port."""
    found: dict[int, dict[str, object]] = {}
    for table in ("tcp", "tcp6"):
        file = proc / "net" / table
        for listener in parse_listeners(file.read_text().splitlines()) if file.exists() else ():
            if listener.port in found or not in_the_way(listener, address, ports):
                continue
            pid, process = owner(listener.inode, proc)
            by = f"process {pid} ({process[:80]})" if pid else "a process of another user (sudo ss -ltnp names it)"
            found[listener.port] = {
                "port": listener.port,
                "address": listener.address,
                "pid": pid,
                "process": process,
                "description": f"Port {listener.port} on {listener.address} is taken by {by}",
            }
    return [found[port] for port in ports if port in found]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, listeners=find(module.params["address"], module.params["ports"]))


if __name__ == "__main__":
    main()
