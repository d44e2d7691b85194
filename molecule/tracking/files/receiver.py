"""A receiver of webhooks: prints each request's headers and body as one line of JSON."""

# ruff: noqa: T201 (the test reads its output)
import json
from http.server import BaseHTTPRequestHandler, HTTPServer


class Receiver(BaseHTTPRequestHandler):
    """Accepts every POST."""

    def do_POST(self) -> None:
        """Print the request."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        print(json.dumps({"headers": headers, "body": body}), flush=True)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing else: the last line of the container's log is the request."""


HTTPServer(("0.0.0.0", 8080), Receiver).serve_forever()
