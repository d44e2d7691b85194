"""Ask a server for many things: paths go out exactly as they are given, certificates are not checked.

Takes a JSON object on standard input: url, requests (a list of [method, path]), headers, body (sent with all methods that have one), find (a text).
Prints a JSON list of [status, whether the answer holds the text] in the same order; a status of 0 means that the server did not answer.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit


def ask(wanted: dict[str, Any], method: str, path: str) -> tuple[int, bool]:
    """Return the status of one request, and whether its answer holds the text."""
    address = urlsplit(wanted["url"])
    if address.scheme == "https":
        unchecked = ssl.create_default_context()
        unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            address.netloc, timeout=30, context=unchecked
        )
    else:
        connection = http.client.HTTPConnection(address.netloc, timeout=30)
    try:
        # Past the checks of the library, which would refuse what an attacker would send.
        connection._validate_path = lambda url: None  # type: ignore[attr-defined] # noqa: ARG005
        body = wanted["body"].encode() if method in {"POST", "PUT", "PATCH", "DELETE"} else None
        connection.request(method, path, body=body, headers={"Content-Type": "application/json", **wanted["headers"]})
        answer = connection.getresponse()
        return answer.status, bool(wanted["find"]) and wanted["find"].encode() in answer.read()
    except (OSError, http.client.HTTPException):
        return 0, False
    finally:
        connection.close()


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, wanted, method, path) for method, path in wanted["requests"]]
        print(json.dumps([future.result() for future in asked]))
