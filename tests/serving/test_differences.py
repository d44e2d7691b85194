"""Every row of the table of differences from `mlflow models serve` in docs/prediction-api.md, asked of both."""

import asyncio
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

from bench import small
from bench.live import CSV, JSON, PARQUET, Live, Reply, request

PAGE = Path(__file__).parents[2] / "docs" / "prediction-api.md"
TYPE = {"content-type": JSON}


@dataclass
class Ask:
    """A body, what each server answers, and the record that the answer must be the same as, if it is a good one."""

    body: bytes
    stock: int
    ours: int
    model: str = small.MIXED
    headers: dict[str, str] = field(default_factory=lambda: TYPE)
    means: dict[str, Any] | None = None


def records(record: dict[str, Any] | None = None, **changed: Any) -> bytes:
    return json.dumps({"dataframe_records": [{**(record or small.RECORD), **changed}]}).encode()


def changed(stock: int, ours: int, means: dict[str, Any] | None = None, **fields: Any) -> Ask:
    """A record with other values."""
    return Ask(records(None, **fields), stock, ours, means={**small.RECORD, **means} if means is not None else None)


def flower(stock: int, ours: int, value: Any) -> Ask:
    return Ask(records(small.FLOWER, **{"sepal length (cm)": value}), stock, ours, small.IRIS)


def csv(record: dict[str, Any], more: int = 0) -> bytes:
    extra = ["x"] * more
    names = [*record, *(f"x{place}" for place in range(more))]
    return "\n".join(",".join(map(str, line)) for line in (names, [*record.values(), *extra])).encode()


def parquet(compression: Literal["snappy", "gzip"]) -> bytes:
    file = io.BytesIO()
    pd.DataFrame([small.FLOWER]).to_parquet(file, compression=compression)
    return file.getvalue()


GOOD = records()
ROWS: dict[str, list[Ask]] = {
    "anything that is answered with an error": [changed(400, 422, when="soon")],
    "input that does not fit the signature": [
        Ask(b'{"dataframe_records": [{}]}', 400, 422),
        changed(400, 422, count=None),
        flower(400, 422, [1]),
        Ask(b'{"inputs": [[1, 2]]}', 400, 422, small.DIGITS),
        Ask(csv({**small.FLOWER, "sepal length (cm)": "x"}), 400, 422, small.IRIS, {"content-type": CSV}),
    ],
    "input that fits and makes the model fail": [flower(400, 422, None)],
    "no `Content-Type`": [Ask(GOOD, 500, 415, headers={})],
    "a `Content-Encoding`": [Ask(GOOD, 200, 415, headers={**TYPE, "content-encoding": "gzip"})],
    "JSON as UTF-16 or with a byte order mark": [
        Ask(GOOD.decode().encode("utf-16"), 200, 400),
        Ask(b"\xef\xbb\xbf" + GOOD, 200, 400),
    ],
    "`charset=utf8`": [Ask(GOOD, 415, 200, headers={"content-type": f"{JSON}; charset=utf8"}, means=small.RECORD)],
    "`NaN`, `Infinity` in JSON": [changed(200, 400, size=float("nan")), changed(200, 400, size=float("inf"))],
    "a number beyond a double: `1e999`": [Ask(GOOD.replace(b"1.5", b"1e999"), 200, 422)],
    "a number beyond a float, for a column of floats": [changed(200, 422, share=1e39)],
    "an integer beyond the column's range": [changed(200, 422, count=2**31), changed(200, 422, big=2**63)],
    "a number with a fraction for a column of integers": [changed(200, 422, count=1.5)],
    'text for a number or a boolean: `"3"`, `"false"`': [
        changed(200, 422, count="3"),
        changed(200, 422, size="1.5"),
        changed(200, 422, flag="false"),
        flower(200, 422, "1"),
    ],
    "a number for a boolean, a boolean for a number": [
        changed(200, 422, flag=1),
        changed(200, 422, count=True),
        changed(200, 422, size=True),
    ],
    "a number, a boolean or a list for text": [
        changed(200, 422, word=5),
        changed(200, 422, word=True),
        changed(200, 422, word=["a"]),
    ],
    "a number for a date": [changed(200, 422, when=5)],
    "a date with an offset": [changed(400, 200, {}, when="2024-01-02T05:04:05+02:00")],
    "dates of different precision in one column of records": [
        Ask(
            json.dumps(
                {"dataframe_records": [small.RECORD, {**small.RECORD, "when": "2024-01-02T03:04:05.5"}]}
            ).encode(),
            400,
            200,
        )
    ],
    "text that is no base64, for a column of bytes": [changed(200, 422, blob="%%%")],
    "`null` for a boolean": [changed(200, 422, flag=None)],
    "`null` for bytes": [changed(400, 200, {"blob": None}, blob=None)],
    "no row in `dataframe_split`": [
        Ask(json.dumps({"dataframe_split": {"columns": list(small.RECORD), "data": []}}).encode(), 200, 422)
    ],
    "CSV for a model with dates": [
        Ask(csv(small.RECORD), 400, 200, headers={"content-type": CSV}, means={**small.RECORD, "blob": "WVdKag=="})
    ],
    "CSV with 1000 columns more than twice the model's": [
        Ask(csv(small.FLOWER, 1100), 200, 413, small.IRIS, {"content-type": CSV})
    ],
    "Parquet that is compressed otherwise than with snappy": [
        Ask(parquet("gzip"), 200, 415, small.IRIS, {"content-type": PARQUET})
    ],
    "a body, rows, or requests beyond the limits below": [],  # tests/serving/test_statuses.py
}
# What both answer alike, because MLflow's clients send it: a good half of the protocol is in test_equality.py.
ALIKE = {
    "a record": Ask(GOOD, 200, 200, means=small.RECORD),
    "CSV": Ask(csv(small.FLOWER), 200, 200, small.IRIS, {"content-type": CSV}),
    "Parquet": Ask(parquet("snappy"), 200, 200, small.IRIS, {"content-type": PARQUET}),
    "a whole number written as a double": changed(200, 200, {"count": 1}, count=1.0),
    "columns that the model does not know": changed(200, 200, {}, unknown=5),
    "parameters that the model does not know": Ask(
        GOOD[:-1] + b', "params": {"unknown": 1}}', 200, 200, means=small.RECORD
    ),
    "null for text": changed(200, 200, {"word": None}, word=None),
    "null for a date": changed(200, 200, {"when": None}, when=None),
    "null for a float": changed(200, 200, {"share": None}, share=None),
    "null for a double": changed(200, 200, {"size": None}, size=None),
    "numpy's spelling of the largest float": changed(200, 200, {"share": 3.4028234663852886e38}, share=3.4028235e38),
    "a key twice": Ask(GOOD.replace(b'"word": "a"', b'"word": "b", "word": "a"'), 200, 200, means=small.RECORD),
    "none of the forms": Ask(b"{}", 400, 400),
    "no JSON": Ask(b"{", 400, 400),
    "an unknown type": Ask(GOOD, 415, 415, headers={"content-type": "text/plain"}),
}


@pytest.fixture(scope="module")
def stocks(models: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """The applications that `mlflow models serve` runs."""
    from mlflow.pyfunc import load_model, scoring_server

    with asyncio.Runner() as runner:
        yield {name: (runner, scoring_server.init(load_model(str(path)))) for name, path in models.items()}


def asked_of_stock(stocks: dict[str, Any], ask: Ask) -> Reply:
    runner, application = stocks[ask.model]
    messages = [{"type": "http.request", "body": ask.body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in ask.headers.items()]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/invocations", "raw_path": b"/invocations",
             "query_string": b"", "root_path": "", "scheme": "http", "headers": headers, "client": None, "server": None}  # fmt: skip
    try:
        runner.run(application(scope, receive, send))
    except AttributeError:
        # Nobody catches it; the HTTP server answers.
        return Reply(500, {}, b"")
    return Reply(sent[0]["status"], {}, b"".join(message.get("body", b"") for message in sent[1:]))


def asked_of_ours(lives: dict[str, Live], ask: Ask) -> Reply:
    headers = {"content_type": "", **{name.replace("-", "_"): value for name, value in ask.headers.items()}}
    with lives[ask.model].connect() as connection:
        return connection.ask(request(ask.body, **headers))


ASKS = [(row, ask) for row, asks in ROWS.items() for ask in asks] + list(ALIKE.items())


@pytest.mark.parametrize(("row", "ask"), ASKS, ids=[f"{row}-{place}" for place, (row, _) in enumerate(ASKS)])
@pytest.mark.filterwarnings("ignore")
def test_what_each_answers(stocks: dict[str, Any], lives: dict[str, Live], row: str, ask: Ask) -> None:
    stock, ours = asked_of_stock(stocks, ask), asked_of_ours(lives, ask)
    assert (stock.status, ours.status) == (ask.stock, ask.ours), (stock.body, ours.body)
    if ask.means is not None:
        same = Ask(records(ask.means), 200, 200)
        assert ours.body == asked_of_ours(lives, same).body
        # MLflow's own server cannot be asked with missing bytes.
        assert ask.means["blob"] is None or ours.body == asked_of_stock(stocks, same).body
    if stock.status == ours.status == 200:
        assert stock.body == ours.body
    if ours.status >= 400:
        assert set(ours.json()) <= {"error_code", "message", "detail"}
        assert not re.search(rb"Traceback|\.py|schema", ours.body)
    if row == "anything that is answered with an error":
        assert b"soon" in stock.body
        assert b"soon" not in ours.body
    if row == "input that does not fit the signature":
        assert ours.json()["detail"][0]["loc"][0] == "body"


def test_a_model_that_fails_is_no_fault_of_the_client(trouble: Path, tmp_path: Path) -> None:
    """The other half of its row: not scikit-learn's own check of its input, but an error of the model."""
    from mlflow.pyfunc import load_model, scoring_server

    ask = Ask(b'{"dataframe_records": [{"word": "fail"}]}', 400, 500, "trouble")
    with asyncio.Runner() as runner:
        stock = asked_of_stock({"trouble": (runner, scoring_server.init(load_model(str(trouble))))}, ask)
    assert stock.status == ask.stock
    assert b"secret-detail" in stock.body
    assert b"Traceback" in stock.body
    with Live(tmp_path / "log", model_path=trouble) as live:
        ours = asked_of_ours({"trouble": live}, ask)
    assert ours.status == ask.ours
    assert b"secret" not in ours.body


@pytest.mark.parametrize("name", ["word", "when", "share"])
def test_null_in_a_required_column_is_for_mlflows_protocol_alone(lives: dict[str, Live], name: str) -> None:
    with lives[small.MIXED].connect() as connection:
        reply = connection.post({**small.RECORD, name: None}, "/predict")
        assert (reply.status, reply.json()["detail"][0]["loc"]) == (422, ["body", name])
        inputs = [{"name": key, "shape": [1], "datatype": "BYTES", "data": [None if key == name else value]}
                  for key, value in small.RECORD.items()]  # fmt: skip
        reply = connection.post({"inputs": inputs}, f"/v2/models/{small.MIXED}/infer")
        place = list(small.RECORD).index(name)
        assert (reply.status, reply.json()["detail"][0]["loc"]) == (422, ["body", "inputs", place, "data", 0])


def test_unknown_columns_are_refused_in_predict_alone(lives: dict[str, Live]) -> None:
    with lives[small.IRIS].connect() as connection:
        reply = connection.post({**small.FLOWER, "unknown": 1}, "/predict")
        assert (reply.status, reply.json()["detail"][0]["type"]) == (422, "extra_forbidden")
        inputs = [{"name": key, "shape": [1], "datatype": "FP64", "data": [1]} for key in [*small.FLOWER, "unknown"]]
        assert connection.post({"inputs": inputs}, f"/v2/models/{small.IRIS}/infer").status == 200


def test_the_table_of_the_page_is_what_is_tested() -> None:
    table = PAGE.read_text().split("\nAll differences:\n")[1].split("\n\n`null`")[0]
    rows = [re.split(r"(?<!\\) \| ", line.strip("| "))[0] for line in table.splitlines() if line.startswith("| ")]
    assert rows[1:] == list(ROWS)
