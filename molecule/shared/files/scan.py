"""Connect to TCP ports of addresses and print those that accept, as one JSON list for each: scan.py [--ports PORT,...] ADDRESS...

Without --ports, to all of them.

A port that says nothing is given up once all ports asked with it have been silent for so many seconds: a busy machine takes longer, and misses none.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import socket
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

AT_ONCE = 16000
SECONDS = 1.2


def accepting(address: str, ports: Sequence[int]) -> list[int]:
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
    while waiting and (events := poll.poll(SECONDS)):
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


def scan(address: str, ports: Sequence[int]) -> list[int]:
    """Return those of the ports that are open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    at_once = min(AT_ONCE, hard - 100)
    parts = (ports[start : start + at_once] for start in range(0, len(ports), at_once))
    return sorted(port for part in parts for port in accepting(address, part))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ports", type=lambda text: [int(port) for port in text.split(",")], default=range(1, 65536))
    parser.add_argument("addresses", nargs="+")
    wanted = parser.parse_args()
    # Most of the time they wait.
    with ProcessPoolExecutor(len(wanted.addresses)) as pool:
        print(json.dumps(list(pool.map(partial(scan, ports=wanted.ports), wanted.addresses))))
