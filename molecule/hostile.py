"""Hostile requests to a running platform, as data: what is sent, and what the answer must be.

The standard library alone: the file runs inside the instance, or in one of its containers, where it asks what is meant for that place:
python3 hostile.py PLACE FACTS     FACTS is a JSON object with what the requests must know of the instance; prints a list of results
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import select
import socket
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

KIB, MIB = 2**10, 2**20
# What no answer may say.
LEAK = re.compile(rb"Traceback \(most|site-packages|/opt/[a-z]|\[SQL:|psycopg|sqlalche|/var/lib/|root:x:0")
# Another origin than the platform's own, which MLflow names unasked on some pages.
OTHER_ORIGIN = re.compile(rb"(?i)\naccess-control-allow-origin: (?!http://(localhost|127\.0\.0\.1):5000\r)")
JSON, CSV, PARQUET, BINARY = (
    "application/json",
    "text/csv",
    "application/vnd.apache.parquet",
    "application/octet-stream",
)
# A table of 1 KB of zeros, whose one text of 20 KB stands for 65,536 rows; its footer says that the column has one byte.
LIAR = zlib.decompress(
    base64.b64decode(
        "eNoLcAwyFGURPbGDSfQFn48okyiDEAPDkjmMAgp+DAwV/xgZRtEoGkWDHFUxMogyiEqJyumIHgDmZAFRNlE2GTMGIOA1YAGSQEFGRiBBbVViolJAVWHIirg1mEGKwoBqwhhEWSR1TBkk2IqTM1JzE0WBenhUmSQYE1UZfGSAqsQaGjgkZSRl1BhkRHkkTRnYBCSBkqJMIHGxpgYGsS2CapP41ThAJkvqAIspBlGwtQKiHAw2QEUNjzgl2STVGIDKQaaBdACZahxAfQwaCgWJRYWlqSW6yQUFuolFRfnlCmWpRcWZ+XkKRqZ6BnqGkjIgNywG4gBgIQgAsZN2nA=="
    )
)


@dataclass(frozen=True)
class Case:
    """A request: by its parts, or as the bytes that go over the wire with the seconds to wait after each piece."""

    name: str
    # Of PLACES.
    place: str
    answers: tuple[int, ...]
    path: str = "/"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    # The body is the first part, the second one so many times, the third one.
    body: tuple[bytes, bytes, int, bytes] = (b"", b"", 0, b"")
    # Says something about its length that is not so, or nothing.
    length: int | None = -1
    raw: tuple[tuple[bytes, float], ...] = ()
    # So many of them at a time.
    times: int = 1
    seconds: float = 20
    says: str = ""


# Where a request goes: a port on the machine, or a port inside a container.
PLACES = {
    "mlflow": 5000,  # MLflow through the edge
    "models": 8000,  # the models through the edge
    "own": 0,  # a model's own port, of the facts
    "tracking": 5000,  # MLflow's own port, past the edge
    "api": 8080,  # a server of the engine api, past the edge
    "edge": 8404,  # the edge's metrics
    "database": 5432,
}
# Of those on the machine the edge is asked; the others are asked from inside their container.
OUTSIDE = ("mlflow", "models", "own")

API = "/api/2.0/mlflow"
SEARCH, LOG, ARTIFACTS = f"{API}/runs/search", f"{API}/runs/log-batch", "/api/2.0/mlflow-artifacts/artifacts"
DIGITS, IRIS, INFER = "/models/digits/invocations", "/models/iris/invocations", "/models/digits/v2/models/digits/infer"
PREDICT = "/models/digits/predict"
GRAPHQL = (
    'query Q($f: String) { mlflowSearchRuns(input: {experimentIds: ["0"], filter: $f}) { runs { info { runId } } } }'
)
METRIC = {"key": "a", "value": 1, "timestamp": 1, "step": 1}
SEARCH_PAGE = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
H2C = {"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__", "Connection": "Upgrade, HTTP2-Settings"}


def text(value: object) -> tuple[bytes, bytes, int, bytes]:
    """A body of JSON."""
    return json.dumps(value).encode(), b"", 0, b""


def plain(value: bytes) -> tuple[bytes, bytes, int, bytes]:
    """A body of these bytes."""
    return value, b"", 0, b""


def many(head: bytes, item: bytes, size: int, tail: bytes = b"") -> tuple[bytes, bytes, int, bytes]:
    """A body of about so many bytes: the item over and over."""
    return head, item, (size - len(head) - len(tail)) // len(item), tail


def posts(place: str, path: str, answers: tuple[int, ...], bodies: dict[str, object]) -> list[Case]:
    """One case for each body."""
    found = []
    for name, value in bodies.items():
        body = value if isinstance(value, tuple) else plain(value) if isinstance(value, bytes) else text(value)
        found.append(Case(name, place, answers, path, headers={"Content-Type": JSON}, body=body))
    return found


def gets(place: str, answers: tuple[int, ...], paths: list[str]) -> list[Case]:
    """One case for each path."""
    return [Case(f"GET {path[:100]}", place, answers, path, "GET") for path in paths]


def raws(place: str, answers: tuple[int, ...], requests: dict[str, bytes]) -> list[Case]:
    """One case for each piece of text."""
    return [Case(name, place, answers, raw=((data, 0.0),)) for name, data in requests.items()]


def png(width: int, height: int, rows: int) -> str:
    """A picture in base64 that says how large it is, with so many rows of zeros in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)
    pixels = zlib.compress(bytes(rows * (1 + 2 * width)), 9)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(file).decode()


def binary(name: str, size: object, data: bytes, answers: tuple[int, ...], *, head: int | None = None, shape: object = None,
           datatype: str = "FP32") -> Case:  # fmt: skip
    """A tensor behind its JSON, one of whose sizes may lie."""
    tensor = {
        "name": "image",
        "shape": shape or [1, 784],
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
    }
    said = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Content-Type": BINARY, "Inference-Header-Content-Length": str(len(said) if head is None else head)}
    return Case(name, "models", answers, INFER, headers=headers, body=plain(said + data))


def line(path: str, *headers: str, method: str = "GET", version: str = "HTTP/1.1", end: str = "\r\n") -> bytes:
    """A request's head by hand."""
    return end.join([f"{method} {path} {version}", *headers, "", ""]).encode("latin-1")


HOST, CLOSE, SMUGGLED = "Host: localhost", "Connection: close", line("/smuggled", "Host: localhost")
CHUNKED, LENGTH = "Transfer-Encoding: chunked", "Content-Length: 5"


def too_large() -> list[Case]:
    """Bodies beyond what a route takes, said or sent."""
    zeros, kind = many(b"", bytes(64 * KIB), 17 * MIB), {"Content-Type": JSON}
    return [
        Case("950 MB to log-batch, by anybody", "mlflow", (413,), LOG, headers={"Authorization": "Basic eDp5"}, length=996147200),
        Case("20 GiB for an artifact", "mlflow", (413,), f"{ARTIFACTS}/x", "PUT", length=20 * 2**30),
        Case("a length beyond all numbers", "mlflow", (400, 413), LOG, length=10**30),
        Case("chunks without end", "mlflow", (411,), LOG, body=zeros, length=None),
        Case("300 KB to GraphQL", "mlflow", (413,), "/graphql", body=many(b"", b"x", 300 * KIB)),
        Case("17 MB to a model", "models", (413,), DIGITS, headers=kind, body=zeros),
        Case("17 MB in chunks to a model", "models", (411,), DIGITS, headers=kind, body=zeros, length=None),
        Case("17 MB to a model's own port", "own", (413,), "/invocations", headers=kind, body=zeros),
        Case("17 MB past the edge to MLflow", "tracking", (413,), LOG, body=zeros),
        Case("17 MB in chunks past the edge to MLflow", "tracking", (413,), LOG, body=zeros, length=None),
        Case("300 KB past the edge to GraphQL", "tracking", (413,), "/graphql", body=many(b"", b"x", 300 * KIB)),
        Case("17 MB past the edge to a model", "api", (413,), "/invocations", headers=kind, body=zeros),
        Case("17 MB in chunks past the edge to a model", "api", (413,), "/invocations", headers=kind, body=zeros, length=None),
    ]  # fmt: skip


def compressed() -> list[Case]:
    """Bodies that grow."""
    bomb = gzip.compress(bytes(20 * MIB), 1)
    traces, kind = "/v1/traces", {"Content-Type": "application/x-protobuf", "X-Mlflow-Experiment-Id": "0"}
    return [
        Case("20 MB of zeros as gzip", "mlflow", (413,), traces, headers=kind | {"Content-Encoding": "gzip"}, body=plain(bomb)),
        Case("the same twice packed", "mlflow", (413,), traces, headers=kind | {"Content-Encoding": "gzip, gzip"}, body=plain(gzip.compress(bomb))),
        Case("a hundred gzip members", "mlflow", (400, 413), traces, headers=kind | {"Content-Encoding": "gzip"}, body=plain(gzip.compress(b"") * 100)),
        Case("the bomb as deflate", "mlflow", (413,), traces, headers=kind | {"Content-Encoding": "deflate"}, body=plain(zlib.compress(bytes(20 * MIB), 1))),
        Case("gzip that is none", "mlflow", (400,), traces, headers=kind | {"Content-Encoding": "gzip"}, body=plain(b"\x1f\x8bnot")),
        Case("brotli", "mlflow", (415,), traces, headers=kind | {"Content-Encoding": "br"}, body=plain(b"x")),
        Case("no trace at all", "mlflow", (400,), traces, headers=kind, body=plain(b"\xff" * 1000)),
        Case("gzip where none is taken", "mlflow", (415,), LOG, headers={"Content-Encoding": "gzip"}, body=plain(bomb)),
        Case("gzip to the engine api", "models", (415,), DIGITS, headers={"Content-Type": JSON, "Content-Encoding": "gzip"}, body=plain(bomb)),
        Case("gzip to the engine mlflow", "models", (400, 415), IRIS, headers={"Content-Type": JSON, "Content-Encoding": "gzip"}, body=plain(bomb)),
        Case("the bomb past the edge", "tracking", (413,), traces, headers=kind | {"Content-Encoding": "gzip"}, body=plain(bomb)),
    ]  # fmt: skip


def searches() -> list[Case]:
    """Searches that would cost the database its memory, and words that are no search."""
    clauses = " and ".join(f"metrics.m{n} > 1" for n in range(21))
    return [
        *posts("mlflow", SEARCH, (400,), {
            "21 clauses": {"experiment_ids": ["0"], "filter": clauses},
            "a thousand clauses": {"experiment_ids": ["0"], "filter": " and ".join(["metrics.a > 1"] * 1000)},
            "a filter of 9 KB": {"experiment_ids": ["0"], "filter": "tags.a = '" + "x" * 9000 + "'"},
            "eleven keys of an order": {"experiment_ids": ["0"], "order_by": [f"params.p{n}" for n in range(11)]},
            "a key of an order of 1 KB": {"experiment_ids": ["0"], "order_by": ["params." + "x" * 1000]},
            "a statement in a filter": {"experiment_ids": ["0"], "filter": "metrics.a > 1; DROP TABLE runs"},
            "a statement in an order": {"experiment_ids": ["0"], "order_by": ["metrics.a; DROP TABLE runs"]},
            "a page token that is none": {"experiment_ids": ["0"], "page_token": "../../etc/passwd"},
            "a billion results": {"experiment_ids": ["0"], "max_results": 10**9},
            "results below nothing": {"experiment_ids": ["0"], "max_results": -1},
            "results beyond all numbers": b'{"experiment_ids": ["0"], "max_results": 1e999}',
        }),
        Case("eleven keys in an address", "mlflow", (400,), f"{API}/experiments/search?max_results=1" + "&order_by=name" * 11, "GET"),
        Case("21 clauses in an address", "mlflow", (400,),
             f"{API}/registered-models/search?filter=" + "%20and%20".join(["name%20like%20%27a%27"] * 21), "GET"),
        *posts("mlflow", "/graphql", (400,), {
            "21 clauses in GraphQL": {"query": GRAPHQL, "variables": {"f": clauses}},
            "200 levels of GraphQL": {"query": "{" + "a{" * 200 + "b" + "}" * 201},
            "GraphQL as a list of a thousand": [{"query": "{__typename}"}] * 1000,
        }),
        *posts("mlflow", LOG, (400,), {"10,000 metrics at once": {"run_id": "0" * 32, "metrics": [METRIC] * 10_000}}),
    ]  # fmt: skip


def json_that_is_none() -> list[Case]:
    """Documents that parsers fall over."""
    deep = b"[" * 100_000 + b"]" * 100_000
    named = {"name": "hostile"}
    record = {"inputs": [[0.0] * 784]}
    return [
        *posts("mlflow", f"{API}/experiments/create", (400,), {
            "100,000 brackets": deep,
            "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            "half a document": b'{"name": "hostile',
            "a list for an object": [named],
            "a name with a zero byte": {"name": "hostile\0"},
            "a name of half a surrogate pair": b'{"name": "hostile\\ud800"}',
            "a name of 100 KB": {"name": "x" * 100_000},
            "a number for a name": {"name": 5},
        }),
        # MLflow reads it; the bounds hold for it too.
        *posts("mlflow", f"{API}/experiments/search", (200,), {"UTF-16": json.dumps({"max_results": 1}).encode("utf-16")}),
        *posts("mlflow", SEARCH, (400,), {"21 clauses in UTF-16": json.dumps({"filter": " and ".join(["a = 1"] * 21)}).encode("utf-16")}),
        *posts("models", DIGITS, (400, 413, 415, 422), {
            "100,000 brackets to a model": deep,
            "nothing": b"",
            "UTF-16 to a model": json.dumps(record).encode("utf-16"),
            "a byte order mark": b"\xef\xbb\xbf" + json.dumps(record).encode(),
            "NaN": b'{"inputs": [[NaN]]}',
            "1e999": json.dumps(record).replace("0.0", "1e999", 1).encode(),
            "a number of 5,000 digits": b'{"inputs": [[' + b"9" * 5000 + b"]]}",
            "text for numbers": {"inputs": [["a"] * 784]},
            "a pixel too few": {"inputs": [[0.0] * 783]},
            "no rows": {"inputs": []},
            "two forms at once": record | {"instances": [[0.0] * 784]},
            "a million names": (b'{"dataframe_records": [{', b'"a":1,', 1_000_000, b'"b":1}]}'),
            "a million columns": (b'{"dataframe_split": {"data": [], "columns": [', b'"a",', 1_000_000, b'"b"]}}'),
        }),
        # MLflow's own server fails at it, and goes on.
        *posts("models", IRIS, (400, 500), {"100,000 brackets to the engine mlflow": deep}),
        *posts("models", IRIS, (400,), {
            "nothing to the engine mlflow": b"",
            "no table to the engine mlflow": {"dataframe_split": {"columns": ["a"], "data": [[1, 2, 3]]}},
            "text for numbers to the engine mlflow": {"inputs": [["a", "b", "c", "d"]]},
        }),
        Case("100,000 brackets past the edge", "api", (400, 413), "/predict", headers={"Content-Type": JSON}, body=plain(deep)),
        Case("the same key twice", "models", (400, 422), PREDICT, headers={"Content-Type": JSON}, body=plain(b'{"image": [], "image": [1]}')),
    ]  # fmt: skip


def claims() -> list[Case]:
    """Bodies that say something else about their size than they have."""
    row = struct.pack("<784f", *[0.0] * 784)
    table = {"Content-Type": PARQUET}
    bad = (400, 413, 422)
    return [
        Case("Parquet that lies about its columns", "models", (400, 413, 415, 422), DIGITS, headers=table, body=plain(LIAR)),
        Case("the same for the engine mlflow", "models", (415,), IRIS, headers=table, body=plain(LIAR)),
        Case("Parquet that is none", "models", (400, 413, 415, 422), DIGITS, headers=table, body=plain(b"PAR1" + b"\xff" * 1000 + b"PAR1")),
        Case("CSV of 8 million lines", "models", bad, DIGITS, headers={"Content-Type": CSV}, body=many(b"a\n", b"1\n" * 1000, 15 * MIB)),
        Case("CSV of one line", "models", bad, DIGITS, headers={"Content-Type": CSV}, body=many(b"a\n", b"1," * 1000, 15 * MIB)),
        Case("CSV of a quote without end", "models", bad, DIGITS, headers={"Content-Type": CSV}, body=many(b'a\n"', b"x" * 1000, MIB)),
        *posts("models", PREDICT, bad, {
            "a picture of 4096 x 4096": {"image": png(4096, 4096, 64)},
            "a picture that says 65,535 x 65,535": {"image": png(65535, 65535, 1)},
            "a picture of no rows": {"image": png(28, 28, 0)},
            "base64 that is none": {"image": "!" * 1000},
        }),
        binary("binary data shorter than it says", 4 * len(row), row, bad),
        binary("binary data longer than it says", 4, row, bad),
        binary("binary data of a negative size", -1, row, bad),
        binary("binary data of 2^63 bytes", 2**63, row, bad),
        binary("binary data of a size that is text", "many", row, bad),
        binary("a shape beyond all memory", len(row), row, bad, shape=[2**31, 2**31]),
        binary("a negative shape", len(row), row, bad, shape=[-1, 784]),
        binary("a datatype that is none", len(row), row, bad, datatype="FP4096"),
        binary("JSON longer than the body", len(row), row, bad, head=10**9),
        binary("JSON of a negative length", len(row), row, bad, head=-5),
        Case("an unknown content type", "models", (415,), DIGITS, headers={"Content-Type": "application/x-pickle"}, body=plain(b"\x80\x04.")),
    ]  # fmt: skip


def paths() -> list[Case]:
    """Paths that lead elsewhere, in all spellings, and what is not for clients."""
    out = ["../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f..%2fetc%2fpasswd", "%252e%252e%252fetc%252fpasswd", "..%5c..%5cetc", "....//etc/passwd",
           "%00", "%2Fetc%2Fpasswd", "..;/..;/etc/passwd", "%c0%ae%c0%ae/etc/passwd"]  # fmt: skip
    closed = ["/metrics", "/docs", "/openapi.json", "/ready", "/ajax-api/3.0/jobs", "/ajax-api/3.0/mlflow/assistant/status", "//metrics", "/%6detrics",
              "/METRICS", "/./metrics", "/metrics/", "/metrics;x", "/API/2.0/mlflow/experiments/search"]  # fmt: skip
    refused = (400, 403, 404)
    return [
        *gets("mlflow", refused, [f"{ARTIFACTS}/{path}" for path in out]),
        *gets("mlflow", refused, [f"/get-artifact?run_uuid={'0' * 32}&path={path}" for path in out[:4]]),
        *gets("mlflow", refused, ["/static-files/../../../../etc/passwd", "/static-files/%2e%2e/%2e%2e/etc/passwd"]),
        *gets("mlflow", refused, [f"{ARTIFACTS}?path={path}" for path in ("../../etc", "/etc", "%2e%2e", "file:///etc")]),
        *gets("mlflow", refused, closed),
        *gets("models", refused, ["/models/../models/digits", "/models/%2e%2e/digits", "/models/digits%2f..%2firis/ping", "/models/digits/../iris/ping",
                                  "/models/roses/ping", "/models/DIGITS/ping", "/models/digits/docs/../../../etc/passwd", "/models/digits/static/..%2f..%2fx"]),
        *gets("own", (400, 403, 404), ["/../etc/passwd", "/admin"]),
        *gets("tracking", (400, 403, 404), [f"{ARTIFACTS}/../../etc/passwd", f"{ARTIFACTS}/%2e%2e/%2e%2e/etc/passwd", "/static-files/..%2f..%2fetc%2fpasswd"]),
        *gets("api", (400, 404), ["/../../etc/passwd", "/v2/models/..%2f..", "/docs/../../x"]),
        *gets("edge", (400, 404), ["/", "/admin", "/metrics/../stats", "/;csv"]),
        *[Case(f"PUT {path[:60]}", "mlflow", refused, f"{ARTIFACTS}/{path}", "PUT", body=plain(b"x")) for path in [*out[:4], "%00", "x" * 4000, "."]],
    ]  # fmt: skip


def storage() -> list[Case]:
    """What would have MLflow read or write somewhere else."""
    places = ["file:///etc/passwd", "/etc/passwd", "s3://other/x", "http://169.254.169.254/latest", "dbfs:/x", "mlflow-artifacts:/../x",
              "mlflow-artifacts://evil/x", "mlflow-artifacts:/%2e%2e/x", "runs:/../x", "sqlite:///x"]  # fmt: skip
    trace = f"{API}/traces/tr-1/tags"
    own = {"key": "mlflow.artifactLocation", "value": "mlflow-artifacts:/0/x"}
    hook = {"name": "x", "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]}
    return [
        *posts("mlflow", f"{API}/model-versions/create", (400,), {f"a version from {place}": {"name": "hostile", "source": place} for place in places}),
        *posts("mlflow", f"{API}/experiments/create", (400,),
               {f"an experiment in {place}": {"name": "hostile", "artifact_location": place} for place in [*places, "mlflow-artifacts:/0"]}),
        Case("a trace that moves its files", "mlflow", (400,), trace, "PATCH", headers={"Content-Type": JSON}, body=text(own)),
        Case("a trace made with such a tag", "mlflow", (400,), f"{API}/traces", headers={"Content-Type": JSON},
             body=text({"experiment_id": "0", "timestamp_ms": 1, "tags": [own]})),
        *posts("mlflow", f"{API}/webhooks", (400,), {f"a webhook to {url}": hook | {"url": url} for url in (
            "http://169.254.169.254/", "https://127.0.0.1:5000/", "https://[::ffff:127.0.0.1]/", "https://2130706433/", "file:///etc/passwd")}),
        Case("other bytes for a registered version", "mlflow", (409,), f"{ARTIFACTS}/@@FILE@@", "PUT", body=plain(b"x")),
        Case("a registered version's file removed", "mlflow", (409,), f"{ARTIFACTS}/@@FILE@@", "DELETE"),
        Case("the folder of a registered version removed", "mlflow", (409,), f"{ARTIFACTS}/@@DIRECTORY@@", "DELETE"),
        Case("a registered version in parts", "mlflow", (409, 501), "/api/2.0/mlflow-artifacts/mpu/create/@@DIRECTORY@@", headers={"Content-Type": JSON},
             body=text({"path": "MLmodel", "num_parts": 1})),
        Case("past the edge: other bytes for a registered version", "tracking", (409,), f"{ARTIFACTS}/@@FILE@@", "PUT", body=plain(b"x")),
    ]  # fmt: skip


def origins() -> list[Case]:
    """Pages of others, names of others, and who says to be somebody else."""
    search = f"{API}/experiments/search"
    body, kind = text({"max_results": 1}), {"Content-Type": JSON}
    pages = [
        "http://evil.example",
        "http://localhost:3000",
        "https://localhost:5000",
        "null",
        "http://localhost:5000.evil.example",
        "file://",
    ]
    hosts = [
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "169.254.169.254",
        "",
        "localhost evil.example",
    ]
    return [
        *[Case(f"a page of {page}", "mlflow", (403,), search, headers=kind | {"Origin": page}, body=body) for page in pages],
        Case("a page asks whether it may", "mlflow", (403,), search, "OPTIONS", headers=SEARCH_PAGE),
        Case("a page of another site, by the browser's word", "mlflow", (403,), search, headers=kind | {"Sec-Fetch-Site": "cross-site"}, body=body),
        Case("past the edge: a page of another port", "tracking", (403,), search, headers=kind | {"Origin": "http://localhost:3000"}, body=body),
        *[Case(f"the host {host or 'of no name'}", "mlflow", (400, 421), raw=((line("/health", f"Host: {host}", CLOSE), 0.0),)) for host in hosts],
        *[Case(f"models of the host {host}", "models", (421,), raw=((line("/models", f"Host: {host}", CLOSE), 0.0),)) for host in hosts[:2]],
        Case("another host past the edge", "tracking", (403,), search, headers=kind | {"Host": "evil.example"}, body=body),
        *raws("mlflow", (400, 421), {
            "two hosts": line("/health", HOST, "Host: evil.example", CLOSE),
            "no host": line("/health", CLOSE),
            "no host in HTTP/1.0": line("/health", version="HTTP/1.0"),
            "an address with another host": line("http://evil.example/health", HOST, CLOSE),
            "an address of another service": line("http://169.254.169.254/latest/", HOST, CLOSE),
        }),
        Case("forwarded by somebody", "mlflow", (200,), search, headers=kind | {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "evil.example",
             "Forwarded": "for=evil", "X-Forwarded-Prefix": "/evil", "X-Real-IP": "::1"}, body=body),
        Case("a request id that is code", "mlflow", (200,), search, headers=kind | {"X-Request-Id": "<script>${jndi:x}"}, body=body),
    ]  # fmt: skip


def malformed() -> list[Case]:
    """What is no HTTP, or two requests in one."""
    smuggling = {
        "a length and chunks": line("/health", HOST, LENGTH, CHUNKED, method="POST") + b"0\r\n\r\n" + SMUGGLED,
        "two lengths": line("/health", HOST, LENGTH, "Content-Length: 6", method="POST") + b"12345" + SMUGGLED,
        "a length with a sign": line("/health", HOST, "Content-Length: +5", method="POST") + b"12345" + SMUGGLED,
        "chunks by another name": line("/health", HOST, "Transfer-Encoding: xchunked", method="POST")
        + b"0\r\n\r\n"
        + SMUGGLED,
        "chunks with a tab": line("/health", HOST, "Transfer-Encoding:\x0bchunked", method="POST")
        + b"0\r\n\r\n"
        + SMUGGLED,
        "chunks and no chunks": line("/health", HOST, CHUNKED, "Transfer-Encoding: identity", method="POST")
        + b"0\r\n\r\n"
        + SMUGGLED,
        "a chunk that says too much": line("/health", HOST, CHUNKED, method="POST")
        + b"fffffffffffffffff\r\nx\r\n0\r\n\r\n"
        + SMUGGLED,
        "a chunk that is no number": line("/health", HOST, CHUNKED, method="POST") + b"zz\r\nx\r\n0\r\n\r\n" + SMUGGLED,
        "a blank before the colon": line("/health", HOST, "Content-Length : 5", method="POST") + b"12345" + SMUGGLED,
        "a header without a colon": line("/health", HOST, "nonsense"),
        "a zero byte in a header": line("/health", HOST, "X-A: b\0c"),
        "a line within a header": line("/health", HOST, "X-A: b\rX-B: c"),
        "carriage returns alone": b"GET /health HTTP/1.1\rHost: localhost\r\r",
        "a method of control characters": b"G\x01T /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a blank in the path": line("/hea lth", HOST),
        "a hello of TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
        "noise": bytes(range(256)) * 20,
    }
    methods = [Case(f"{method} to {place}", place, (400, 405), raw=((line("/health", HOST, CLOSE, method=method), 0.0),))
               for method in ("TRACE", "CONNECT") for place in ("mlflow", "models")]  # fmt: skip
    refused = (400, 403, 404, 405, 411, 413, 422, 501, 505, 0)
    return [
        *raws("mlflow", refused, smuggling),
        *raws("models", refused, dict(list(smuggling.items())[:4])),
        *raws("api", refused, dict(list(smuggling.items())[1:9])),
        *methods,
        # Read as HTTP/1.1, and as one line.
        *raws("mlflow", (200, 400, 505), {
            "a version of the future": line("/health", HOST, CLOSE, version="HTTP/9.9"),
            "a header that goes on": b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-A: b\r\n c: d\r\n\r\n",
        }),
        Case("headers of 20 KB", "mlflow", (400, 431), "/health", "GET", headers={"X-A": "x" * 20_000}),
        Case("a thousand headers", "mlflow", (400, 431), "/health", "GET", headers={f"X-{n}": "x" for n in range(1000)}),
        Case("a path of 100 KB", "mlflow", (400, 414, 431), "/" + "x" * 100_000, "GET"),
        Case("an upgrade to HTTP/2", "mlflow", (200,), "/health", "GET", headers=H2C),
        Case("an upgrade to a web socket", "mlflow", (200, 400, 403, 404), "/health", "GET",
             headers={"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 24}),
    ]  # fmt: skip


def slow() -> list[Case]:
    """Clients that take their time, and those that leave."""
    drops = tuple((b"x", 0.5) for _ in range(40))
    head = line(DIGITS, HOST, f"Content-Type: {JSON}", "Content-Length: 1000000", method="POST")
    large = line(DIGITS, HOST, f"Content-Type: {JSON}", "Content-Length: 16000000", method="POST")
    login = struct.pack(">II", 8, 80877103)
    return [
        Case("slow headers", "mlflow", (408, 0), raw=((b"GET /health HTTP/1.1\r\n", 0.5), *drops), times=10, seconds=25),
        Case("slow headers to the models", "models", (408, 0), raw=((b"GET /models HTTP/1.1\r\n", 0.5), *drops), times=10, seconds=25),
        Case("a slow small body", "models", (408, 0), raw=((line(DIGITS, HOST, "Content-Length: 1000", method="POST"), 0.5), *drops), times=10, seconds=25),
        Case("a slow large body", "models", (408, 0), raw=((large + b"[" * 90_000, 0.5), *drops), times=20, seconds=40),
        Case("a slow body past the edge", "api", (408, 0), raw=((large.replace(b"/models/digits", b""), 0.5), *drops), times=5, seconds=40),
        Case("half a body, then nobody", "models", (0,), raw=((head + b"{", 0.0),), times=30, seconds=0),
        Case("half a request, then nobody", "mlflow", (0,), raw=((b"POST /api/2.0/mlflow/runs/se", 0.0),), times=30, seconds=0),
        Case("a whole request, then nobody", "models", (0,), raw=((line(DIGITS, HOST, "Content-Length: 2", method="POST") + b"{}", 0.0),), times=30, seconds=0),
        Case("connections that say nothing", "mlflow", (408, 0), raw=((b"", 12.0),), times=50, seconds=25),
        Case("half a sign-in to the database", "database", (0,), raw=((login, 3.0),), times=20, seconds=1),
        Case("noise to the database", "database", (0,), raw=((bytes(range(256)) * 8, 0.0),), times=10, seconds=5),
    ]  # fmt: skip


def cases() -> list[Case]:
    """All of them."""
    found = [
        *too_large(),
        *compressed(),
        *searches(),
        *json_that_is_none(),
        *claims(),
        *paths(),
        *storage(),
        *origins(),
        *malformed(),
        *slow(),
    ]
    assert len({(case.place, case.name) for case in found}) == len(found)
    return found


def pieces(case: Case) -> Iterator[bytes]:
    """The body in pieces of some size."""
    head, item, count, tail = case.body
    yield head
    step = max(1, 64 * KIB // max(1, len(item)))
    for begin in range(0, count, step):
        yield item * min(step, count - begin)
    yield tail


def head_of(case: Case, facts: dict[str, str]) -> bytes:
    """The head of a request that is described by its parts."""
    path = case.path
    for name, value in facts.items():
        path = path.replace(f"@@{name.upper()}@@", value)
    default = (
        "tracking:5000" if case.place == "tracking" else "localhost:5000" if case.place == "mlflow" else "localhost"
    )
    headers = {"Host": default, "Connection": "close"} | case.headers
    if case.length is None:
        headers["Transfer-Encoding"] = "chunked"
    elif case.length >= 0 or case.method not in ("GET", "OPTIONS", "DELETE"):
        head, item, count, tail = case.body
        headers["Content-Length"] = str(case.length if case.length >= 0 else len(head) + len(item) * count + len(tail))
    return line(path, *(f"{name}: {value}" for name, value in headers.items()), method=case.method)


def exchange(case: Case, port: int, facts: dict[str, str]) -> tuple[int, bytes]:
    """Send the request and return its status and all that came back; 0 where nothing did."""
    data = case.raw or tuple(
        (piece, 0.0) for piece in [head_of(case, facts), *(pieces(case) if case.length in (-1, None) else ())]
    )
    if case.length is None:
        data = (
            data[0],
            *((b"%x\r\n%b\r\n" % (len(piece), piece), 0.0) for piece, _ in data[1:] if piece),
            (b"0\r\n\r\n", 0.0),
        )
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            for piece, pause in data:
                # Who answers early wants no more.
                if select.select([connection], [], [], pause)[0] and (
                    not case.raw or connection.recv(1, socket.MSG_PEEK) == b""
                ):
                    break
                connection.sendall(piece)
                time.sleep(pause if case.raw else 0)
            if case.raw and case.raw[-1][1]:
                time.sleep(case.raw[-1][1])
        except OSError:
            pass
        deadline = time.monotonic() + case.seconds
        try:
            while (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                part = connection.recv(65536)
                if not part:
                    break
                received += part
                if len(received) > MIB or complete(received):
                    break
        except OSError:
            pass
    first = received.split(b"\r\n", 1)[0].split()
    return (int(first[1]) if len(first) > 1 and first[0].startswith(b"HTTP/") else 0), received


def complete(received: bytes) -> bool:
    """Whether an answer with a length is there as a whole, and nothing after it is waited for."""
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return bool(end) and length is not None and len(body) >= int(length[1]) and b"connection: close" in head.lower()


def problem(case: Case, status: int, received: bytes) -> str:
    """What is wrong with an answer; nothing if it is as it must be."""
    if status not in case.answers:
        return f"answered {status}, not {case.answers}"
    if leak := LEAK.search(received):
        return f"says {leak[0]!r}"
    if OTHER_ORIGIN.search(received) or (b"evil.example" in received and case.place != "mlflow"):
        return "lets another origin in"
    if received.count(b"HTTP/1.1 200") > 1 or b"smuggled" in received:
        return "answered a request within a request"
    return ""


def ask(case: Case, facts: dict[str, str]) -> dict[str, object]:
    """One case; the worst of its answers."""
    port = PLACES[case.place] or int(facts["port"])
    began = time.monotonic()

    def once(_number: int) -> tuple[str, int, bytes]:
        try:
            status, received = exchange(case, port, facts)
        except OSError as error:
            return (f"no connection: {error}", 0, b"")
        return problem(case, status, received), status, received

    with ThreadPoolExecutor(case.times) as pool:
        found = list(pool.map(once, range(case.times)))
    wrong, status, received = max(found, key=lambda one: one[0])
    return {"name": f"{case.place}: {case.name}", "status": status, "wrong": wrong, "seconds": round(time.monotonic() - began, 1),
            "received": received[-300:].decode(errors="replace") if wrong else ""}  # fmt: skip


def main() -> None:
    """Ask what is for this place: what takes its time beside the others, which come three at a time."""
    places, facts = sys.argv[1].split(","), json.loads(sys.argv[2])
    mine = [case for case in cases() if case.place in places]
    waiting = [case for case in mine if case.times > 1]
    with ThreadPoolExecutor(len(waiting) or 1) as slow_ones, ThreadPoolExecutor(3) as others:
        begun = slow_ones.map(lambda case: ask(case, facts), waiting)
        found = list(others.map(lambda case: ask(case, facts), (case for case in mine if case.times == 1)))
        print(json.dumps(found + list(begun)))  # noqa: T201


if __name__ == "__main__":
    main()
