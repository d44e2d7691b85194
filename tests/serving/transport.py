"""What the tests of the transport share: signatures, a predictor without a model, and a client without a network."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any

import numpy as np

from serving.app import Application
from serving.errors import ServingError
from serving.frames import matrix
from serving.information import ModelInformation
from serving.metrics import Metrics
from serving.model import Answer
from serving.settings import Settings
from serving.signature import Batch, Column, Param, Signature, Tensor

NAMES = ("sepal length (cm)", "sepal width (cm)")
FLOWER = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5}
DENSE = Signature(columns=tuple(Column(name, "double") for name in NAMES))
MIXED = Signature(
    columns=(
        Column("flag", "boolean"),
        Column("small", "integer"),
        Column("big", "long"),
        Column("share", "float"),
        Column("size", "double", required=False),
        Column("word", "string"),
        Column("blob", "binary", required=False),
        Column("when", "datetime", required=False),
    ),
    params=(Param("limit", "integer", 3), Param("names", "string", ["a"], (-1,))),
)
ROW = {
    "flag": True,
    "small": 1,
    "big": 2,
    "share": 0.5,
    "size": 1.5,
    "word": "a",
    "blob": "YWJj",
    "when": "2024-01-02T03:04:05",
}
IMAGE = Signature(tensors=(Tensor(None, np.dtype("float32"), (-1, 64)),))


def information(signature: Signature, **more: Any) -> ModelInformation:
    base: dict[str, Any] = {"name": "flowers", "model": "flowers", "alias": "champion", "version": "3", "run_id": "r",
                            "image": "", "flavor": "sklearn", "mlflow_version": "3.17.2"}  # fmt: skip
    return ModelInformation(**{**base, "signature": signature, **more})


class Sums:
    """Predicts the sum of a dense row at once; ``error`` and ``hold`` make it fail or wait."""

    def __init__(self, signature: Signature = DENSE) -> None:
        self.signature = signature
        self.error: Exception | None = None
        self.hold = False
        self.stuck_seconds = 0.0
        self.depth = 0
        self.futures: list[asyncio.Future[Answer]] = []
        self.batches: list[Batch] = []

    def offer(self, *_: Any, **__: Any) -> bool:
        return False

    def submit(self, batch: Batch, *, probabilities: bool = False) -> asyncio.Future[Answer]:
        if isinstance(self.error, ServingError):
            raise self.error
        future = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        self.batches.append(batch)
        if self.error is not None:
            future.set_exception(self.error)
        elif not self.hold:
            sums = matrix(self.signature, batch).sum(axis=1).tolist() if self.signature.dense else [0] * batch.rows
            shares = [[0.25, 0.75]] * batch.rows if probabilities else None
            future.set_result(Answer(sums, shares))
        return future


class Reply:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    def json(self) -> Any:
        return json.loads(self.body)


def application(signature: Signature = DENSE, predictor: Any = None, *, more: Mapping[str, Any] | None = None,
                pages: Any = None, **settings: Any) -> Application:  # fmt: skip
    predictor = predictor or Sums(signature)
    info = information(signature, **(more or {}))
    metrics = Metrics([column.name for column in signature.columns], name="flowers", version="3")
    return Application(info, Settings(name="flowers", version="3", **settings), lambda: predictor, metrics, pages=pages)


Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def call(
    app: Application,
    path: str,
    body: bytes | list[bytes] | None = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    receive: Receive | None = None,
) -> Reply:
    """One request by the ASGI interface; ``body`` in parts is one sent in chunks."""
    parts = [body] if isinstance(body, bytes) else list(body or [b""])
    given = {"content-type": "application/json"} if body is not None else {}
    given |= dict(headers or {})
    gone = asyncio.Event()

    async def next_part() -> MutableMapping[str, Any]:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}
        await gone.wait()
        return {"type": "http.disconnect"}

    reply = Reply()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not reply.status
            reply.status = message["status"]
            reply.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            reply.body += message.get("body", b"")

    scope = {"type": "http", "method": method or ("GET" if body is None else "POST"), "path": path,
             "headers": [(name.encode(), value.encode()) for name, value in given.items()]}  # fmt: skip
    await app(scope, receive or next_part, send)
    return reply


def run(work: Coroutine[Any, Any, Reply]) -> Reply:
    return asyncio.run(work)


def post(app: Application, path: str, document: Any, **more: Any) -> Reply:
    body = document if isinstance(document, bytes | list) else json.dumps(document).encode()
    if isinstance(document, list) and not (document and isinstance(document[0], bytes)):
        body = json.dumps(document).encode()
    return run(call(app, path, body, **more))


def get(app: Application, path: str, **more: Any) -> Reply:
    return run(call(app, path, **more))
