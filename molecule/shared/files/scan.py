"""Connect to every TCP port of an address and print those that accept, as a JSON list: scan.py ADDRESS [SECONDS]."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import sys

AT_ONCE = 4000


async def accepts(address: str, family: int, port: int, seconds: float, slots: asyncio.Semaphore) -> bool:
    """Whether something accepts a connection; a port that is silent costs the whole time."""
    async with slots:
        with socket.socket(family) as connection:
            connection.setblocking(False)
            try:
                await asyncio.wait_for(asyncio.get_running_loop().sock_connect(connection, (address, port)), seconds)
            except OSError:
                return False
            return True


async def scan(address: str, seconds: float) -> list[int]:
    """Return the open ports."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    slots = asyncio.Semaphore(AT_ONCE)
    ports = range(1, 65536)
    found = await asyncio.gather(*(accepts(address, family, port, seconds, slots) for port in ports))
    return [port for port, is_open in zip(ports, found, strict=True) if is_open]


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * AT_ONCE), hard))
    print(json.dumps(asyncio.run(scan(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.0))))
