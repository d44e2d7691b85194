"""Bodies that take long, or whose size says little, are decoded in a process of their own: with a limit of memory and time.

The kernel enforces both, so that nothing a body claims about itself need be believed, and no library trusted. The process
is forked from a small one that was itself forked before the model was loaded, and that has no threads: a few milliseconds.
The event loop goes on meanwhile, which a thread that decodes would stop for as long as one call into C takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import importlib
import logging
import math
import os
import pickle
import resource
import select
import signal
import socket
import struct
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from serving import limits, scoring
from serving.errors import BadRequest, Busy, ModelFailed, ServingError
from serving.information import ModelInformation
from serving.readers import READ_HEADERS, Readers
from serving.settings import Settings
from serving.signature import Batch

log = logging.getLogger(__name__)

SIZES, SIZE = struct.Struct(">QQ"), struct.Struct(">Q")
# Arrays begin at a multiple of this, as those that numpy makes.
ALIGNED = 64
# A request that waits longer for others' bodies is told to come again.
PATIENCE = 5.0
# So many objects are unpacked in one go, so that the event loop has its turn between two.
PIECE = 20_000
PAGE = resource.getpagesize()
# More memory for the words with which a body is refused.
WORDS = 8 * limits.MIB
# What reading a table needs, by its media type.
TABLES = {scoring.CSV: ("pandas",), scoring.PARQUET: ("pandas", "pyarrow.parquet")}


class Budget:
    """Bytes of the bodies that are decoded, or whose rows are held; who comes when they are spent waits for its turn."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self.waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes fit. Raises Busy."""
        if not self.waiting and self.used + size <= self.most:
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((size, turn))
        try:
            async with asyncio.timeout(PATIENCE):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(size)
            else:
                turn.cancel()
                # Those behind it may fit.
                self.give(0)
            if not isinstance(error, TimeoutError):
                raise
            raise Busy("Too many bytes of other bodies are being decoded; try again, or send smaller bodies") from None

    def give(self, size: int) -> None:
        """Give ``size`` bytes back."""
        self.used -= size
        waiting = self.waiting
        while waiting and (waiting[0][1].done() or self.used + waiting[0][0] <= self.most):
            wanted, turn = waiting.popleft()
            if not turn.done():
                self.used += wanted
                turn.set_result(None)


class Cage:
    """Starts processes that decode; one for all workers of a server, whose bodies each worker counts for itself."""

    def __init__(self) -> None:
        """Fork the small process; the caller should have no threads and little in its memory."""
        # Whether the small process is no more, and with it what this server can do about larger bodies.
        self.gone = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, self._setup = os.pipe()
        self._loaders = ThreadPoolExecutor(1, "unpack")
        pid = os.fork()
        if pid == 0:
            # Twice, so that it is no worker of ours that would have to be waited for.
            if os.fork() == 0:
                self._control.close()
                os.close(self._setup)
                _live(theirs, read)
            os._exit(0)
        os.waitpid(pid, 0)
        theirs.close()
        os.close(read)
        # The small process ends when nobody holds the other end any more.
        weakref.finalize(self, self._control.close)
        self._control.setblocking(False)  # noqa: FBT003 - the standard library has no keyword for it

    def prepare(self, information: ModelInformation, settings: Settings, raw: Callable[[], Any] | None = None) -> None:
        """Say what model the bodies are for; once."""
        with os.fdopen(self._setup, "wb") as pipe:
            pickle.dump((information, settings, raw), pipe)

    async def read(self, name: str, body: bytes, headers: Mapping[bytes, bytes]) -> Any:
        """What the reader of this name makes of a body. Raises ServingError."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                needs = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
                try:
                    socket.send_fds(self._control, [needs[:100] or b"-"], [theirs.fileno()])
                except BlockingIOError:
                    raise Busy("Too many bodies are being decoded; try again") from None
                except OSError:
                    self.gone = True
                    log.critical("the process that starts decoders is gone")
                    raise Busy(
                        "No body can be decoded that is more than small; this server must be started anew"
                    ) from None
            ours.setblocking(False)  # noqa: FBT003 - as above
            answer = await self._exchange(ours, name, body, headers)
        if answer is None:
            raise limits.too_much_memory(len(body))
        return await asyncio.get_running_loop().run_in_executor(self._loaders, load, answer)

    @staticmethod
    async def _exchange(
        sock: socket.socket, name: str, body: bytes, headers: Mapping[bytes, bytes]
    ) -> memoryview | None:
        """Send a body; what came back, or None where the process ended without an answer."""
        loop = asyncio.get_running_loop()
        head = pickle.dumps((name, {key: headers[key] for key in READ_HEADERS if key in headers}))
        try:
            await loop.sock_sendall(sock, SIZES.pack(len(head), len(body)) + head)
            await loop.sock_sendall(sock, body)
            size = bytearray(SIZE.size)
            if not await _fill(sock, memoryview(size)):
                return None
            (length,) = SIZE.unpack(size)
            # Not a bytearray, which would be written full of zeros first.
            answer = np.empty(min(length, limits.result(len(body))), np.uint8).data
            return answer if len(answer) == length and await _fill(sock, answer) else None
        except (ConnectionError, BrokenPipeError):
            return None


async def _fill(sock: socket.socket, rest: memoryview) -> bool:
    """Read until the buffer is full; False where the other side ends before."""
    loop = asyncio.get_running_loop()
    while rest:
        got = await loop.sock_recv_into(sock, rest)
        if not got:
            return False
        rest = rest[got:]
    return True


# What runs in the small process.


def _live(control: socket.socket, setup: int) -> None:
    """Fork a process for each body that is announced, until nobody is left to announce one; never returns."""
    code = 0
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            # It ends with those who use it.
            signal.signal(number, signal.SIG_IGN)
        with os.fdopen(setup, "rb") as pipe:
            data = pipe.read()
        readers = _readers(*_unpickle(data)) if data else None
        while readers is not None:
            needs, fds, _, _ = socket.recv_fds(control, 200, 1)
            if not needs or not fds:
                break
            # What is imported here need not be in every process for a table.
            for module in TABLES.get(needs.decode("latin-1"), ()):
                _import(module)
            if os.fork() == 0:
                control.close()
                _serve(socket.socket(fileno=fds[0]), readers, control)
            os.close(fds[0])
    except BaseException:
        log.exception("no more bodies can be decoded")
        code = 1
    finally:
        os._exit(code)


def _readers(information: ModelInformation, settings: Settings, raw: Callable[[], Any] | None) -> Readers:
    """The readers, with all that they would import later."""
    readers = Readers(information, settings, raw)
    if any(column.type == "datetime" for column in information.signature.columns):
        _import("pandas")
    if information.input_shape is not None:
        _import("PIL.PngImagePlugin")
    if raw is not None and (readers.scoring.needs_raw or readers.typed.needs_raw):
        readers.parser()
    gc.freeze()
    return readers


def _import(module: str) -> None:
    # A model's environment need not have it: the reader says so.
    with contextlib.suppress(ImportError):
        importlib.import_module(module)


def _serve(sock: socket.socket, readers: Readers, control: socket.socket) -> None:
    """Decode one body in this process, which ends with it."""
    control.close()
    try:
        # The server that answers requests and health checks gets the processor first.
        os.nice(5)
        # The first that the kernel ends when a container has no memory left.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write("1000")
        gc.disable()
        sock.setblocking(True)  # noqa: FBT003 - as above
        stream = sock.makefile("rb")
        head, size = SIZES.unpack(stream.read(SIZES.size))
        name, headers = _unpickle(stream.read(head))
        # The worker gives up first, and says why.
        seconds = readers.seconds + 1
        signal.setitimer(signal.ITIMER_REAL, seconds)
        most = _size_of_process() + limits.memory(size)
        resource.setrlimit(resource.RLIMIT_AS, (most, most + WORDS))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds) + 1, math.ceil(seconds) + 1))
        answer = _answer(readers, name, headers, stream.read(size), sock)
        # Room in the buffer of the socket is no news from its other end.
        fcntl.fcntl(sock, fcntl.F_SETFL, 0)
        for part in answer:
            sock.sendall(part)
    except MemoryError:
        # The worker says what was the matter when nothing comes.
        pass
    except OSError:
        # Nobody waits any more.
        pass
    finally:
        os._exit(0)


def _answer(
    readers: Readers, name: str, headers: Mapping[bytes, bytes], body: bytes, sock: socket.socket
) -> list[bytes | memoryview]:
    """What is sent of a body: what it holds, or the error."""
    # A worker that gives up closes its end, and SIGIO ends this process.
    fcntl.fcntl(sock, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sock, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([sock], [], [], 0)[0]:
        raise ConnectionResetError
    try:
        return dump(readers.by_name[name](body, headers))
    except ServingError as error:
        return dump(error)
    except RecursionError:
        return dump(BadRequest("The body is nested too deeply"))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the worker has the request id, and logs it
        return dump(_Failure(f"{type(error).__name__}: {error}"[:1000]))


def _size_of_process() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[0]) * PAGE


# How what was decoded goes from one process to the other.


def _unpickle(data: bytes | memoryview, buffers: Iterable[memoryview] = ()) -> Any:
    return pickle.loads(data, buffers=buffers)  # noqa: S301 - written by another process of ours


class _Failure(Exception):  # noqa: N818 - an error of ours in the other process
    """What a reader raised that it should not."""


class _Pieces:
    """An array of objects in pieces: unpacked in one go, they would hold up the event loop."""

    def __init__(self, values: Any) -> None:
        self.parts = [pickle.dumps(values[place : place + PIECE]) for place in range(0, len(values), PIECE)]

    def joined(self) -> Any:
        """The array."""
        return np.concatenate([_unpickle(part) for part in self.parts])


def dump(result: Any) -> list[bytes | memoryview]:
    """What a reader gave or raised, as parts to send; arrays of numbers are not copied."""
    batch = result if isinstance(result, Batch) else getattr(result, "batch", None)
    if batch is not None:
        batch.data = {
            name: _Pieces(values) if values.dtype == object and values.ndim == 1 else values
            for name, values in batch.data.items()
        }
    arrays: list[pickle.PickleBuffer] = []
    data = pickle.dumps(result, protocol=5, buffer_callback=arrays.append)
    parts: list[bytes | memoryview] = []
    place = len(data)
    marks = []
    for array in arrays:
        fill = -place % ALIGNED
        raw = array.raw()
        parts += [bytes(fill), raw]
        marks.append((place + fill, raw.nbytes))
        place += fill + raw.nbytes
    # The length of what follows, then the data, the arrays, and where they are.
    end = pickle.dumps((len(data), marks))
    return [SIZE.pack(place + len(end) + SIZE.size), data, *parts, end, SIZE.pack(len(end))]


def load(view: memoryview) -> Any:
    """The inverse of ``dump``, whose arrays lie in ``view`` itself. Raises ServingError."""
    (end,) = SIZE.unpack(view[-SIZE.size :])
    size, marks = _unpickle(view[-SIZE.size - end : -SIZE.size])
    result = _unpickle(view[:size], [view[begin : begin + count] for begin, count in marks])
    if isinstance(result, ServingError):
        raise result
    if isinstance(result, Exception):
        log.error("a body made its reader fail: %s", result)
        raise ModelFailed("Internal error: the body cannot be read")
    batch = result if isinstance(result, Batch) else result.batch
    batch.data = {
        name: values.joined() if isinstance(values, _Pieces) else values for name, values in batch.data.items()
    }
    return result
