"""Requests that arrive in the same tick of the event loop are answered by one call of the model.

A compiled model answers in the loop itself: its call is shorter than handing the work to a thread. An original model
runs in one worker thread; what arrives while it is busy is joined into its next call. No timer ever delays a request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from serving.errors import DeadlineExceeded, ModelFailed, NotReady, QueueFull, ServingError
from serving.model import FAILED, Answer, ServedModel
from serving.signature import Batch

log = logging.getLogger(__name__)

FULL = "Too many requests are waiting for the model."
LATE = "The model did not answer in time."
STUCK = "The model does not answer."


@dataclass(frozen=True)
class Limits:
    """What keeps one client from the others and the memory bounded."""

    # Requests that wait; those that run are not counted.
    queue: int = 1024
    # Rows of all requests in one call; a request with more rows has a call of its own.
    rows: int = 1024
    # Rows that a compiled model answers in the loop; more go to the thread.
    inline_rows: int = 256
    # Seconds from arrival to answer.
    timeout: float = 30.0


class Waiter(Protocol):
    """What gets an answer or an error: a future, or as much of one as is needed here."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Answer, /) -> None:
        """Take the answer."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Take the error."""


class Ticket:
    """One request on its way through the queue."""

    __slots__ = ("batch", "deadline", "future", "kind", "probabilities")

    def __init__(self, batch: Batch, kind: Hashable | None, future: Waiter, *, proba: bool) -> None:
        self.batch = batch
        self.kind = kind
        self.future = future
        self.probabilities = proba
        self.deadline = 0.0


Outcome = Answer | ServingError
Group = list[Ticket]


class Batcher:
    """Queue and worker of one model, for one event loop; made and used in that loop's thread.

    ``observe`` is called with the number of requests and of rows of every call of the model.
    """

    def __init__(
        self, model: ServedModel, limits: Limits | None = None, observe: Callable[[int, int], None] | None = None
    ) -> None:
        self.model = model
        self.limits = limits or Limits()
        self.observe = observe
        self.loop = asyncio.get_running_loop()
        self.inline_rows = self.limits.inline_rows if model.compiled is not None else 0
        # Compiled: what arrived in this tick. Thread: what waits for it, in the order of arrival.
        self.tick: Group = []
        self.waiting: deque[Ticket] = deque()
        self.running: Group = []
        self.running_since = 0.0
        self.scheduled = False
        self.timer: asyncio.TimerHandle | None = None
        self.work: SimpleQueue[tuple[list[Batch], bool]] = SimpleQueue()
        self.thread: threading.Thread | None = None

    @property
    def stuck_seconds(self) -> float:
        """For how long the call that runs in the thread has been running; 0 if none does."""
        return self.loop.time() - self.running_since if self.running else 0.0

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self.tick) + len(self.waiting)

    def submit(self, batch: Batch, *, probabilities: bool = False) -> asyncio.Future[Answer]:
        """Queue a batch; the future has its answer or a ServingError. Raises QueueFull at once, and NotReady if the model hangs.

        A future that is cancelled takes its batch out of the queue.
        """
        future: asyncio.Future[Answer] = self.loop.create_future()
        if not self.offer(batch, future, probabilities=probabilities):
            self._enqueue(Ticket(batch, self.model.kind(batch), future, proba=probabilities))
            self._schedule()
        return future

    def offer(self, batch: Batch, waiter: Waiter, *, probabilities: bool = False) -> bool:
        """Queue a batch for ``waiter`` if it is answered in this tick; False if not. Raises as ``submit`` does."""
        if batch.rows > self.inline_rows:
            return False
        kind = self.model.kind(batch)
        if kind is None:
            return False
        if len(self.tick) >= self.limits.queue:
            raise QueueFull(FULL)
        self.tick.append(Ticket(batch, kind, waiter, proba=probabilities))
        self._schedule()
        return True

    def _enqueue(self, ticket: Ticket) -> None:
        if self.stuck_seconds > self.limits.timeout:
            raise NotReady(STUCK)
        if len(self.waiting) >= self.limits.queue:
            self._forget_cancelled()
            if len(self.waiting) >= self.limits.queue:
                raise QueueFull(FULL)
        ticket.deadline = self.loop.time() + self.limits.timeout
        self.waiting.append(ticket)
        if self.timer is None:
            self.timer = self.loop.call_at(ticket.deadline, self._expire)

    def _schedule(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._flush)

    def _forget_cancelled(self) -> None:
        self.waiting = deque(ticket for ticket in self.waiting if not ticket.future.done())

    def _flush(self) -> None:
        """Answer what has arrived since the last tick."""
        self.scheduled = False
        tick = self.tick
        if tick:
            self.tick = []
            for group in _groups(tick, self.inline_rows):
                self._finish(group, self._call([ticket.batch for ticket in group], proba=_wants(group)))
        if self.waiting:
            self._start()

    def _start(self) -> None:
        """Give the thread its next call, if it is free."""
        if self.running:
            return
        group: Group = []
        rows = 0
        waiting = self.waiting
        while waiting:
            ticket = waiting[0]
            if ticket.future.done():
                waiting.popleft()
                continue
            fits = ticket.kind is not None and ticket.kind == group[0].kind if group else True
            if not fits or (group and rows + ticket.batch.rows > self.limits.rows):
                break
            group.append(waiting.popleft())
            rows += ticket.batch.rows
        if not group:
            return
        if self.thread is None:
            # A daemon: a model that hangs must not keep the process from ending.
            self.thread = threading.Thread(target=self._work, name="model", daemon=True)
            self.thread.start()
        self.running = group
        self.running_since = self.loop.time()
        self.work.put(([ticket.batch for ticket in group], _wants(group)))

    def _work(self) -> None:
        """Run calls; in the thread."""
        while True:
            batches, proba = self.work.get()
            outcomes = self._call(batches, proba=proba)
            try:
                self.loop.call_soon_threadsafe(self._done, outcomes)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                return

    def _done(self, outcomes: list[Outcome]) -> None:
        group = self.running
        self.running = []
        self._finish(group, outcomes)
        self._start()

    def _finish(self, group: Group, outcomes: list[Outcome]) -> None:
        for ticket, outcome in zip(group, outcomes, strict=True):
            _settle(ticket, outcome)
        if self.observe is not None:
            self.observe(len(group), sum([ticket.batch.rows for ticket in group]))

    def _call(self, batches: list[Batch], *, proba: bool) -> list[Outcome]:
        """One outcome for each batch; if they fail together, each is predicted alone and only the culprit fails."""
        try:
            return [*self.model.answer(batches, probabilities=proba)]
        except ServingError as error:
            if len(batches) == 1:
                return [error]
        except BaseException:  # a model that calls sys.exit() must not end the thread
            log.exception("the model's answer cannot be read")
            if len(batches) == 1:
                return [ModelFailed(FAILED)]
        return [outcome for batch in batches for outcome in self._call([batch], proba=proba)]

    def _expire(self) -> None:
        """Tell the clients whose time is over, and set the timer to the next one's."""
        self.timer = None
        now = self.loop.time()
        for ticket in self.running:
            if ticket.deadline <= now:
                _settle(ticket, DeadlineExceeded(LATE))
        waiting = self.waiting
        while waiting and (waiting[0].deadline <= now or waiting[0].future.done()):
            _settle(waiting.popleft(), DeadlineExceeded(LATE))
        open_deadlines = [ticket.deadline for ticket in self.running if not ticket.future.done()]
        if waiting:
            open_deadlines.append(waiting[0].deadline)
        if open_deadlines:
            self.timer = self.loop.call_at(min(open_deadlines), self._expire)


def _settle(ticket: Ticket, outcome: Outcome) -> None:
    """Give a client its outcome, unless it has left or has been told that it is late."""
    if ticket.future.done():
        return
    if isinstance(outcome, ServingError):
        ticket.future.set_exception(outcome)
    else:
        if not ticket.probabilities:
            # Another request of the same call asked for them.
            outcome.probabilities = None
        ticket.future.set_result(outcome)


def _wants(group: Group) -> bool:
    return True in [ticket.probabilities for ticket in group]


def _groups(tick: Group, most: int) -> list[Group]:
    """The requests of one tick in groups of one kind and at most ``most`` rows; without those who have left."""
    groups: list[Group] = []
    kind: Hashable | None = None
    rows = 0
    for ticket in tick:
        if ticket.future.done():
            continue
        rows += ticket.batch.rows
        if not groups or ticket.kind != kind or rows > most:
            groups.append([])
            kind = ticket.kind
            rows = ticket.batch.rows
        groups[-1].append(ticket)
    return groups
