"""The ASGI application: paths, the way of a request, and what happens when it fails.

A plain callable instead of a framework: a prediction takes a few microseconds, and every layer would cost as much again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from serving import inference, limits, scoring, typed
from serving.batching import Waiter
from serving.bodies import Bodies, Disconnected
from serving.cage import Budget, Cage
from serving.describe import description
from serving.errors import (
    BadRequest,
    DeadlineExceeded,
    InvalidInput,
    MethodNotAllowed,
    ModelFailed,
    NotFound,
    NotReady,
    RequestTimeout,
    ServingError,
)
from serving.inference import PROBABILITIES
from serving.information import ModelInformation
from serving.metrics import CONTENT_TYPE as METRICS_TYPE
from serving.metrics import Metrics
from serving.model import Answer
from serving.readers import JSON_TYPE, Headers, Readers
from serving.responses import Response, Send, Writer, encode, failure, rejected_fields
from serving.settings import Settings
from serving.signature import Batch

log = logging.getLogger(__name__)
access = logging.getLogger("serving.access")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Page = tuple[str, bytes, dict[str, str]]

METRICS_HEADERS = ((b"content-type", METRICS_TYPE.encode()),)
# Seconds between two looks at what goes on. A client is watched for going away only when its prediction has lasted from
# one look to the next: the watch costs more than most predictions take.
SWEEP = 0.05
# Other bodies, and larger ones, are decoded in a process of their own.
IN_LOOP_TYPES = (JSON_TYPE, b"application/octet-stream")
SHORT_LENGTH = 5
# Answers for more rows are written beside the event loop.
LOOP_ROWS = 1024
# An unread body of at most this size is left to the HTTP server to skip; the connection goes on.
SKIPPED_BYTES = 64 * 1024


class Predictor(Protocol):
    """What the application needs of the batcher."""

    @property
    def stuck_seconds(self) -> float:
        """For how long the call of the model that runs now has been running."""

    @property
    def depth(self) -> int:
        """Requests that wait for the model."""

    def submit(self, batch: Batch, *, probabilities: bool = False) -> asyncio.Future[Answer]:
        """Queue rows; the future has their answer or a ServingError, and cancelling it drops them."""

    def offer(self, batch: Batch, waiter: Waiter, *, probabilities: bool = False) -> bool:
        """Queue rows for ``waiter`` if they are answered in this tick; False if not. Raises as ``submit`` does."""


# Makes the body of an answer to the request with this id.
Finish = Callable[[Answer, bytes], bytes]
# What a body holds: the rows, whether their probabilities are wanted, and what makes the answer.
Decoded = tuple[Batch, bool, Finish]
# Makes it of what a reader gave.
Ask = Callable[[Any], Decoded]


@dataclass(slots=True)
class Route:
    """A path: what answers its GET or asks for its POST, and its name in the metrics, which is its reader's too."""

    endpoint: str
    get: Callable[[Headers], Response] | None = None
    post: Ask | None = None

    @property
    def allow(self) -> str:
        """The methods, for the answer to any other."""
        return "POST" if self.post else "GET, HEAD"


class Application:
    """One model behind HTTP."""

    def __init__(  # noqa: PLR0913 - the parts it is made of
        self,
        information: ModelInformation,
        settings: Settings,
        predictor: Callable[[], Predictor],
        metrics: Metrics,
        *,
        raw: Callable[[], Any] | None = None,
        pages: Mapping[str, Page] | None = None,
        cage: Cage | None = None,
    ) -> None:
        """``predictor`` is called once, in the event loop; ``raw`` makes the parser of bodies that only MLflow understands.

        ``cage`` is one that was made before there was much in memory; without it there is one at the first need.
        """
        self.information = information
        self.settings = settings
        self.metrics = metrics
        self.bodies = Bodies(settings.max_body, settings.body_timeout)
        self.writer = Writer(information.name, information.version)
        self.readers = Readers(information, settings, raw)
        self.loop_bytes = limits.SLOW_BYTES if self.readers.scoring.fast is None else limits.FAST_BYTES
        self._made = information, settings, raw
        self._cage = cage
        if cage is not None:
            cage.prepare(*self._made)
        self.budget = Budget(settings.max_body + limits.EXTRA_BYTES)
        self._make_predictor = predictor
        self.predictor: Predictor | None = None
        self._classes = [typed.label(value) for value in information.classes]
        self._origin = {"model": information.name, "version": information.version}
        self._pages = {path: _page(page) for path, page in (pages or {}).items()}
        self._writers = ThreadPoolExecutor(1, "write")
        self.in_flight = 0
        # What clients wait for, and how each would say that it is gone.
        self._waiting: dict[asyncio.Future[Answer], Receive] = {}
        self._seen: set[asyncio.Future[Answer]] = set()
        self._watched: dict[asyncio.Future[Answer], asyncio.Task[None]] = {}
        self.routes = self._make_routes()

    def _make_routes(self) -> dict[str, Route]:
        """Every path that is answered."""
        name, version = self.information.name, self.information.version
        metadata = Response(200, encode(description(self.information)))

        def static(response: Response) -> Route:
            return Route("other", get=lambda _headers: response)

        routes = {path: static(page) for path, page in self._pages.items()}
        routes |= {
            "/": Route("other", get=lambda headers: self._home(headers, metadata)),
            "/ping": Route("health", get=self._health),
            "/health": Route("health", get=self._health),
            "/version": static(Response(200, self.information.mlflow_version.encode())),
            "/metadata": static(metadata),
            "/metrics": Route("other", get=lambda _headers: Response(200, self.metrics.text(), METRICS_HEADERS)),
            "/invocations": Route("invocations", post=self._invocations),
            "/predict": Route("predict", post=self._predict),
            "/v2": static(Response(200, encode(self.readers.inference.server()))),
            "/v2/health/live": static(Response(200, encode({"live": True}))),
            "/v2/health/ready": Route("health", get=self._ready),
        }
        model = static(Response(200, encode(self.readers.inference.metadata())))
        for base in (f"/v2/models/{name}", *([f"/v2/models/{name}/versions/{version}"] if version else [])):
            routes[base] = model
            routes[f"{base}/ready"] = Route("health", get=self._ready)
            routes[f"{base}/infer"] = Route("infer", post=self._infer)
        return routes

    async def __call__(  # noqa: C901, PLR0912, PLR0915 - in one piece: every call costs
        self, scope: Scope, receive: Receive, send: Send, decoded: Decoded | Exception | None = None
    ) -> None:
        """Answer one request; ``decoded`` is what its body holds, or the error, where that is known already."""
        if scope["type"] != "http":
            await _refuse_protocol(scope, receive, send)
            return
        start = time.perf_counter()
        if self.predictor is None:
            self.start()
        headers: Headers = dict(scope["headers"])
        request_id = self.writer.request_id(headers)
        route = self.routes.get(scope["path"])
        status, size, spent, unread = 200, 0, 0, decoded is None
        self.in_flight += 1
        try:
            if route is not None and route.post is not None and scope["method"] == "POST":
                if decoded is None:
                    # A length of five digits needs no look: what comes is counted anyway.
                    if b"content-encoding" in headers or len(headers.get(b"content-length", b"")) > SHORT_LENGTH:
                        self.bodies.check(headers)
                    body = await self.bodies.read(receive)
                    size, unread = len(body), False
                    try:
                        decoded = self.read(route, body, headers)
                    except limits.Heavy:
                        await self.budget.take(size + limits.EXTRA_BYTES)
                        spent = size + limits.EXTRA_BYTES
                        decoded = route.post(await self._in_cage(route, body, headers))
                        # The process is gone; what it made of the body is not.
                        self.budget.give(limits.EXTRA_BYTES)
                        spent = size
                    del body
                elif isinstance(decoded, Exception):
                    raise decoded  # noqa: TRY301 - as any other, from here
                batch, probabilities, finish = decoded
                future = self.predictor.submit(batch, probabilities=probabilities)  # type: ignore[union-attr]
                self._waiting[future] = receive
                try:
                    answer = await future
                finally:
                    del self._waiting[future]
                if batch.rows > LOOP_ROWS:
                    written = await asyncio.get_running_loop().run_in_executor(
                        self._writers, finish, answer, request_id
                    )
                else:
                    written = finish(answer, request_id)
                await self.writer.ok(send, written, request_id)
            else:
                response = self._get(route, scope["method"], headers)
                status = response.status
                await self.writer.write(send, response, request_id)
        except Disconnected:
            status = 499
        except asyncio.CancelledError:
            status = 499
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        except Exception as error:  # noqa: BLE001 - the one handler of all that can go wrong
            problem = self._problem(error, request_id)
            status = problem.status
            response = failure(problem, inference=scope["path"].startswith("/v2"))
            if unread and (isinstance(problem, RequestTimeout) or _long(headers)):
                linger = not isinstance(problem, RequestTimeout) and b"expect" not in headers
                await self.writer.refuse(send, receive if linger else None, response, request_id)
            else:
                await self.writer.write(send, response, request_id)
        finally:
            self.in_flight -= 1
            self.bodies.held -= size
            if spent:
                self.budget.give(spent)
        seconds = time.perf_counter() - start
        if route is not None and route.post is not None:
            self.metrics.answered(route.endpoint, status, seconds)
        else:
            self.metrics.counted("other" if route is None else route.endpoint, status)
        if self.settings.access_log:
            _log_access(scope, status, seconds, request_id)

    def start(self) -> None:
        """Make the predictor in the event loop, and begin to look after what takes long."""
        self.predictor = self._make_predictor()
        self._sweep()

    def read(self, route: Route, body: bytes, headers: Headers) -> Decoded:
        """Decode a body at once. Raises Heavy for those that take longer than the event loop has time, and ServingError."""
        if len(body) > self.loop_bytes or not headers.get(b"content-type", b"").startswith(IN_LOOP_TYPES):
            raise limits.Heavy
        place = limits.place
        place.in_loop = True
        try:
            return route.post(self.readers.by_name[route.endpoint](body, headers))  # type: ignore[misc]
        finally:
            place.in_loop = False

    async def _in_cage(self, route: Route, body: bytes, headers: Headers) -> Any:
        if self._cage is None:
            self._cage = Cage()
            self._cage.prepare(*self._made)
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await self._cage.read(route.endpoint, body, headers)
        except TimeoutError:
            raise DeadlineExceeded(
                f"The body could not be read within {self.settings.timeout:g} s; send it in several requests"
            ) from None

    # The three ways to ask for a prediction.

    @staticmethod
    def _invocations(batch: Batch) -> Decoded:
        return batch, False, _finish_invocations if type(batch) is Batch else _finish_chat

    def _predict(self, request: typed.Request) -> Decoded:
        def finish(answer: Answer, _request_id: bytes) -> bytes:
            rows = typed.rows_of(answer.predictions, request.batch.rows)
            return typed.answer(
                rows, answer.probabilities, single=request.single, names=self._classes, origin=self._origin,
                pictures=request.pictures, labels=self.information.labels,
            )  # fmt: skip

        return request.batch, bool(self._classes), finish

    def _infer(self, request: inference.Request) -> Decoded:
        def finish(answer: Answer, request_id: bytes) -> bytes:
            return self.readers.inference.answer(request, answer.predictions, answer.probabilities, request_id.decode())

        return request.batch, PROBABILITIES in request.outputs, finish

    # Everything that is answered at once.

    def _get(self, route: Route | None, method: str, headers: Headers) -> Response:
        if route is None:
            raise NotFound(f"There is no such path. There are {', '.join(sorted(self.routes))}")
        if route.get is None or method not in {"GET", "HEAD"}:
            raise MethodNotAllowed(f"This path takes {route.allow}", route.allow)
        return route.get(headers)

    def _home(self, headers: Headers, metadata: Response) -> Response:
        page = self._pages.get("/")
        return page if page is not None and b"text/html" in headers.get(b"accept", b"") else metadata

    def _health(self, _headers: Headers) -> Response:
        self._check_model()
        return Response(200, b"\n")

    def _ready(self, _headers: Headers) -> Response:
        self._check_model()
        return Response(200, encode({"name": self.information.name, "ready": True}))

    def _check_model(self) -> None:
        """Raise NotReady where the model of any worker hangs, or larger bodies cannot be decoded any more."""
        if self._cage is not None and self._cage.gone:
            raise NotReady("The process that decodes larger bodies is gone")
        self._report()
        if self.metrics.stuck() > self.settings.hang_timeout:
            raise NotReady("The model does not answer")

    def _problem(self, error: Exception, request_id: bytes) -> ServingError:
        """What the client is told; what it must not know goes to the log."""
        if isinstance(error, InvalidInput):
            self.metrics.rejected(rejected_fields(error))
        if isinstance(error, ServingError):
            return error
        if isinstance(error, RecursionError):
            return BadRequest("The body is nested too deeply")
        log.error("a request failed", exc_info=error, extra={"fields": {"request_id": request_id.decode()}})
        return ModelFailed(f"Internal error. The log has it under the request id {request_id.decode()}")

    # What happens beside the requests.

    def _report(self) -> None:
        predictor = self.predictor
        if predictor is not None:
            self.metrics.load(self.in_flight, predictor.depth, predictor.stuck_seconds)

    def _sweep(self) -> None:
        """End what takes too long to come in, watch the clients whose prediction takes long, and write the gauges."""
        asyncio.get_running_loop().call_later(SWEEP, self._sweep)
        self.bodies.sweep()
        if self._waiting:
            for future in self._waiting.keys() & self._seen - self._watched.keys():
                self._watched[future] = asyncio.ensure_future(_watch(future, self._waiting[future]))
                future.add_done_callback(self._stop_watching)
        self._seen = set(self._waiting)
        self._report()

    def _stop_watching(self, future: asyncio.Future[Answer]) -> None:
        task = self._watched.pop(future, None)
        if task is not None:
            task.cancel()


def _finish_invocations(answer: Answer, _request_id: bytes) -> bytes:
    return scoring.answer(answer.predictions)


def _finish_chat(answer: Answer, _request_id: bytes) -> bytes:
    return scoring.answer(answer.predictions, wrapped=False)


async def _watch(future: asyncio.Future[Answer], receive: Receive) -> None:
    """Drop the prediction of a client that goes away."""
    while not future.done():
        if (await receive())["type"] == "http.disconnect":
            future.cancel()
            return


def _long(headers: Headers) -> bool:
    """Whether the request announces more than is worth reading to its end."""
    length = headers.get(b"content-length", b"0")
    return b"transfer-encoding" in headers or not length.isdigit() or int(length) > SKIPPED_BYTES


def _log_access(scope: Scope, status: int, seconds: float, request_id: bytes) -> None:
    fields = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(seconds * 1000, 3),
              "request_id": request_id.decode()}  # fmt: skip
    access.info("request", extra={"fields": fields})


def _page(page: Page) -> Response:
    kind, body, headers = page
    return Response(200, body, ((b"content-type", kind.encode()),
                                *((name.encode(), value.encode()) for name, value in headers.items())))  # fmt: skip


async def _refuse_protocol(scope: Scope, receive: Receive, send: Send) -> None:
    """Close WebSockets; there is nothing to start or stop for ``lifespan``."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    elif scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
