"""Every row of the table of errors in docs/prediction-api.md, asked of a live server."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pace import slowness, too_late

from bench import small
from bench.live import Live, Reply, question, request

PAGE = Path(__file__).parents[2] / "docs" / "prediction-api.md"
RECORDS = {"dataframe_records": [small.FLOWER]}
CODES = {
    400: "BAD_REQUEST",
    404: "ENDPOINT_NOT_FOUND",
    405: "BAD_REQUEST",
    408: "BAD_REQUEST",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
HEADERS = {405: ("allow", "POST"), 408: ("connection", "close"), 429: ("retry-after", "1"), 503: ("retry-after", "5")}
# For an answer: half a second on an idle machine.
TIMEOUT = 0.5 * slowness()


@pytest.fixture(scope="module")
def strict(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with narrow limits."""
    log, patience = tmp_path_factory.mktemp("log") / "log", 0.3 * slowness()
    limits = {"max_body": 10_000, "max_rows": 3, "body_timeout": patience}
    with Live(log, model_path=models[small.IRIS], name="iris", **limits) as live:
        yield live


@pytest.fixture(scope="module")
def impatient(trouble: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server whose model does what it is told, with a queue of one and little time for an answer."""
    log = tmp_path_factory.mktemp("log") / "log"
    with Live(log, model_path=trouble, name="trouble", queue=1, timeout=TIMEOUT) as live:
        yield live


def told(word: str) -> bytes:
    return request(json.dumps({"dataframe_records": [{"word": word}]}).encode())


ROWS: list[tuple[int, str, Callable[[], bytes]]] = [
    (400, "not JSON", lambda: request(b'{"dataframe_records": [')),
    (400, "not JSON, though Python reads it", lambda: request(b'{"inputs": NaN}')),
    (400, "not CSV", lambda: request(b'a,b\n1,2\n3,4,5\n"', content_type="text/csv")),
    (400, "not UTF-8", lambda: request(json.dumps(RECORDS).encode("utf-16"))),
    (400, "none of the forms", lambda: request(b"{}")),
    (400, "several of the forms", lambda: request(json.dumps({**RECORDS, "inputs": []}).encode())),
    (400, "nested deeply", lambda: request(b'{"a":' * 1500)),
    (404, "no such path", lambda: question("/nothing")),
    (404, "no such model", lambda: question("/v2/models/other")),
    (405, "another method", lambda: question("/invocations")),
    (408, "a body that stops", lambda: request(b"{", content_length="10")),
    (413, "too many bytes, announced", lambda: request(b" " * 20_000)),
    (413, "too many bytes, in chunks", lambda: chunked(b" " * 20_000)),
    (413, "too many bytes of which none is sent", lambda: request(b"", content_length=str(10**12))),
    (413, "too many rows", lambda: request(json.dumps({"dataframe_records": [small.FLOWER] * 4}).encode())),
    (415, "no content type", lambda: request(json.dumps(RECORDS).encode(), content_type="")),
    (415, "an unknown content type", lambda: request(json.dumps(RECORDS).encode(), content_type="text/plain")),
    (415, "a compressed body", lambda: request(b"\x1f\x8b", content_encoding="gzip")),
    (422, "a wrong type", lambda: request(json.dumps({"dataframe_records": [dict.fromkeys(small.FLOWER, "x")]}).encode())),
    (422, "a missing column", lambda: request(b'{"dataframe_records": [{}]}')),
    (422, "no rows", lambda: request(b'{"dataframe_records": []}')),
    (422, "a number that is none", lambda: request(b'{"inputs": 1e999}')),
    (422, "a missing value that the model refuses", lambda: request(json.dumps({"inputs": dict.fromkeys(small.FLOWER)}).encode())),
]  # fmt: skip


def chunked(body: bytes) -> bytes:
    return request(b"", content_length="", transfer_encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def check(reply: Reply, status: int) -> None:
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-model-name"] in {"iris", "trouble"}
    assert re.fullmatch(r"[\w.-]+", reply.headers["x-request-id"])
    document = reply.json()
    assert document["error_code"] == CODES[status]
    assert set(document) == {"error_code", "message"} | ({"detail"} if status == 422 else set()) | (
        {"error"} & set(document)
    )
    if status in HEADERS:
        name, value = HEADERS[status]
        assert reply.headers[name] == value


@pytest.mark.parametrize(("status", "made"), [row[::2] for row in ROWS], ids=[f"{row[0]} {row[1]}" for row in ROWS])
def test_what_a_client_does_wrong(strict: Live, status: int, made: Callable[[], bytes]) -> None:
    with strict.connect() as connection:
        check(connection.ask(made()), status)
        # The connection, or the one that follows it, is as good as before.
        assert connection.post(RECORDS).body == b'{"predictions": [1]}'


def test_what_goes_wrong_in_the_server(impatient: Live) -> None:
    """500 while the model lives; 504 for what it keeps, 429 for what the queue does not hold, 503 from then on."""
    with impatient.connections(4) as (hangs, waits, shed, refused):
        check(hangs.ask(told("fail")), 500)
        began = time.monotonic()
        hangs.send(told("hang"))
        time.sleep(TIMEOUT / 5)
        waits.send(told("pid"))
        time.sleep(TIMEOUT / 5)
        check(shed.ask(told("pid")), 429)
        check(hangs.read(), 504)
        check(waits.read(), 504)
        assert not too_late(began, 5 + TIMEOUT)
        check(refused.ask(told("pid")), 503)


def test_the_page_has_every_status_that_is_tested() -> None:
    """And no other; 200 is no error."""
    section = PAGE.read_text().split("\n## Errors\n")[1].split("\n## ")[0]
    assert [int(status) for status in re.findall(r"^\| (\d{3}) \|", section, re.MULTILINE)] == sorted(CODES)
    tested = {row[0] for row in ROWS} | {429, 500, 503, 504}
    assert tested == set(CODES)
