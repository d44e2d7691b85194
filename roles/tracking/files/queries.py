"""What the database does for one request, and its end when the client gives up.

MLflow's handlers run in threads, which nobody can stop. What takes long in them is a query: the driver can ask the database to end the one that a
connection runs. Which connections a request has, SQLAlchemy's pool says; the request itself is known in its threads by a context variable.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

CANCEL_SECONDS = 3.0

logger = logging.getLogger("queries")


class Work:
    """The connections that one request has out of the pool just now."""

    def __init__(self) -> None:
        # Held while something is cancelled: no connection goes back to the pool, and so to another request, before the database has answered.
        self._lock = threading.Lock()
        self._connections: dict[int, Any] = {}

    def took(self, connection: Any) -> None:
        """The request has this connection of the driver now."""
        with self._lock:
            self._connections[id(connection)] = connection

    def gave_back(self, connection: Any) -> None:
        """The request has it no more."""
        with self._lock:
            self._connections.pop(id(connection), None)

    def cancel(self) -> None:
        """End what the database does for the request."""
        with self._lock:
            for connection in self._connections.values():
                try:
                    connection.cancel_safe(timeout=CANCEL_SECONDS)
                except Exception as error:  # noqa: BLE001 - whatever the driver raises; the query's own bound of time is left
                    logger.warning("A query could not be cancelled: %s", type(error).__name__)


_work: ContextVar[Work | None] = ContextVar("work", default=None)


@contextmanager
def working() -> Iterator[Callable[[], None]]:
    """Gives what ends the queries of the block, in whatever thread of it they are asked."""
    work = Work()
    token = _work.set(work)
    try:
        yield work.cancel
    finally:
        _work.reset(token)


def _checkout(connection: Any, record: Any, _proxy: Any) -> None:
    work = _work.get()
    # Other drivers than that of PostgreSQL cannot.
    if work is not None and hasattr(connection, "cancel_safe"):
        record.info["work"] = work, connection
        work.took(connection)


def _checkin(_connection: Any, record: Any) -> None:
    # Perhaps in another thread than it was taken in, and of a connection that is broken by now.
    work, connection = record.info.pop("work", (None, None))
    if work is not None:
        work.gave_back(connection)


def watch_pools() -> None:
    """Have every pool of SQLAlchemy say who takes its connections."""
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    event.listen(Pool, "checkout", _checkout)
    event.listen(Pool, "checkin", _checkin)
