"""python -m bench fuzz: what anybody may send to the prediction API, by the ten thousand, to one server for each kind of signature.

Most bodies fit the model and were then broken in one to three places, as a document or as bytes; others are anything at all. A smaller part is
made by schemathesis from the server's own description. Whatever comes, the server must not answer 500 or above, hang up, tell what is inside of
it, take long, grow, or forget how to answer the good requests in between.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import re
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from bench import small
from bench.figures import Figure, at_most
from bench.live import CSV, JSON, PARQUET, Connection, Live, Reply, request

OCTETS = "application/octet-stream"
# One case in so many is made by schemathesis, which takes many times as long for it.
SCHEMATHESIS_SHARE = 20
# Requests that are on their way together, each on a connection of its own, so that good and bad ones meet in one call of the model.
WIDTH = 4
WITNESS_EVERY = 50
WARM = 500
SLOWEST = 5.0
MEGABYTE = 1 << 20
GROWTH = 100 * MEGABYTE
BAD = 500
TOLD = 20
# Stands as a value in the bodies, never whole as a name: no error may repeat it.
CANARY = "c4n4ry"
LEAKS = re.compile(
    rb'Traceback|File "|site-packages|\.py\b|/(?:usr|home|root|opt|work|tmp|var|proc)/|' + CANARY.encode()
)


@dataclass(frozen=True)
class Case:
    """A request as it goes over the wire."""

    data: bytes
    head: bool = False


@dataclass
class Findings:
    """What came of the cases."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    seconds: float = 0.0
    before: int = 0
    after: int = 0

    def fail(self, why: str, data: bytes = b"") -> None:
        """Keep a failure; the first ones are enough."""
        if len(self.failures) < TOLD:
            self.failures.append(f"{why}: {data[:400]!r}" if data else why)


# What is sent.

NUMBERS = [0, -1, 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 5e-324, 3.5e38, 1e308, -1e308,
           float("nan"), float("inf"), float("-inf")]  # fmt: skip
TEXTS = ["", CANARY, "1", "true", "NaN", "\u00e4\U0001f33c", "\ud800", "\x00", "a" * 300, "2024-01-02", "24:00", "9999-12-31T23:59:60+99:99", "now",
         "YWJj", "%%%", "__class__", "{}"]  # fmt: skip
SCALARS = st.sampled_from([None, True, False, *NUMBERS, *TEXTS]) | st.integers() | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from(["inputs", "instances", "dataframe_split", "dataframe_records", "columns", "data", "index", "params", "records", "id", "name",
                         "shape", "datatype", "outputs", "parameters", "binary_data_size", *small.RECORD, *small.FLOWER])  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TOKENS = [b"NaN", b"-Infinity", b"1e999", b"9" * 400, b'"', b"\\", b"\\ud800", b"\xff", b"\x00", b"\xef\xbb\xbf", b"[" * 2000, b'{"a":' * 2000, b"}",
          b"]", b",", b"", b" ", b"\r\n", b"-", b"1.5", b"null", b"{}"]  # fmt: skip
WAYS = ("replace", "delete", "add", "double", "wrap", "rename", "empty")
OTHER_TYPES = [
    CSV,
    PARQUET,
    OCTETS,
    "",
    "text/plain",
    f"{JSON}; charset=utf-8",
    f"{JSON};charset=latin-1",
    "multipart/form-data; boundary=x",
]
TYPES = st.integers(0, 15).flatmap(lambda way: st.just(JSON) if way else st.sampled_from(OTHER_TYPES))


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document that can be changed: what holds it, and the key or index."""
    keys: Any = (
        list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    )
    for key in keys:
        yield document, key
        yield from places(document[key])


def change(document: Any, way: str, place: int, value: Any) -> Any:
    """A document that differs in one place."""
    found = [document]
    every = [(found, 0), *places(document)]
    holder, key = every[place % len(every)]
    here = holder[key]
    if way == "delete" and len(every) > 1:
        del holder[key]
    elif way == "add" and isinstance(here, dict):
        here[str(value)[:5]] = value
    elif way == "add" and isinstance(here, list):
        here.append(value)
    elif way == "double" and isinstance(here, list):
        here += here[:100]
    elif way == "wrap":
        holder[key] = [here]
    elif way == "rename" and isinstance(holder, dict):
        holder[str(value)[:5]] = holder.pop(key)
    elif way == "empty":
        holder[key] = type(here)() if here is not None else []
    else:
        holder[key] = value
    return found[0] if found else value


@st.composite
def documents(draw: st.DrawFn, good: Sequence[Any]) -> Any:
    """A good document, whole or changed, or any other."""
    if not draw(st.integers(0, 9)):
        return draw(VALUES)
    document = copy.deepcopy(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 3))):
        document = change(document, draw(st.sampled_from(WAYS)), draw(st.integers(0, 5000)), draw(VALUES))
    return document


@st.composite
def broken(draw: st.DrawFn, body: bytes) -> bytes:
    """Bytes with something put in, left out, or in other letters."""
    way = draw(st.integers(0, 19))
    at = draw(st.integers(0, max(len(body), 1)))
    if way == 0:
        return body[:at]
    if way == 1:
        return body.decode("latin-1").encode("utf-16")
    if way <= 4:  # noqa: PLR2004 - in three of twenty
        return body[:at] + draw(st.sampled_from(TOKENS) | st.binary(max_size=4)) + body[at + draw(st.integers(0, 3)) :]
    return body


@st.composite
def tables(draw: st.DrawFn, names: Sequence[str], row: Sequence[Any]) -> bytes:
    """A CSV."""
    header = draw(st.permutations(names)) if draw(st.booleans()) else list(names)
    columns = header + draw(st.lists(NAMES | st.text(max_size=3), max_size=2))
    cell = st.sampled_from(
        [*map(str, row), "", "nan", "NA", '"', '"a,b"', "1e999", "-1", "true", CANARY, "9" * 30]
    ) | st.text(max_size=4)
    rows = draw(st.lists(st.lists(cell, min_size=len(names), max_size=len(columns)), max_size=3))
    good = [str(value) for value in row]
    return "\n".join([",".join(columns), ",".join(good), *(",".join(cells) for cells in rows)]).encode(
        "utf-8", "surrogatepass"
    )


@dataclass(frozen=True)
class Target:
    """A model that is asked: bodies that fit, by path, and a question whose answer is known."""

    name: str
    bodies: dict[str, list[Any]]
    names: list[str]
    row: list[Any]

    @property
    def infer(self) -> str:
        """The path of the Open Inference Protocol."""
        return f"/v2/models/{self.name}/infer"


def target(name: str) -> Target:
    """A model's own bodies."""
    if name == small.DIGITS:
        picture = [float(place % 256) for place in range(small.SIDE**2)]
        nested = [picture[row * small.SIDE : (row + 1) * small.SIDE] for row in range(small.SIDE)]
        tensor = {"name": "image", "shape": [1, small.SIDE**2], "datatype": "FP32", "data": picture}
        return Target(
            name,
            {
                "/predict": [{"image": picture}, {"image": nested}, [{"image": picture}] * 2, {"image": png()}],
                "/invocations": [
                    {"inputs": [picture]},
                    {"instances": [picture] * 2},
                    {"dataframe_split": {"data": [picture]}},
                ],
                f"/v2/models/{name}/infer": [
                    {"inputs": [tensor], "id": "1"},
                    {"inputs": [{**tensor, "shape": [1, small.SIDE, small.SIDE]}]},
                ],
            },
            [f"p{place}" for place in range(3)],
            [1.0, 2.0, 3.0],
        )
    record: dict[str, Any] = dict(small.FLOWER if name == small.IRIS else small.RECORD)
    names, row = list(record), list(record.values())
    params = {"params": small.PARAMS} if name == small.MIXED else {}
    kinds = dict.fromkeys(small.FLOWER, "FP64") if name == small.IRIS else dict(zip(names, V2, strict=True))
    inputs = [{"name": key, "shape": [1], "datatype": kinds[key], "data": [value]} for key, value in record.items()]
    return Target(
        name,
        {
            "/predict": [record, [record, record], {"records": [record], **params} if params else record],
            "/invocations": [
                {"dataframe_records": [record, record], **params},
                {"dataframe_split": {"columns": names, "data": [row]}},
                {"inputs": [record], **params},
                {"instances": {key: [value] for key, value in record.items()}},
            ],
            f"/v2/models/{name}/infer": [
                {"inputs": inputs, "parameters": small.PARAMS, "outputs": [{"name": "predict"}]},
                {"inputs": [{"name": "table", "shape": [1, len(names)], "datatype": "FP64", "data": row}]},
            ],
        },
        names,
        row,
    )


V2 = ("BYTES", "BYTES", "BOOL", "INT32", "INT64", "FP32", "FP64", "BYTES", "BYTES")


def png() -> str:
    """A small picture."""
    from PIL import Image  # noqa: PLC0415 - as scikit-learn in the models: needed by few

    file = io.BytesIO()
    Image.linear_gradient("L").resize((small.SIDE, small.SIDE)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def parquet(to: Target) -> bytes:
    """A table as Parquet."""
    import pandas as pd  # noqa: PLC0415

    file = io.BytesIO()
    pd.DataFrame([dict(zip(to.names, to.row, strict=True))]).to_parquet(file)
    return file.getvalue()


def cases(to: Target) -> st.SearchStrategy[Case]:
    """Requests to one model."""
    table = parquet(to)

    @st.composite
    def posted(draw: st.DrawFn) -> Case:
        path = draw(st.sampled_from(list(to.bodies)))
        document = draw(documents(to.bodies[path]))
        body = draw(broken(json.dumps(document).encode()))
        return packed(draw, path, body, {"content_type": draw(TYPES)})

    @st.composite
    def tabled(draw: st.DrawFn) -> Case:
        return packed(draw, "/invocations", draw(broken(draw(tables(to.names, to.row)))), {"content_type": CSV})

    @st.composite
    def column_wise(draw: st.DrawFn) -> Case:
        return packed(draw, "/invocations", draw(broken(table)), {"content_type": PARQUET})

    @st.composite
    def binary(draw: st.DrawFn) -> Case:
        datatype = draw(st.sampled_from(["FP32", "FP64", "FP16", "INT64", "UINT8", "BOOL", "BYTES", "nothing"]))
        data = draw(st.binary(max_size=64) | st.just(bytes(4 * small.SIDE**2)))
        shape = draw(st.sampled_from([[1, small.SIDE**2], [1, 4], [1], [2, 4], [-1], []]))
        tensor = {
            "name": draw(NAMES),
            "shape": shape,
            "datatype": datatype,
            "parameters": {"binary_data_size": draw(st.just(len(data)) | SCALARS)},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        size = draw(st.just(str(len(head))) | st.sampled_from(["0", "-1", "x", "9" * 30, str(len(head) + 5)]))
        return packed(draw, to.infer, head + data, {"content_type": OCTETS, "inference_header_content_length": size})

    @st.composite
    def asked(draw: st.DrawFn) -> Case:
        method = draw(st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "POST"]))
        paths = ["/", "/ping", "/health", "/version", "/metadata", "/metrics", "/docs", "/openapi.json", "/v2", f"/v2/models/{to.name}", "/nothing",
                 "/v2/models/%00/infer", "/../etc/passwd", *to.bodies]  # fmt: skip
        path = draw(st.sampled_from(paths)) + draw(st.sampled_from(["", "?a=b", "/", "%2e", "?" + "x" * 300]))
        return Case(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), head=method == "HEAD")

    return st.one_of([posted()] * 12 + [tabled(), column_wise(), binary(), asked()])


def packed(draw: st.DrawFn, path: str, body: bytes, headers: dict[str, str]) -> Case:
    """A body with its head; seldom packed, in chunks, or with a request id that is none."""
    way = draw(st.sampled_from(["packed", "chunks", "named", *[""] * 40]))
    if way == "packed":
        return Case(request(zlib.compress(body), path, content_encoding="deflate", **headers))
    if way == "chunks":
        pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        head = request(b"", path, **headers | {"content_length": "", "transfer_encoding": "chunked"})
        return Case(head + chunks)
    if way == "named":
        headers = headers | {"x_request_id": draw(st.sampled_from([CANARY + " ", "a" * 200, "<script>", "ok-1"]))}
    return Case(request(body, path, **headers))


# Sending, and looking at what comes back.


class Attack:
    """Sends cases to one server and keeps what came of them."""

    def __init__(self, live: Live, to: Target, connections: Sequence[Connection]) -> None:
        self.live = live
        self.findings = Findings()
        self.connections = connections
        self.good = request(json.dumps(to.bodies["/predict"][0]).encode(), "/predict")
        self.expected = self.connections[0].ask(self.good).body

    def send(self, group: Sequence[Case]) -> None:
        """Send some cases at once and look at each answer."""
        began = time.monotonic()
        pairs = list(zip(self.connections, group, strict=False))
        for connection, case in pairs:
            connection.send(case.data)
        for connection, case in pairs:
            try:
                self.look(case.data, connection.receive(head=case.head), time.monotonic() - began)
            except OSError as error:
                self.findings.fail(f"no answer: {error}", case.data)
                connection.reopen()
        if self.findings.cases % WITNESS_EVERY < len(group):
            self.witness()
        if not self.findings.before and self.findings.cases >= WARM:
            self.findings.before = self.live.memory()

    def look(self, data: bytes, reply: Reply, seconds: float) -> None:
        """Count an answer, and keep what is wrong with it."""
        found = self.findings
        found.cases += 1
        found.statuses[reply.status] += 1
        found.slowest = max(found.slowest, seconds)
        if not reply.status:
            found.fail("hung up", data)
        elif reply.status >= BAD:
            found.fail(f"{reply.status} {reply.body[:200]!r}", data)
        elif reply.status >= 400 and LEAKS.search(reply.body):  # noqa: PLR2004 - what is an error
            found.fail(f"tells too much: {reply.body[:200]!r}", data)
        if seconds > SLOWEST:
            found.fail(f"took {seconds:.1f} s", data)

    def witness(self) -> None:
        """Ask the good question."""
        reply = self.connections[0].ask(self.good)
        if reply.body != self.expected:
            self.findings.fail(f"another answer to the good question: {reply.status} {reply.body[:200]!r}")


def attack(live: Live, name: str, count: int, seed: int) -> Findings:
    """Send so many cases to a server of this model."""
    began = time.monotonic()
    to = target(name)
    with live.connections(WIDTH) as connections:
        attacker = Attack(live, to, connections)
        example(st.lists(cases(to), min_size=WIDTH, max_size=WIDTH), attacker.send, -(-count // WIDTH), seed)
    found = attacker.findings
    found.after = live.memory()
    found.before = found.before or found.after
    found.seconds = time.monotonic() - began
    if live.process.poll() is not None:
        found.fail("the server is gone")
    if found.after - found.before > GROWTH:
        found.fail(f"grew from {found.before / MEGABYTE:.0f} to {found.after / MEGABYTE:.0f} MB")
    found.failures += [f"in the log: {event}" for event in live.events() if event["level"] == "error"][:TOLD]
    return found


def example(strategy: st.SearchStrategy[Any], use: Callable[[Any], None], count: int, seed: int) -> None:
    """Make so many examples; what is wrong with one is kept by who uses it, so none is made again or smaller."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def once(made: Any) -> None:
        use(made)

    once()


# By the server's own description.


def described(live: Live, count: int, seed: int) -> Findings:
    """Ask what schemathesis makes of the server's OpenAPI document, bodies that fit it and bodies that do not, and check the answers by it too."""
    import requests  # noqa: PLC0415 - as below
    import schemathesis  # noqa: PLC0415 - seconds, for one part of this program
    from schemathesis.checks import not_a_server_error  # noqa: PLC0415
    from schemathesis.core.result import Ok  # noqa: PLC0415
    from schemathesis.specs.openapi import checks  # noqa: PLC0415

    conform = [not_a_server_error, checks.status_code_conformance, checks.content_type_conformance, checks.response_headers_conformance,
               checks.response_schema_conformance]  # fmt: skip
    found = Findings(before=live.memory())
    began = time.monotonic()
    session = requests.Session()
    session.trust_env = False
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
    posts = [
        result.ok()
        for result in schema.get_all_operations()
        if isinstance(result, Ok) and result.ok().method.upper() == "POST"
    ]

    def ask(case: Any) -> None:
        asked = time.monotonic()
        answer = case.call(session=session)
        seconds = time.monotonic() - asked
        found.cases += 1
        found.statuses[answer.status_code] += 1
        found.slowest = max(found.slowest, seconds)
        try:
            case.validate_response(answer, checks=conform)
        except Exception as error:  # noqa: BLE001 - its failures are a group of exceptions of its own
            found.fail(f"{case.operation.label}: {error}"[:500])
        if answer.status_code >= 400 and LEAKS.search(answer.content):  # noqa: PLR2004 - as above
            found.fail(f"{case.operation.label} tells too much: {answer.content[:200]!r}")

    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    each = -(-count // (len(posts) * len(modes)))
    for operation in posts:
        for mode in modes:
            example(operation.as_strategy(generation_mode=mode), ask, each, seed)
    session.close()
    found.after = live.memory()
    found.seconds = time.monotonic() - began
    return found


# The whole.


def run(cases: int, seed: int, say: Callable[[str], None]) -> list[tuple[str, list[Figure]]]:
    """Send so many cases to one model after the other; the figures."""
    tables: list[tuple[str, list[Figure]]] = []
    each = -(-cases // len(small.ALL))
    schemas = -(-each // SCHEMATHESIS_SHARE)
    with tempfile.TemporaryDirectory() as directory:
        for name, path in small.make(Path(directory)).items():
            with Live(Path(directory) / f"{name}.log", model_path=path, name=name, version=1) as live:
                say(f"{name}: {each:,} cases, {schemas:,} of them by schemathesis")
                by_schema = described(live, schemas, seed)
                by_hand = attack(live, name, each - by_schema.cases, seed)
            for failure in by_schema.failures + by_hand.failures:
                say(f"  {failure}")
            tables.append((TITLES[name], table(by_hand, by_schema)))
    return tables


TITLES = {
    small.IRIS: "Named columns (iris)",
    small.DIGITS: "A tensor (digits)",
    small.MIXED: "A function of text, dates, flags, numbers and bytes, some optional, with parameters",
}


def table(by_hand: Findings, by_schema: Findings) -> list[Figure]:
    """The figures of one model."""
    cases = by_hand.cases + by_schema.cases
    statuses = by_hand.statuses + by_schema.statuses
    failures = by_hand.failures + by_schema.failures
    bad = sum(count for status, count in statuses.items() if not status or status >= BAD)
    rate = cases / (by_hand.seconds + by_schema.seconds)
    return [
        Figure("requests", f"{cases:,}, {by_schema.cases:,} of them by schemathesis; {rate:,.0f}/s"),
        Figure("answers", ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))),
        Figure("answers of 500 and above, and connections lost", str(bad), "0", bad == 0),
        Figure(
            "anything wrong: traces, paths or values in errors, restarts, errors in the log, other answers than described",
            "; ".join(failures) or "nothing",
            "nothing",
            not failures,
        ),
        at_most("slowest answer", max(by_hand.slowest, by_schema.slowest), SLOWEST, digits=2),
        at_most(
            f"memory after, {by_hand.before / MEGABYTE:.0f} MB after the first {WARM}",
            by_hand.after / MEGABYTE,
            (by_hand.before + GROWTH) // MEGABYTE,
            unit="MB",
            digits=0,
        ),
    ]
