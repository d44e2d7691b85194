"""The process: loads the model once, forks the workers, hands signals on."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from serving import information, model
from serving.app import Application
from serving.batching import Batcher, Limits
from serving.cage import Cage
from serving.lane import Connection
from serving.logs import configure
from serving.metrics import Metrics
from serving.settings import Settings, SettingsError

log = logging.getLogger(__name__)

KEEP_ALIVE = 75  # longer than the edge keeps its connections, so that it is never this side that closes one in use
GRACE = 25
BACKLOG = 2048
# A worker that died is started again after this many seconds, twice as many each time it dies soon again.
FIRST_BACKOFF, LAST_BACKOFF, LONG_LIFE = 0.1, 10.0, 30.0
# Seconds between two looks of the parent at its workers.
LOOK = 0.05
FAILED, CANNOT_START = 1, 2
# Of malloc.h: free memory above the first is given back, what is as large as the second has a mapping of its own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, MAPPED_BYTES = 16 * 1024 * 1024, 8 * 1024 * 1024


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn that ends with exit code 0 after SIGTERM, and closes connections that never send a request."""

    def __init__(self, config: uvicorn.Config, app: Application, silent_seconds: float) -> None:
        super().__init__(config)
        self.app = app
        self.silent_seconds = silent_seconds
        self._silent: dict[Any, float] = {}

    async def main_loop(self) -> None:
        """Serve; the application begins before its first request, because its parent waits for a sign of it."""
        self.app.start()
        await super().main_loop()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals and keep them: uvicorn raises them once more at its end, which would kill the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    async def on_tick(self, counter: int) -> bool:
        """Once a second, close what is connected without a request in progress and without a timer of its own."""
        if counter % 10 == 0:
            now = time.monotonic()
            silent = {item for item in self.server_state.connections if _is_silent(item)}
            self._silent = {item: self._silent.get(item, now) for item in silent}
            for item, since in self._silent.items():
                if now - since > self.silent_seconds:
                    item.transport.close()
        return bool(await super().on_tick(counter))


def _is_silent(connection: Any) -> bool:
    """Whether the head of a request is being waited for, in a way that uvicorn has no limit for."""
    cycle = getattr(connection, "cycle", None)
    idle = cycle is None or cycle.response_complete
    return idle and getattr(connection, "timeout_keep_alive_task", None) is None


def load(settings: Settings) -> model.ServedModel:
    """Read and load the model that the settings name."""
    found = information.read(
        settings.model_path,
        name=settings.name,
        model=settings.model,
        alias=settings.alias,
        version=settings.version,
        run_id=settings.run_id,
        image=settings.image,
        metrics=settings.metrics,
        pickle=settings.pickle,
        labels=settings.labels,
    )
    served = model.load(settings.model_path, found)
    # /version says which MLflow answers, as the stock server does, not which one logged the model.
    from mlflow.version import VERSION  # noqa: PLC0415 - MLflow must be imported after its environment is set

    served.information = replace(served.information, mlflow_version=VERSION)
    return served


def parser(path: Path) -> Any:
    """MLflow's own parser for the model at this path."""
    from serving.raw import RawParser  # noqa: PLC0415 - most models never need it

    return RawParser(path)


def application(served: model.ServedModel, settings: Settings, metrics: Metrics, cage: Cage) -> Application:
    """The application for a loaded model."""
    from serving.pages import pages  # noqa: PLC0415 - as above

    limits = Limits(queue=settings.queue, timeout=settings.timeout)
    return Application(
        served.information,
        settings,
        lambda: Batcher(served, limits, metrics.batch),
        metrics,
        raw=partial(parser, settings.model_path),
        pages=documents(served.information, settings) | dict(pages(served.information, settings)),
        cage=cage,
    )


def documents(found: information.ModelInformation, settings: Settings) -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """The OpenAPI document as a page."""
    from serving import openapi, responses  # noqa: PLC0415 - as pages

    document = openapi.document(found, settings.root_path)
    return {"/openapi.json": ("application/json", responses.encode(document), {})}


def fields_of(found: information.ModelInformation) -> list[str]:
    """The names whose rejects are counted one by one."""
    signature = found.signature
    tensors = [item.name if item.name is not None else found.input_name for item in signature.tensors]
    return [column.name for column in signature.columns] + tensors + [param.name for param in signature.params]


def bind(settings: Settings) -> socket.socket:
    """The listening socket, which all workers share."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by every connection: asyncio sets it on sockets it made itself only.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((settings.host, settings.port))
    sock.listen(BACKLOG)
    sock.setblocking(False)  # noqa: FBT003 - the standard library has no keyword for it
    return sock


def work(app: Application, sock: socket.socket, settings: Settings) -> None:
    """Serve until SIGTERM."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        backlog=BACKLOG,
    )
    Server(config, app, settings.body_timeout).run(sockets=[sock])


class Parent:
    """Keeps the workers running: starts one again that has died, and kills one that hangs."""

    def __init__(self, count: int, run: Callable[[int], None], metrics: Metrics, patience: float) -> None:
        """``patience``: the seconds that a model, or a worker's event loop, may be without an answer."""
        self.run = run
        self.metrics = metrics
        self.count = count
        self.patience = patience
        # What each worker's event loop last said, and how many of our own looks have seen nothing new: a container that was
        # paused has not looked either.
        self.beats: dict[int, tuple[float, int]] = {}
        self.workers: dict[int, tuple[int, float]] = {}
        self.delays = dict.fromkeys(range(count), FIRST_BACKOFF)
        self.due: dict[int, float] = {}
        self.stopping = False

    def serve(self) -> int:
        """Fork the workers and wait until all have ended; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # A signal must interrupt the sleep below, not be lost before it.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for slot in range(self.count):
            self._fork(slot)
        code = 0
        while self.workers or (self.due and not self.stopping):
            code = max(code, self._reap())
            now = time.monotonic()
            for slot in [slot for slot, when in self.due.items() if when <= now and not self.stopping]:
                del self.due[slot]
                self._fork(slot)
            for pid, (slot, _) in self.workers.items():
                if self._hangs(slot):
                    log.error("a worker hangs", extra={"fields": {"worker": pid}})
                    os.kill(pid, signal.SIGKILL)
            if self.workers or self.due:
                time.sleep(LOOK)
        return code

    def _hangs(self, slot: int) -> bool:
        """Whether a worker's model, or its event loop, has given no sign for too long."""
        beats = self.metrics.beats_of(slot)
        last, looks = self.beats.get(slot, (beats, 0))
        looks = looks + 1 if beats == last else 0
        self.beats[slot] = beats, looks
        return looks * LOOK > self.patience or self.metrics.stuck_of(slot) > self.patience

    def _fork(self, slot: int) -> None:
        pid = os.fork()
        if pid == 0:
            code = FAILED
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                self.run(slot)
                code = 0
            except BaseException:
                log.exception("a worker failed")
            finally:
                # Past the parent's own clean-up, which is not this process's to do.
                os._exit(code)
        self.workers[pid] = (slot, time.monotonic())
        if self.stopping:
            os.kill(pid, signal.SIGTERM)

    def _reap(self) -> int:
        """Collect workers that have ended, and plan their successors; the worst code of those told to end."""
        code = 0
        while self.workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid not in self.workers:
                continue
            slot, since = self.workers.pop(pid)
            self.beats.pop(slot, None)
            ended = os.waitstatus_to_exitcode(status)
            if self.stopping:
                code = max(code, 0 if ended == 0 else FAILED)
                continue
            lived = time.monotonic() - since
            delay = FIRST_BACKOFF if lived > LONG_LIFE else self.delays[slot]
            self.delays[slot] = min(delay * 2, LAST_BACKOFF)
            self.due[slot] = time.monotonic() + delay
            self.metrics.restarted(slot)
            fields = {"worker": pid, "exit_code": ended, "lived_seconds": round(lived, 1), "again_in_seconds": delay}
            log.error("a worker died", extra={"fields": fields})
        return code

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopping = True
        for pid in list(self.workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def keep_memory() -> None:
    """Let the C library keep freed memory, where it is glibc's.

    It would give the memory of a tick's bodies back to the system and ask for it again in the next tick, which costs as
    much as a prediction.
    """
    with contextlib.suppress(OSError, AttributeError):
        options = ctypes.CDLL(None).mallopt
        options(M_TRIM_THRESHOLD, KEPT_BYTES)
        options(M_MMAP_THRESHOLD, MAPPED_BYTES)


def main() -> int:
    """Start from the environment; the exit code."""
    configure()
    keep_memory()
    started = time.monotonic()
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        log.error("a setting is wrong: %s", error)  # noqa: TRY400 - the message says it all
        return CANNOT_START
    # As long as there are no threads and no model: what is forked now stays small.
    cage = Cage()
    try:
        served = load(settings)
        metrics = Metrics(
            fields_of(served.information), name=settings.name, version=settings.version, workers=settings.workers
        )
        app = application(served, settings, metrics, cage)
    except Exception as error:  # noqa: BLE001 - loading a model runs code of anybody
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        log.error("the model at %s cannot be loaded: %s", settings.model_path, reason)  # noqa: TRY400 - one line
        return FAILED
    try:
        sock = bind(settings)
    except OSError as error:
        log.error("cannot listen on %s:%d: %s", settings.host, settings.port, error)  # noqa: TRY400 - the same
        return FAILED
    configure()
    # What is loaded now stays: the collector need not look at it, and so does not write to pages shared by the workers.
    gc.collect()
    gc.freeze()
    found = served.information
    fields = {"model": found.name, "version": found.version, "port": sock.getsockname()[1], "workers": settings.workers,
              "predictor": found.predictor, "reason": found.predictor_reason,
              "seconds": round(time.monotonic() - started, 2)}  # fmt: skip
    log.info("ready", extra={"fields": fields})
    if settings.workers == 1:
        work(app, sock, settings)
        code = 0
    else:

        def run(slot: int) -> None:
            metrics.use_slot(slot)
            app.writer.renew()
            work(app, sock, settings)

        code = Parent(settings.workers, run, metrics, settings.hang_timeout).serve()
    log.info("stopped", extra={"fields": {"exit_code": code}})
    return code
