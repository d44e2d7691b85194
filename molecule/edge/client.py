"""A client inside a test instance, where the edge listens: single requests, odd ones, and a steady load.

python3 client.py REQUESTS      a JSON list, zlib and base64; all at the same time; prints the list of answers
python3 client.py load LOAD     a JSON object, zlib and base64; until the file `stop` is there; prints what came back
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

JSON = dict[str, Any]


def plain(asked: JSON) -> list[Any]:
    """Send a request with the path as it is spelled; return status, headers, body and seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", asked["port"], timeout=asked["timeout"])
    body = asked["body"].encode() if asked["body"] is not None else None
    if asked["size"]:
        body = b"x" * asked["size"]
    began = time.monotonic()
    try:
        if asked["chunked"]:
            pieces = (body[i : i + 8192] for i in range(0, len(body or b""), 8192)) if body else ()
            connection.request(asked["method"], asked["path"], pieces, asked["headers"], encode_chunked=True)
        else:
            connection.request(asked["method"], asked["path"], body, asked["headers"])
    except OSError:
        # An answer may be there though not everything was taken.
        if connection.sock is None:
            return [0, {}, "no connection", time.monotonic() - began]
    try:
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        return [answer.status, dict(answer.headers), text, time.monotonic() - began]
    except (OSError, http.client.HTTPException) as error:
        return [0, {}, repr(error), time.monotonic() - began]
    finally:
        connection.close()


def raw(asked: JSON) -> list[Any]:
    """Send pieces of text with pauses between them; return status, headers, everything received and seconds until the end."""
    began = time.monotonic()
    received = b""
    with socket.create_connection(("127.0.0.1", asked["port"]), timeout=asked["timeout"]) as connection:
        try:
            for piece, pause in asked["raw"]:
                connection.sendall(piece.encode())
                time.sleep(pause)
        except OSError:
            pass
        try:
            while part := connection.recv(65536):
                received += part
        except OSError as error:
            received += repr(error).encode()
    first = received.split(b"\r\n")[0].split()
    status = int(first[1]) if len(first) > 1 and first[0].startswith(b"HTTP/") else 0
    return [status, {}, received.decode(errors="replace"), time.monotonic() - began]


def loop(load: JSON, number: int, results: list[JSON]) -> None:
    """Send one request after the other; every second client opens a connection for each."""
    keep = number % 2 == 0
    size = load["sizes"][number // 2 % len(load["sizes"])] if load["sizes"] else 0
    body = json.dumps(load["body"]).encode()
    body += b" " * (size - len(body))
    connection = http.client.HTTPConnection("127.0.0.1", load["port"], timeout=30)
    while not Path(load["stop"]).exists():
        began = time.time()
        result: JSON = {"at": began, "status": 0, "error": ""}
        try:
            connection.request("POST", load["path"], body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            result |= {"status": answer.status, "body": hashlib.sha256(content).hexdigest()}
            result |= {"name": answer.headers.get("X-Model-Name"), "version": answer.headers.get("X-Model-Version")}
            if answer.status != http.HTTPStatus.OK:
                result["error"] = content.decode(errors="replace")[:300]
        except (OSError, http.client.HTTPException) as error:
            result["error"] = repr(error)
            connection.close()
        result["seconds"] = time.time() - began
        results.append(result)
        if not keep:
            connection.close()
        time.sleep(load["pause"])


def steady(load: JSON) -> JSON:
    """Keep asking until told to stop; sum up."""
    results: list[JSON] = []
    threads = [threading.Thread(target=loop, args=(load, number, results)) for number in range(load["clients"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.sort(key=lambda result: float(result["at"]))
    good = [result for result in results if result["status"] == http.HTTPStatus.OK]
    kinds: dict[str, JSON] = {}
    for result in good:
        key = json.dumps([result["name"], result["version"], result["body"]])
        kind = kinds.setdefault(key, {"count": 0, "first": result["at"]})
        kind["count"] += 1
        kind["last"] = result["at"]
    return {
        "sent": len(results),
        "failed": [result for result in results if result["status"] != http.HTTPStatus.OK][:20],
        "kinds": [[*json.loads(key), kind["count"], kind["first"], kind["last"]] for key, kind in kinds.items()],
        "slowest": max((result["seconds"] for result in results), default=0),
    }


def main() -> None:
    """Do what the arguments say."""
    asked = json.loads(zlib.decompress(base64.b64decode(sys.argv[-1])))
    if sys.argv[1] == "load":
        print(json.dumps(steady(asked)))  # noqa: T201
        return
    with ThreadPoolExecutor(64) as pool:
        print(json.dumps(list(pool.map(lambda one: raw(one) if one["raw"] else plain(one), asked))))  # noqa: T201


if __name__ == "__main__":
    main()
