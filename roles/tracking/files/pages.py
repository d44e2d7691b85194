"""What MLflow's pages find where a part of MLflow is off.

They do not ask whether there are users, a gateway or an assistant: they ask for what these have, and show the refusal in red. Here they find
nothing instead, as with a part that is on and empty. Programs, which ask at other addresses, are still told what is off.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# What MLflow answers where a part is off, and where: no users, no gateway.
OFF = {
    404: re.compile(r"/ajax-api/2\.0/mlflow/users/current"),
    501: re.compile(r"/ajax-api/3\.0/mlflow/gateway/[a-z/-]+"),
}
NOTHING = b"{}"

# The assistant opens by itself, once in each browser. Its panel and buttons, and the banner of the demo, are not shown; nor is the note that data
# on the use are collected, which they are not.
SEEN = ("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "mlflow.telemetry.info.alert.dismissed_v1")
HIDDEN = ('[data-assistant-ui="true"]', 'div:has(> [data-component-id="mlflow.home.demo-banner.launch"])')
ADDED = (
    f"<style>{','.join(HIDDEN)}{{display:none!important}}</style>"
    f"<script>for(const key of {list(SEEN)})localStorage.setItem(key,'true')</script>"
).encode()
# A browser that has the page from before asks whether it changed; MLflow knows of its own part alone.
CONDITIONS = {b"if-none-match", b"if-modified-since", b"if-range", b"range"}
VALIDATORS = {b"etag", b"last-modified", b"accept-ranges", b"content-length", b"cache-control"}


class Pages:
    """MLflow's application as its own pages find it."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
        elif scope["path"] == "/":
            headers = [pair for pair in scope["headers"] if pair[0] not in CONDITIONS]
            await self.app({**scope, "headers": headers}, receive, Start(send))
        elif any(path.fullmatch(scope["path"]) for path in OFF.values()):
            await self.app(scope, receive, Nothing(send, scope["path"]))
        else:
            await self.app(scope, receive, send)


class Start:
    """Passes the page that starts MLflow's program on, with what is added to it."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.start: Message = {}
        self.body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = bytes(self.body).replace(b"</head>", ADDED + b"</head>", 1)
        headers = [pair for pair in self.start["headers"] if pair[0].lower() not in VALIDATORS]
        headers += [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-cache")]
        await self.send({**self.start, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class Nothing:
    """Passes an answer on, or an empty one in place of the refusal of what is off."""

    def __init__(self, send: Send, path: str) -> None:
        self.send, self.path = send, path
        self.off = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            where = OFF.get(message["status"])
            self.off = where is not None and where.fullmatch(self.path) is not None
            if self.off:
                headers = [(b"content-type", b"application/json"), (b"content-length", str(len(NOTHING)).encode())]
                await self.send({"type": "http.response.start", "status": 200, "headers": headers})
                await self.send({"type": "http.response.body", "body": NOTHING})
        if not self.off:
            await self.send(message)
