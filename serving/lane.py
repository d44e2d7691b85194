"""The short way of a prediction: from the parsed request to the batcher and back to the socket, without a task.

uvicorn starts a task for each request, and hands the body and the answer over in messages; that costs more than the
prediction. This is uvicorn's own connection, which it takes by its setting ``http``: parsing, pipelining, flow control,
time limits and shutdown are uvicorn's. A request takes the short way only if all of it came in one piece and its rows are
answered in the same tick of the event loop; every other one, and every error, is the application's as usual.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.app import Application, Finish, Route
from serving.bodies import SHARES
from serving.limits import Heavy
from serving.model import Answer

log = logging.getLogger(__name__)


class Connection(HttpToolsProtocol):  # type: ignore[misc]
    """A connection of uvicorn whose requests may take the short way."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # With the application wrapped, as for uvicorn's trace log, everything takes the long way.
        self.application: Any = self.app if isinstance(self.app, Application) else None
        self._feeding = False
        # The request whose task is not started yet, because the rest of it may be in the same piece.
        self._begun: tuple[Any, Any] | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what came, and start the task of a request whose body is still to come."""
        self._feeding = self.application is not None
        try:
            super().data_received(data)
        finally:
            self._feeding = False
            if self._begun is not None:
                self._start()

    def on_message_complete(self) -> None:
        """Take the short way with a complete request, or start its task."""
        super().on_message_complete()
        if self._begun is not None and not self._take(self._begun[0]):
            self._start()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        # Called by uvicorn at the end of a request's head, and for the next one that was pipelined.
        if self._feeding:
            self._begun = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _start(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            super()._start_asgi_task(*begun)

    def _take(self, cycle: Any) -> bool:
        """Take the short way if it is one for this request."""
        start = time.perf_counter()
        app: Application = self.application
        scope = cycle.scope
        size = len(cycle.body)
        predictor = app.predictor
        if size > app.bodies.limit or app.bodies.held + size > app.bodies.limit * SHARES:
            return False
        if cycle.waiting_for_100_continue or self.flow.write_paused or predictor is None or app.settings.access_log:
            return False
        route = app.routes.get(scope["path"])
        if route is None or route.post is None or scope["method"] != "POST":
            return False
        headers = dict(scope["headers"])
        if b"content-encoding" in headers or size > app.loop_bytes:
            return False
        self._begun = None
        request_id = app.writer.request_id(headers)
        try:
            batch, probabilities, finish = decoded = app.read(route, bytes(cycle.body), headers)
            exchange = Exchange(self, cycle, route, finish, request_id, start, size)
            if predictor.offer(batch, exchange, probabilities=probabilities):
                app.in_flight += 1
                app.bodies.held += size
            else:
                super()._start_asgi_task(cycle, partial(app, decoded=decoded))
        except Heavy:
            self._begun = cycle, app
            return False
        except Exception as error:  # noqa: BLE001 - the application answers all that can go wrong
            super()._start_asgi_task(cycle, partial(app, decoded=error))
        return True

    def reply(self, cycle: Any, body: bytes, request_id: bytes) -> None:
        """Send a prediction, and go on with the connection as uvicorn does."""
        if not cycle.disconnected:
            head = self.application.writer.head(self.server_state.default_headers, keep=cycle.keep_alive)
            self.transport.write(
                b"%bcontent-length: %d\r\nx-request-id: %b\r\n\r\n%b" % (head, len(body), request_id, body)
            )
            cycle.response_started = cycle.response_complete = True
            if not cycle.keep_alive:
                self.transport.close()
            cycle.on_response()
        cycle.on_response = _nothing

    def fail(self, cycle: Any, error: Exception) -> None:
        """Let the application answer an error."""
        super()._start_asgi_task(cycle, partial(self.application, decoded=error))


class Exchange:
    """A request on the short way; to the batcher it is what waits for the answer."""

    __slots__ = ("connection", "cycle", "finish", "request_id", "route", "size", "start")

    def __init__(  # noqa: PLR0913, PLR0917 - one for each slot; by name would cost as much again
        self,
        connection: Connection,
        cycle: Any,
        route: Route,
        finish: Finish,
        request_id: bytes,
        start: float,
        size: int,
    ) -> None:
        self.connection = connection
        self.cycle = cycle
        self.route = route
        self.finish = finish
        self.request_id = request_id
        self.start = start
        self.size = size

    def done(self) -> bool:
        """The answer comes in the same tick: no client is late, or gone, before."""
        return False

    def set_result(self, answer: Answer) -> None:
        """Send the answer."""
        app: Application = self.connection.application
        app.in_flight -= 1
        app.bodies.held -= self.size
        try:
            body = self.finish(answer, self.request_id)
        except Exception as error:  # noqa: BLE001 - as above
            self.connection.fail(self.cycle, error)
            return
        try:
            self.connection.reply(self.cycle, body, self.request_id)
        except Exception:
            # Whatever it is, the other requests of the tick get their answers.
            log.exception("an answer cannot be sent")
            self.connection.transport.abort()
        app.metrics.answered(self.route.endpoint, 200, time.perf_counter() - self.start)

    def set_exception(self, error: BaseException) -> None:
        """Send an error."""
        app: Application = self.connection.application
        app.in_flight -= 1
        app.bodies.held -= self.size
        self.connection.fail(self.cycle, error)  # type: ignore[arg-type]


def _nothing() -> None:
    """Stands for the callback of a request that is over, as in uvicorn; else the two would keep each other alive."""
