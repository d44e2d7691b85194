"""A client of the edge's public addresses, run inside the test instance.

python3 client.py requests JSON       sends each request with its path as spelled; prints [status, headers, body] of each
python3 client.py load JSON           sends one kind of request from several threads until the file `stop` is there; prints the counts
python3 client.py tls JSON            a handshake for each version; prints the version, or what the server said
python3 client.py idle JSON           opens that many connections and says nothing on them; prints how many are open, what another address gets
                                      meanwhile, and how many are open at the end
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

CA = "/run/ca.pem"
JSON = dict[str, Any]


def context(ca: str | None = CA) -> ssl.SSLContext:
    """What a careful client checks."""
    return ssl.create_default_context(cafile=ca) if ca and Path(ca).exists() else ssl._create_unverified_context()


class Connection(http.client.HTTPSConnection):
    """A connection to this machine, for whatever name is asked."""

    address = "127.0.0.1"
    own: tuple[str, int] | None = None

    def connect(self) -> None:
        """Connect, and check the certificate for the name."""
        plain = socket.create_connection((self.address, 443), timeout=10, source_address=self.own)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)  # type: ignore[attr-defined]


def send(asked: JSON, connection: http.client.HTTPConnection | None = None) -> list[Any]:
    """One request."""
    name = asked.get("name", "ml.test")
    if connection is None:
        connection = (
            http.client.HTTPConnection("127.0.0.1", asked["port"])
            if asked.get("port")
            else Connection(name, context=context())
        )
    try:
        body = asked["body"].encode() if asked.get("body") else None
        connection.putrequest(asked.get("method", "GET"), asked["path"], skip_host=True)
        headers = {"Host": name, **({"Content-Length": str(len(body))} if body else {}), **asked.get("headers", {})}
        for key, value in headers.items():
            connection.putheader(key, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return [
            answer.status,
            {key.lower(): value for key, value in answer.headers.items()},
            answer.read().decode(errors="replace"),
        ]
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return [0, {}, repr(error)]


def load(asked: JSON) -> JSON:
    """The same requests again and again, each second thread on a connection of its own for each."""
    counts: Counter[str] = Counter()
    serials: set[str] = set()

    def loop(number: int) -> None:
        connection: Connection | None = None
        while not Path(asked["stop"]).exists():
            connection = (
                connection
                if connection and number % 2
                else Connection(asked.get("name", "ml.test"), context=context(asked.get("ca", CA)))
            )
            headers = {
                key: Path(value[1:]).read_text() if value.startswith("@") else value
                for key, value in asked["headers"].items()
            }
            status, _, body = send({**asked, "headers": headers}, connection)
            counts[str(status) if status == http.HTTPStatus.OK else f"{status} {body[:200]}"] += 1
            if connection.sock:
                serials.add(hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest())
            # Often enough for gaps of a tenth of a second; more would take the processor from what is tested.
            time.sleep(0.05)

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"counts": counts, "certificates": len(serials)}


def tls(versions: list[str]) -> list[str]:
    """How a handshake with nothing but one version goes."""
    said = []
    for version in versions:
        offer = ssl._create_unverified_context()
        offer.set_ciphers("ALL:@SECLEVEL=0")
        offer.minimum_version = offer.maximum_version = ssl.TLSVersion[version]
        try:
            with (
                socket.create_connection(("127.0.0.1", 443), 5) as plain,
                offer.wrap_socket(plain, server_hostname="ml.test") as secure,
            ):
                said.append(f"{secure.version()} {secure.cipher()[0]}")  # type: ignore[index]
        except OSError as error:
            said.append(str(error))
    return said


def opened(address: str) -> list[socket.socket]:
    """One connection, or none where the server closes it while it is made."""
    try:
        return [socket.create_connection((address, 443), timeout=10)]
    except ConnectionResetError:
        return []


def is_open(client: socket.socket) -> bool:
    """Whether the server still waits for what the client says."""
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def idle(asked: JSON) -> list[Any]:
    """Many connections from one address of this machine, and a request from another one."""
    # Not by loopback: the engine carries those connections itself, and all come from its own address.
    clients = [client for _ in range(asked["connections"]) for client in opened(asked["address"])]
    time.sleep(1)
    held = sum(is_open(client) for client in clients)
    other = Connection("ml.test", context=context())
    other.address, other.own = asked["address"], (asked["other"], 0)
    answer = send(asked["request"], other)
    time.sleep(asked["seconds"])
    return [held, answer, sum(is_open(client) for client in clients)]


if __name__ == "__main__":
    wanted = json.loads(base64.b64decode(sys.argv[2]))
    if sys.argv[1] == "load":
        print(json.dumps(load(wanted)))  # noqa: T201
    elif sys.argv[1] == "idle":
        print(json.dumps(idle(wanted)))  # noqa: T201
    elif sys.argv[1] == "tls":
        print(json.dumps(tls(wanted)))  # noqa: T201
    else:
        print(json.dumps([send(one) for one in wanted]))  # noqa: T201
