"""Connect to every TCP port of an address and print those that accept, as a JSON list: scan.py ADDRESS [SECONDS].

A port that says nothing is given up once all ports asked with it have been silent for so many seconds: a busy machine takes longer, and misses none.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
from collections.abc import Sequence

AT_ONCE = 9000


def accepting(address: str, ports: Sequence[int], seconds: float) -> list[int]:
    """Return those of the ports that accept a connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    waiting: dict[int, tuple[int, socket.socket]] = {}
    poll, found = select.epoll(), []
    for port in ports:
        connection = socket.socket(family)
        connection.setblocking(False)
        connection.connect_ex((address, port))
        waiting[connection.fileno()] = port, connection
        poll.register(connection, select.EPOLLOUT)
    while waiting and (events := poll.poll(seconds)):
        for number, _ in events:
            port, connection = waiting.pop(number)
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
            poll.unregister(number)
            connection.close()
    for _, connection in waiting.values():
        connection.close()
    poll.close()
    return found


def scan(address: str, seconds: float) -> list[int]:
    """Return all open ports."""
    ports = range(1, 65536)
    parts = (ports[start : start + AT_ONCE] for start in range(0, len(ports), AT_ONCE))
    return sorted(port for part in parts for port in accepting(address, part, seconds))


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * AT_ONCE), hard))
    print(json.dumps(scan(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.2)))
