"""What a container reaches, asked from inside it: every address that the engine and the host have, and what lies beyond."""

from __future__ import annotations

import base64
import json
from typing import Any

from instance import Instance

# What the platform, its engine and its host listen on, and what hosts usually do.
PORTS = (22, 53, 80, 111, 443, 2375, 2376, 2377, 5000, 5001, 5432, 5443, 7946, 8000, 8080, 8403, 8404, 9201, 9202)
BEYOND = [
    *[(host, port) for host in ("1.1.1.1", "8.8.8.8", "2606:4700:4700::1111") for port in (53, 443)],
    # What clouds tell a machine about itself.
    *[(host, 80) for host in ("169.254.169.254", "169.254.169.253", "fd00:ec2::254", "100.100.100.200")],
]
# Names that the engine's name server knows, and some that only the internet's do.
NAMES = (
    "postgres",
    "tracking",
    "edge",
    "registry",
    "mlflow-anywhere-postgres",
    "mlflow-anywhere-tracking",
    "mlflow-anywhere-registry",
)
FOREIGN = ("example.com", "deb.debian.org", "metadata.google.internal")
MODEL = "mlflow-anywhere-model-"
# In the container: connections one beside the other, each with two seconds. A port that closes at once was open too.
PROBE = """
import concurrent.futures, json, socket, sys
targets, names = json.loads(sys.argv[1])
def connects(target):
    try:
        socket.create_connection(tuple(target), timeout=2).close()
    except OSError:
        return False
    return True
def resolves(name):
    try:
        return bool(socket.getaddrinfo(name, 80))
    except OSError:
        return False
def asked(server):
    question = bytes.fromhex("123401000001000000000000076578616d706c6503636f6d0000010001")
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.sendto(question, (server, 53))
            return bool(client.recv(512))
    except OSError:
        return False
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    open_ = [target for target, yes in zip(targets, pool.map(connects, targets)) if yes]
    known = [name for name, yes in zip(names, pool.map(resolves, names)) if yes]
    servers = sorted({host for host, _ in targets if host[0].isdigit() or ":" in host})
    answering = [server for server, yes in zip(servers, pool.map(asked, servers)) if yes]
print(json.dumps({"open": open_, "known": known, "name servers": answering}))
"""


def probe(instance: Instance, container: str, targets: list[tuple[str, int]], names: list[str]) -> dict[str, Any]:
    """Which targets accept a connection from a container, and which names and name servers answer."""
    program = base64.b64encode(PROBE.encode()).decode()
    question = base64.b64encode(json.dumps([targets, names]).encode()).decode()
    command = (
        f"import base64 as b, sys; sys.argv[1] = b.b64decode(sys.argv[1]).decode(); exec(b.b64decode('{program}'))"
    )
    found: dict[str, Any] = json.loads(instance.sh(f'docker exec {container} python3 -c "{command}" {question}'))
    return found


def addresses(instance: Instance) -> dict[str, list[str]]:
    """Who has which address: all containers, the ends of all networks, and the host."""
    networks = instance.inspect(*instance.sh("docker network ls --quiet").split())
    found: dict[str, list[str]] = {}
    for network in networks:
        for member in (network.get("Containers") or {}).values():
            for key in ("IPv4Address", "IPv6Address"):
                found.setdefault(member["Name"], []).append(member[key].partition("/")[0])
        for config in network["IPAM"]["Config"] or []:
            found.setdefault(f"gateway of {network['Name']}", []).append(config.get("Gateway", ""))
    found["host"] = instance.sh("hostname --all-ip-addresses").split()
    return {name: [address for address in given if address] for name, given in found.items()}


def models(instance: Instance) -> list[str]:
    """The containers of models that run here."""
    listed = instance.sh("docker ps --filter label=mlflow-anywhere.role=model --format '{{.Names}}'")
    return sorted(name for name in listed.split() if name.startswith(MODEL))


def reached(instance: Instance, container: str, *elsewhere: Instance) -> list[str]:
    """What a model's container reaches of what it must not: its own replicas are left out, all else is not. `elsewhere` are other hosts of the fleet."""
    service = container.partition(".")[0]
    owners = {
        address: name
        for host in (instance, *elsewhere)
        for name, given in addresses(host).items()
        for address in given
        if name.partition(".")[0] != service and not address.startswith("127.")
    }
    services = instance.sh(f"docker network ls --format '{{{{.Name}}}}' --filter name={MODEL}").split()
    others = [name for name in services if name != service]
    targets = [(address, port) for address in owners for port in PORTS]
    targets += [(name, port) for name in (*NAMES, "mlflow-anywhere-edge") for port in PORTS]
    targets += [(name, 8080) for name in others] + BEYOND
    # Its own server answers: the question itself works.
    found = probe(instance, container, [*targets, ("127.0.0.1", 8080)], [*NAMES, *FOREIGN, *others])
    assert ["127.0.0.1", 8080] in found["open"], f"{container} does not reach itself: {found}"
    ports = [f"{host}:{port} ({owners.get(host, 'by name')})" for host, port in found["open"] if host != "127.0.0.1"]
    return [
        *ports,
        *(f"the name {name}" for name in found["known"]),
        *(f"name server {host}" for host in found["name servers"]),
    ]
