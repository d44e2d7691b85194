"""The worst bodies that the limits allow, and what each takes: ``python -m tests.serving.hostile`` prints the table of docs/."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import small
from bench.live import CSV, JSON, PARQUET, Live, Reply, request
from serving.limits import PICTURE_PIXELS, TABLE_BYTES, TABLE_CELLS

MIB = 1024 * 1024
BODY = 16 * MIB
LOOK = 0.002
INVOCATIONS, PREDICT, BINARY = "/invocations", "/predict", "application/octet-stream"


@dataclass
class Case:
    """A body, for which model and how it is sent; ``statuses`` are those that will do."""

    model: str
    body: bytes
    statuses: tuple[int, ...] = (200,)
    path: str = INVOCATIONS
    kind: str = JSON
    length: str = ""

    def request(self) -> bytes:
        return request(self.body, self.path, content_type=self.kind, inference_header_content_length=self.length)


def filled(head: bytes, item: bytes, tail: bytes, size: int) -> bytes:
    """A document of nearly ``size`` bytes: the item over and over."""
    count = (size - len(head) - len(tail)) // (len(item) + 1)
    return head + item + (b"," + item) * (count - 1) + tail


def png(mode: str, side: int, *, noise: bool = False) -> bytes:
    """A picture that is all zero, or cannot be compressed."""
    from PIL import Image

    bands = {"LA": 2, "RGBA": 4, "L": 1, "I;16": 1}[mode]
    kind = np.uint16 if mode == "I;16" else np.uint8
    rng = np.random.default_rng(1)
    shape = (side, side, bands) if bands > 1 else (side, side)
    pixels = rng.integers(0, 256, shape).astype(kind) if noise else np.zeros(shape, kind)
    file = io.BytesIO()
    Image.frombytes(mode, (side, side), pixels.tobytes()).save(file, "PNG")
    return file.getvalue()


def pictures(*files: bytes) -> bytes:
    """A body of /predict."""
    return json.dumps([{"image": base64.b64encode(file).decode()} for file in files]).encode()


def parquet(columns: dict[str, Any], **more: Any) -> bytes:
    """A table as its writer makes it."""
    import pyarrow as pa
    from pyarrow import parquet as files

    file = io.BytesIO()
    files.write_table(pa.table(columns), file, **more)
    return file.getvalue()


def lies(body: bytes, size: int) -> bytes:
    """The file with a footer that says that every column has one byte."""

    # The size stands as a varint in the footer; another of the same length replaces it.
    def varint(value: int, length: int) -> bytes:
        data = bytes(0x80 | (value >> 7 * place) & 0x7F for place in range(length - 1))
        return data + bytes([value >> 7 * (length - 1)])

    length = (2 * size).bit_length() // 7 + 1
    return body.replace(varint(2 * size, length), varint(2, length))


def infer(case_model: str, datatype: str, count: int, shape: list[int], data: bytes, size: int | None = None,
          statuses: tuple[int, ...] = (200,)) -> Case:  # fmt: skip
    """A request with one binary tensor."""
    head = json.dumps({"inputs": [{"name": "image", "shape": shape, "datatype": datatype,
                                   "parameters": {"binary_data_size": count if size is None else size}}]}).encode()  # fmt: skip
    return Case(case_model, head + data, statuses, f"/v2/models/{case_model}/infer", BINARY, str(len(head)))


def cases(most: int = BODY) -> dict[str, Callable[[], Case]]:
    """Every body by what it is; those in JSON and in binary are of nearly ``most`` bytes."""
    iris, digits, mixed = small.IRIS, small.DIGITS, small.MIXED
    names = list(small.FLOWER)
    side = int(PICTURE_PIXELS**0.5)
    flower = json.dumps(dict.fromkeys(names, 1)).encode()
    pixel = b"[" + b",".join([b"0"] * 784) + b"]"
    floats = b"[" + b",".join([b"0.5"] * 784) + b"]"
    wide = json.dumps(dict(small.RECORD)).encode()
    rows = most // 785
    heads = json.dumps(names).encode()
    infer_digits = b'{"inputs":[{"name":"image","datatype":"FP32","shape":[%d,784],"data":['
    numbers = most // 2 // 784 - 1

    def fill(head: bytes, item: bytes, tail: bytes) -> bytes:
        return filled(head, item, tail, most)

    names_csv = ",".join(f'"{name}"' for name in names).encode()

    def dictionary(cells: int, size: int) -> bytes:
        import pyarrow as pa

        value = "x" * size
        indices = pa.array(np.zeros(cells, np.int32))
        columns = {name: pa.DictionaryArray.from_arrays(indices, pa.array([value])) for name in names}
        return parquet(columns, store_schema=False)

    return {
        "JSON, records of four numbers": lambda: Case(iris, fill(b'{"dataframe_records":[', flower, b"]}")),
        "JSON, rows of four digits": lambda: Case(
            iris, fill(b'{"dataframe_split":{"columns":%b,"data":[' % heads, b"[1,1,1,1]", b"]}}")),
        "JSON, rows of four numbers, one a text": lambda: Case(
            iris, fill(b'{"dataframe_split":{"columns":%b,"data":[' % heads, b"[1,1,1,1]", b',[1,1,1,"a"]]}}'), (413, 422)),
        "JSON, empty records": lambda: Case(iris, fill(b'{"dataframe_records":[', b"{}", b"]}"), (413, 422)),
        "JSON, empty lists": lambda: Case(iris, fill(b'{"inputs":[', b"[]", b"]}"), (413, 422)),
        "JSON, lists of one list": lambda: Case(digits, fill(b'{"inputs":[', b"[[]]", b"]}"), (413, 422)),
        "JSON, one record of a million names": lambda: Case(
            iris, b'{"dataframe_records":[{' + b",".join(b'"%d":1' % n for n in range(10**6)) + b"}]}", (413, 422)),
        "JSON, numbers of 4,000 digits": lambda: Case(
            iris, fill(b'{"inputs":[', b"9" * 4000, b"]}"), (413, 422)),
        "JSON, exponents": lambda: Case(iris, fill(b'{"inputs":[', b"1e999", b"]}"), (413, 422)),
        "JSON, nested a million times": lambda: Case(iris, b'{"inputs":' + b"[" * 10**6 + b"]" * 10**6 + b"}", (400, 413)),
        "JSON, pixels": lambda: Case(digits, fill(b'{"inputs":[', pixel, b"]}")),
        "JSON, pixels as fractions": lambda: Case(digits, fill(b'{"inputs":[', floats, b"]}")),
        "JSON, columns of every type": lambda: Case(mixed, fill(b'{"dataframe_records":[', wide, b"]}"), (200, 413)),
        "JSON, texts of one letter": lambda: Case(mixed, fill(b'{"inputs":[', b'"a"', b"]}"), (413, 422)),
        "CSV, digits": lambda: Case(
            iris, names_csv + b"\n" + b"1,1,1,1\n" * (TABLE_CELLS // 4 - 2), kind=CSV),
        "CSV, one column of digits": lambda: Case(iris, b"a\n" + b"1\n" * (TABLE_CELLS - 1), (422,), kind=CSV),
        "CSV, texts": lambda: Case(
            iris, names_csv + b"\n" + b"a,a,a,a\n" * (TABLE_CELLS // 4 - 2), (413, 422), kind=CSV),
        "CSV, one cell": lambda: Case(iris, b"a\n" + b"x" * (TABLE_BYTES - 2), (422,), kind=CSV),
        "CSV, too many cells": lambda: Case(iris, b"a\n" + b"1\n" * (TABLE_BYTES // 2 - 1), (413,), kind=CSV),
        "CSV, beyond its limit": lambda: Case(iris, b"a\n" + b"1\n" * 8_000_000, (413,), kind=CSV),
        "Parquet, one number": lambda: Case(
            iris, parquet({name: np.ones(TABLE_CELLS // 4) for name in names}), kind=PARQUET),
        "Parquet, one text of 1.2 MB": lambda: Case(
            iris, dictionary(65536, 1_200_000), (400, 413), kind=PARQUET),
        "Parquet, the same with a false size": lambda: Case(
            iris, lies(dictionary(65536, 1_200_000), 1_200_000), (400, 413), kind=PARQUET),
        "Parquet, 10 million rows": lambda: Case(iris, parquet({"a": np.ones(10**7)}), (413,), kind=PARQUET),
        "Parquet, 20,000 columns": lambda: Case(
            iris, parquet({str(n): [1] for n in range(20_000)}), (413, 422), kind=PARQUET),
        "Picture, 4 million pixels": lambda: Case(digits, pictures(png("LA", side)), path=PREDICT),
        "Picture, 4 million pixels of noise": lambda: Case(digits, pictures(png("L", side, noise=True)), path=PREDICT),
        "Picture, 4 million pixels of 16 bits": lambda: Case(digits, pictures(png("I;16", side)), path=PREDICT),
        "Picture, 4096 x 4096": lambda: Case(digits, pictures(png("LA", 4096)), (422,), path=PREDICT),
        "Pictures, three of 4 million pixels": lambda: Case(digits, pictures(*[png("LA", side)] * 3), path=PREDICT),
        "Pictures, eight of 4096 x 4096": lambda: Case(digits, pictures(*[png("LA", 4096)] * 8), (422,), path=PREDICT),
        "Pictures, a thousand of one pixel": lambda: Case(digits, pictures(*[png("L", 1)] * 1000), path=PREDICT),
        "Pictures, 90,000 of one pixel": lambda: Case(digits, pictures(*[png("L", 1)] * 90_000), (413,), path=PREDICT),
        "Open Inference, JSON": lambda: Case(
            digits, infer_digits % numbers + b",".join([b"1"] * (numbers * 784)) + b"]}]}", (200, 413),
            f"/v2/models/{digits}/infer"),
        "Open Inference, bytes": lambda: infer(digits, "UINT8", rows * 784, [rows, 784], bytes(rows * 784)),
        "Open Inference, two bytes each": lambda: infer(
            digits, "FP16", rows // 2 * 1568, [rows // 2, 784], np.full(rows // 2 * 784, 0.3, "<f2").tobytes()),
        "Open Inference, empty texts": lambda: infer(digits, "BYTES", most - 4096, [most // 4 - 1024], bytes(most - 4096),
                                                     statuses=(413, 422)),
        "Open Inference, a shape of 2^60": lambda: infer(digits, "UINT8", 784, [2**30, 2**30], bytes(784), statuses=(422,)),
        "Open Inference, a size below 0": lambda: infer(digits, "UINT8", 784, [1, 784], bytes(784), -1, (422,)),
        "Open Inference, a size of 2^63": lambda: infer(digits, "UINT8", 784, [1, 784], bytes(784), 2**63, (422,)),
        "Open Inference, a shape of a million": lambda: infer(digits, "UINT8", 784, [2**62] * 700_000, bytes(784),
                                                              statuses=(422,)),
    }  # fmt: skip


HEAD = """| body | bytes | status | MiB above idle | times the body | MiB at most | seconds | slowest `/ping`, ms |
|---|---|---|---|---|---|---|---|
"""


def bound(size: int) -> int:
    """What docs/prediction-api.md says that a body of this size takes at most."""
    return 41 * size + 96 * MIB


@dataclass
class Taken:
    """What a body took."""

    reply: Reply
    seconds: float
    # Bytes above those of the same processes before, at their highest, and the slowest answer to /ping meanwhile.
    peak: int
    ping: float


class Watch:
    """Looks at the memory of a server and all its processes."""

    def __init__(self, live: Live) -> None:
        self.session = live.process.pid
        self.processes = {pid: self.resident(pid) for pid in self.members()}

    def members(self) -> list[int]:
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                with contextlib.suppress(OSError, IndexError):
                    if int((path / "stat").read_text().rpartition(")")[2].split()[3]) == self.session:
                        found.append(int(path.name))
        return found

    @staticmethod
    def resident(pid: int) -> int:
        """The bytes that only this process has, and those it has begun to write to."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        return 0

    def children(self, pid: int) -> list[int]:
        with contextlib.suppress(OSError):
            return [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def above(self) -> int:
        """Bytes above those at the beginning; a new process begins with its parent's, which it does not own."""
        total = 0
        for pid, before in self.processes.items():
            total += max(0, self.resident(pid) - before)
            for child in self.children(pid):
                if child not in self.processes:
                    total += max(0, self.resident(child) - before)
        return total


def take(live: Live, case: Case) -> Taken:
    """Send a body, and look meanwhile."""
    found: list[Reply] = []
    pings: list[float] = []
    data = case.request()
    over = threading.Event()

    def ping() -> None:
        with live.connect() as connection:
            while not over.is_set():
                start = time.perf_counter()
                assert connection.get("/ping").status == 200
                pings.append(time.perf_counter() - start)
                time.sleep(0.005)

    def ask() -> None:
        with live.connect() as connection:
            found.append(connection.ask(data))

    watch = Watch(live)
    pinger = threading.Thread(target=ping)
    asker = threading.Thread(target=ask)
    pinger.start()
    time.sleep(0.05)
    start = time.perf_counter()
    asker.start()
    peak = 0
    while asker.is_alive():
        peak = max(peak, watch.above())
        time.sleep(LOOK)
    seconds = time.perf_counter() - start
    over.set()
    pinger.join()
    return Taken(found[0], seconds, peak, max(pings))


@contextlib.contextmanager
def servers(models: dict[str, Path], logs: Path, **settings: object) -> Iterator[dict[str, Live]]:
    """A server for each model."""
    with contextlib.ExitStack() as stack:
        lives = {name: stack.enter_context(Live(logs / f"{name}.log", model_path=path, name=name, max_body=BODY, **settings))
                 for name, path in models.items()}  # fmt: skip
        for live in lives.values():
            with live.connect() as connection:
                # What is imported at the first table stays.
                for kind, body in ((CSV, b"a\n1\n"), (PARQUET, parquet({"a": [1]}))):
                    connection.ask(request(body, content_type=kind))
        yield lives


def main() -> None:
    """Print the table."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory() as directory, servers(small.make(Path(directory)), Path(directory)) as lives:
        sys.stdout.write(HEAD)
        for name, make in cases().items():
            if wanted not in name:
                continue
            case = make()
            taken = take(lives[case.model], case)
            mark = (
                "" if taken.reply.status in case.statuses else f", expected {case.statuses}: {taken.reply.body[:200]!r}"
            )
            cells = (name, f"{len(case.body):,}", f"{taken.reply.status}{mark}", f"{taken.peak / MIB:.0f}",
                     f"{taken.peak / len(case.body):.1f}", f"{bound(len(case.body)) / MIB:.0f}", f"{taken.seconds:.1f}",
                     f"{taken.ping * 1000:.0f}")  # fmt: skip
            sys.stdout.write(f"| {' | '.join(cells)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
