"""A server that stands for the tracking server or a model: it answers what it was asked, and fails when a request says so.

The header X-Do of a request names servers and what they do: `drop` (read it, close the connection), `die` (read it, exit), `sleep`
(answer after 30 seconds), `busy` (answer 503), `deny` (answer 401), `half` (break off the answer). Others answer. Every request through the edge is a line
of the log.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ["SERVER_NAME"]
MODEL, VERSION = os.environ.get("MODEL", ""), os.environ.get("VERSION", "")


class Handler(BaseHTTPRequestHandler):
    """Answers every method and path alike."""

    protocol_version = "HTTP/1.1"
    # Head and body of an answer leave in one piece.
    wbufsize = -1

    def answer(self) -> None:
        """Read the request, do what it says, answer."""
        size = 0
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while length := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
        else:
            size = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        asked = self.headers.get("X-Request-Id", "")
        if asked:
            sys.stdout.write(json.dumps([asked, self.command, self.path]) + "\n")
            sys.stdout.flush()
        do = dict(word.split(":") for word in self.headers.get("X-Do", "").split()).get(NAME, "")
        if do == "die":
            os._exit(1)
        if do == "sleep":
            time.sleep(30)
        self.close_connection = do in {"drop", "half"}
        if do == "drop":
            return
        said = {"server": NAME, "method": self.command, "path": self.path, "size": size, "headers": dict(self.headers)}
        body = json.dumps(said).encode()
        self.send_response({"busy": 503, "deny": 401}.get(do, 200))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if MODEL:
            self.send_header("X-Model-Name", MODEL)
            self.send_header("X-Model-Version", VERSION)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if do == "half" else body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server chose
        """Say nothing of one's own."""


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as a load test opens."""

    request_queue_size = 256


Server(("", int(os.environ["PORT"])), Handler).serve_forever()
