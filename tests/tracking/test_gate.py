"""The rules before MLflow's application, each seen from a client's side."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from roles.tracking.files import gate, tracking_server

PUT = "/api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/file"
CREATE = "/api/2.0/mlflow/experiments/create"
VERSION = "/api/2.0/mlflow/model-versions/create"
SEARCH = "/api/2.0/mlflow/runs/search"


@dataclass
class Mlflow:
    """Stands for the application: reads what it is sent, and answers what the test says."""

    status: int = 200
    answer: bytes = b"{}"
    bodies: list[bytes] = field(default_factory=list)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    pieces: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            self.pieces += 1
            body += message.get("body", b"")[:1000]
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.headers = dict(scope["headers"])
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(self.answer)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.answer})


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[bytes, bytes]
    # Pieces of the body that were asked for.
    read: int

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])


def ask(
    method: str,
    path: str,
    body: bytes | Iterator[bytes] = b"",
    app: Any = None,
    settings: gate.Settings = gate.Settings(),  # noqa: B008 - frozen
    **headers: str,
) -> Answer:
    pieces = iter([body] if isinstance(body, bytes) else body)
    sent: list[gate.Message] = []
    read = [0]

    async def receive() -> gate.Message:
        read[0] += 1
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(message: gate.Message) -> None:
        sent.append(message)

    length = {"content-length": str(len(body))} if isinstance(body, bytes) else {"transfer-encoding": "chunked"}
    named = length | {name.replace("_", "-"): value for name, value in headers.items()}
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    asyncio.run(gate.Gate(app or Mlflow(), settings)(scope, receive, send))
    assert [message["type"] for message in sent[:2]] == ["http.response.start", "http.response.body"]
    told = b"".join(message.get("body", b"") for message in sent[1:])
    return Answer(sent[0]["status"], told, dict(sent[0]["headers"]), read[0])


def post(path: str, value: Any, **rest: Any) -> Answer:
    return ask("POST", path, json.dumps(value).encode(), **rest)


def zeros(mib: int) -> Iterator[bytes]:
    return (bytes(1024 * 1024) for _ in range(mib))


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("POST", "/api/2.0/mlflow/runs/log-batch", gate.BODY),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact", gate.BODY),
        ("POST", PUT, gate.BODY),
        ("PUT", "/api/2.0/mlflow-artifacts/mpu/create/x", gate.BODY),
        ("GET", "/version", gate.BODY),
        ("POST", "/v1/traces", gate.BODY),
        ("POST", "/graphql", gate.GRAPHQL_BODY),
        ("POST", "/signup", gate.FORM_BODY),
        ("POST", "/api/2.0/mlflow/users/create-ui", gate.FORM_BODY),
    ],
)
def test_bodies_are_bounded_by_what_is_said_and_by_what_comes(method: str, path: str, limit: int) -> None:
    said = ask(method, path, b"", content_length=str(limit + 1))
    assert (said.status, said.read) == (413, 0)
    assert set(json.loads(said.body)) == {"error_code", "message"}
    came = ask(method, path, zeros(40))
    assert came.status == 413
    assert came.read <= limit // 2**20 + 2
    assert ask(method, path, b" " * limit).status == 200


def test_an_artifact_streams_up_to_its_own_bound() -> None:
    app = Mlflow()
    tracemalloc.start()
    assert ask("PUT", PUT, zeros(200), app=app).status == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert app.pieces == 201
    assert peak < 20 * 2**20
    small = gate.Settings(artifact=10 * 2**20)
    stopped = ask("PUT", "/ajax-api" + PUT.removeprefix("/api"), zeros(200), settings=small)
    assert (stopped.status, stopped.read) == (413, 11)


def test_bodies_held_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "HELD", 2**20)
    many = ask("POST", SEARCH, zeros(3))
    assert (many.status, many.headers[b"retry-after"]) == (503, b"5")


def test_what_was_held_is_let_go() -> None:
    made = gate.Gate(Mlflow(), gate.Settings())

    async def again(scope: Any, receive: Any, send: Any) -> None:
        await made(scope, receive, send)

    for _ in range(3):
        ask("POST", SEARCH, zeros(17), app=again)
    assert made.held == 0


@pytest.mark.parametrize("given", [{}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer x"}])
def test_a_password_is_checked_before_the_body_is_read(given: dict[str, str]) -> None:
    settings = gate.Settings(sign_in=lambda user, password: (user, password) == ("ana", "right"))
    refused = ask("POST", SEARCH, zeros(3), settings=settings, **given)
    assert (refused.status, refused.read) == (401, 0)
    assert refused.headers[b"www-authenticate"] == b'Basic realm="mlflow"'
    assert post(SEARCH, {}, settings=settings, authorization="Basic YW5hOnJpZ2h0").status == 200


def gone(_user: str, _password: str) -> object:
    raise OSError("(psycopg.OperationalError) at 10.0.0.1")


def test_a_password_that_cannot_be_checked_is_asked_for_again() -> None:
    away = post(SEARCH, {}, settings=gate.Settings(sign_in=gone), authorization="Basic YW5hOnJpZ2h0")
    assert (away.status, away.headers[b"retry-after"], b"psycopg" in away.body) == (503, b"5", False)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
        ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
        ("gzip", lambda data: b"".join(gzip.compress(data[at : at + 2**20]) for at in range(0, len(data), 2**20))),
    ],
    ids=["gzip", "upper case", "deflate", "raw deflate", "twice", "two", "members"],
)
def test_a_compressed_body_is_bounded_by_what_it_becomes(encoding: str, pack: Any) -> None:
    app = Mlflow()
    assert ask("POST", "/v1/traces", pack(b"spans"), app=app, content_encoding=encoding).status == 200
    assert app.bodies == [b"spans"]
    assert b"content-encoding" not in app.headers
    assert app.headers[b"content-length"] == b"5"
    assert ask("POST", "/v1/traces", pack(bytes(20 * 2**20)), content_encoding=encoding).status == 413


@pytest.mark.parametrize(
    ("path", "encoding", "status"),
    [
        ("/v1/traces", "br", 415),
        ("/v1/traces", "gzip,gzip,gzip,gzip", 415),
        (SEARCH, "gzip", 415),
        ("/v1/traces", "gzip", 400),
    ],
)
def test_other_encodings_are_refused(path: str, encoding: str, status: int) -> None:
    assert ask("POST", path, b"no gzip", content_encoding=encoding).status == status


MANY = " and ".join(["metrics.a > 1"] * 21)


@pytest.mark.parametrize("path", [SEARCH, "/ajax-api/3.0/mlflow/traces/search", "/api/2.0/mlflow/logged-models/search"])
@pytest.mark.parametrize(
    "fields",
    [
        {"filter": MANY},
        {"filter_string": MANY.upper()},
        {"filterString": MANY.replace(" and ", "\tAND\n")},
        {"filter_string1": MANY.replace("1 and", "1and")},
        {"filters": ["a = 1"] * 21},
        {"filter": "a = '" + "x" * 9000 + "'"},
        {"order_by": ["metrics.a"] * 11},
        {"orderBy": [{"field_name": "x"}] * 11},
        {"order_by": ["x" * 600]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_searches_are_bounded(path: str, fields: dict[str, Any]) -> None:
    refused = post(path, fields)
    assert refused.status == 400
    assert any(limit in refused.message for limit in ("20 are allowed", "10 are allowed", "8192", "512"))
    twice = ask("POST", path, json.dumps(json.dumps(fields)).encode())
    assert twice.status == 400


def test_searches_within_the_bounds_pass() -> None:
    fields = {"filter": MANY.rpartition(" and ")[0], "order_by": ["metrics.a"] * 10}
    assert post(SEARCH, fields).status == 200
    assert post(SEARCH, {"filter": "name = 'sand and salt' and tags.`order` like '%x%'"}).status == 200


def test_searches_by_address_are_bounded() -> None:
    path = "/api/2.0/mlflow/model-versions/search"
    assert ask("GET", f"{path}?filter={MANY.replace(' ', '+')}").status == 400
    assert ask("GET", path + "?" + "&".join(["order_by=name"] * 11)).status == 400
    assert ask("GET", path + "?" + "&".join(["order_by=name"] * 10)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"query": f'{{mlflowSearchRuns(input: {{filter: "{MANY}"}}) {{runs {{info {{runId}}}}}}}}'},
        {"query": "query($x: String) {mlflowSearchRuns(input: {filter: $x}) {runs}}", "variables": {"x": MANY}},
        {"query": "query($i: I) {mlflowSearchRuns(input: $i) {runs}}", "variables": {"i": {"filter": MANY}}},
        {"query": f'query($x: String = "{MANY}") {{mlflowSearchRuns(input: {{filter: $x}}) {{runs}}}}'},
        {"query": f"{{mlflowSearchRuns(input: {{orderBy: [{'a '!r}]}}) {{runs}}}}".replace("'a '", '"a" ' * 11)},
    ],
    ids=["literal", "variable", "input", "default", "order"],
)
def test_graphql_is_bounded_however_the_filter_is_handed_over(body: dict[str, Any]) -> None:
    assert post("/graphql", body).status == 400
    assert post("/graphql", {"query": '{mlflowSearchRuns(input: {filter: "a = 1"}) {runs}}'}).status == 200


BAD = [
    "/etc",
    "file:///etc",
    "s3://b/x",
    "gs://b",
    "sqlite:///x",
    "mlflow-artifacts://host/x",
    "mlflow-artifacts:///x",
    "mlflow-artifacts:/x/../y",
    "mlflow-artifacts:/x/..",
    "mlflow-artifacts:/x%2fy",
    "mlflow-artifacts:/x\\y",
    "mlflow-artifacts:/x//y",
    "mlflow-artifacts:/./y",
    "mlflow-artifacts:/y?a",
    "mlflow-artifacts:/y\n",
    "MLFLOW-ARTIFACTS:/x",
    "http://h/api/2.0/mlflow-artifacts/artifacts/x",
    " /etc",
]


@pytest.mark.parametrize("value", BAD)
def test_locations_of_another_form_are_refused(value: str) -> None:
    for name in ("artifact_location", "artifactLocation"):
        assert post(CREATE, {"name": "x", name: value}).status == 400
    assert post(VERSION, {"name": "x", "source": value}).status == 400
    assert ask("POST", VERSION, json.dumps(json.dumps({"source": value})).encode()).status == 400
    repeated = f'{{"source": "mlflow-artifacts:/x", "source": {json.dumps(value)}}}'
    assert ask("POST", VERSION, repeated.encode("utf-16")).status == 400


@pytest.mark.parametrize("value", ["", "mlflow-artifacts:/", "mlflow-artifacts:/team/a b"])
def test_locations_of_the_server_s_own_pass(value: str) -> None:
    assert post(CREATE, {"artifact_location": value}).status == 200


@pytest.mark.parametrize("value", ["mlflow-artifacts:/1", "mlflow-artifacts:/12/run"])
def test_an_experiment_is_not_put_into_another_one_s_folder(value: str) -> None:
    assert post(CREATE, {"artifact_location": value}).status == 400


@pytest.mark.parametrize(
    "value",
    [
        "",
        "mlflow-artifacts:/1/r/artifacts/model",
        "runs:/r/model",
        "models:/m-1",
        "models:/iris@best",
        "dummy-source",
        "prompt-template",
    ],
)
def test_sources_that_clients_send_pass(value: str) -> None:
    assert post(VERSION, {"source": value}).status == 200


def test_prompts_are_what_mlflow_takes_for_them() -> None:
    from mlflow.prompt.constants import _PROMPT_SOURCE_PLACEHOLDERS

    assert gate.PROMPT_SOURCES == _PROMPT_SOURCE_PLACEHOLDERS


@pytest.mark.parametrize("key", sorted(gate.FIXED_TAGS))
def test_tags_that_say_where_a_trace_is_are_the_server_s(key: str) -> None:
    path = "/api/3.0/mlflow/traces"
    assert post(path, {"trace": {"trace_info": {"tags": {key: "x"}}}}).status == 400
    assert post(f"/ajax-api/2.0/mlflow{path[15:]}/t/tags", {"key": key, "value": "x"}).status == 400
    assert ask("DELETE", f"{path}/t/tags?key={key}").status == 400
    assert post(f"{path}/t/tags", {"key": "mine", "value": key}).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SEARCH, b"[]"),
        (SEARCH, b"7"),
        (SEARCH, b'"7"'),
        (SEARCH, b'{"max_results": 1e999}'),
        (SEARCH, b'{"maxResults": NaN}'),
        (SEARCH, b'{"max_results": 1.5}'),
        (SEARCH, b'{"max_results": "many"}'),
        (SEARCH, b'{"max_results": 99999999999}'),
        (CREATE, b'{"name": "a\\u0000b"}'),
        (CREATE, b'{"tags": [{"key": "\\u0000"}]}'),
        (CREATE, '{"name": "a\\u0000"}'.encode("utf-16")),
        ("/graphql", b'[{"query": "{a}"}]'),
        ("/graphql", b'{"query": "{a"}'),
        ("/graphql", json.dumps({"query": "{" + "a{" * 5000 + "b" + "}" * 5001}).encode()),
        ("/graphql", json.dumps({"query": "{" + "a{" * 100 + "b" + "}" * 101}).encode()),
        ("/api/2.0/mlflow/experiments/get-by-name?experiment_name=%00", b"{}"),
        ("/api/3.0/mlflow/traces/search?max_results=1e9", b"{}"),
    ],
)
def test_what_mlflow_would_fail_at_is_refused(path: str, body: bytes) -> None:
    app = Mlflow()
    assert ask("POST", path, body, app=app).status == 400
    assert app.bodies == []


@pytest.mark.parametrize("name", [".", "..", "a/../b", "x" * 256, "\u00e9" * 128, "a/" + "x" * 256, "a\0"])
def test_names_that_no_store_takes_are_refused(name: str) -> None:
    assert ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{name}", b"x").status == 400


def test_whole_numbers_lists_for_files_and_levels_of_the_interface_pass() -> None:
    for value in (7, 7.0, "7", None, -1):
        assert post(SEARCH, {"max_results": value}).status == 200
    assert ask("POST", "/ajax-api/2.0/mlflow/upload-artifact?run_uuid=1&path=a.json", b"[1]").status == 200
    assert post("/graphql", {"query": "{" + "a{" * 12 + "b" + "}" * 13}).status == 200
    assert post(CREATE, {"name": "a \\u0000 in words"}).status == 200
    assert ask("PUT", "/api/2.0/mlflow-artifacts/artifacts/" + "x" * 255 + "/a.b", b"x").status == 200


def test_json_that_is_too_deep_is_refused() -> None:
    assert ask("POST", CREATE, b"[" * 200_000).status == 400


def test_files_of_a_version_are_kept_before_the_body_is_read() -> None:
    settings = gate.Settings(protected=lambda path, _removes: path == "1/run/artifacts/file")
    refused = ask("PUT", PUT, zeros(3), settings=settings)
    assert (refused.status, refused.read) == (409, 0)
    assert ask("PUT", PUT + "2", zeros(3), settings=settings).status == 200


SQL = "(psycopg.errors.NumericValueOutOfRange) x\n[SQL: SELECT secret FROM runs]\n(Background on this error at: https://sqlalche.me/e/20/9h9h)"


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5 overflow 10 reached"}, 503),
        (503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "(psycopg.OperationalError) host 10.0.0.1 " + SQL}, 503),
        (503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "(psycopg.errors.QueryCanceled) canceling statement due to " + SQL}, 400),
        (503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "(psycopg.errors.ConfigurationLimitExceeded) temporary file size " + SQL}, 400),
        (400, {"error_code": "BAD_REQUEST", "message": SQL}, 400),
        (422, {"detail": "Failed: " + SQL}, 422),
        (500, {"error_code": "INTERNAL_ERROR", "message": "No such file '/artifacts/1/secret/SELECT'"}, 500),
    ],
)  # fmt: skip
def test_what_the_database_said_stays_inside(status: int, error: dict[str, str], expected: int) -> None:
    answer = ask("GET", "/version", app=Mlflow(status, json.dumps(error).encode()))
    assert answer.status == expected
    assert answer.headers.get(b"retry-after") == (b"5" if expected == 503 else None)
    assert answer.headers[b"content-length"] == str(len(answer.body)).encode()
    for word in (b"SELECT", b"secret", b"QueuePool", b"psycopg", b"10.0.0.1", b"sqlalche"):
        assert word not in answer.body
    assert json.loads(answer.body).get("error_code", "") != "TEMPORARILY_UNAVAILABLE" or expected == 503


def test_errors_without_json_become_json() -> None:
    trace = b"Traceback (most recent call last):\n  File '/opt/x.py'"
    for status, text in ((500, b"<html>Internal Server Error"), (500, trace), (400, trace)):
        answer = ask("GET", "/version", app=Mlflow(status, text))
        assert (answer.status, b"Traceback" in answer.body, "log" in answer.message) == (status, False, True)


def test_other_errors_pass_as_they_are() -> None:
    error = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No run with id=1; see /api/2.0/mlflow"}'
    assert ask("GET", "/version", app=Mlflow(404, error)).body == error


@pytest.mark.parametrize("place", ["errors", "apiError"])
def test_errors_in_answers_of_graphql_are_cleaned(place: str) -> None:
    nested = {"errors": [SQL]} if place == "errors" else {"data": {"a": {"apiError": {"message": SQL}}}}
    answer = post("/graphql", {"query": "{a}"}, app=Mlflow(200, json.dumps(nested).encode()))
    assert (answer.status, b"SELECT" in answer.body) == (200, False)
    mine = b'{"data": {"a": {"tag": "[SQL: mine]"}}}'
    assert post("/graphql", {"query": "{a}"}, app=Mlflow(200, mine)).body == mine


def test_every_change_is_one_line_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "audit")
    settings = gate.Settings(sign_in=lambda _user, _password: True)
    fields = {"name": "iris", "alias": "champion", "version": "3", "value": "s3cret", "password": "s3cret"}
    path = "/api/2.0/mlflow/registered-models/alias"
    answer = post(path, fields, settings=settings, authorization="Basic YW5hOnMzY3JldA==", x_request_id="abc-1")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "audit"]
    said = json.loads(line)
    assert said.pop("time").endswith("Z")
    assert said == {
        "user": "ana",
        "method": "POST",
        "route": path,
        "objects": {"model": ["iris"], "alias": ["champion"], "version": ["3"]},
        "status": 200,
        "request_id": "abc-1",
    }
    assert answer.headers[b"x-request-id"] == b"abc-1"
    caplog.clear()
    ask("DELETE", "/api/2.0/mlflow/runs/delete?run_id=r1", x_request_id="a\tb")
    post(SEARCH, {"filter": "x = 1"})
    (line,) = [record.getMessage() for record in caplog.records if record.name == "audit"]
    said = json.loads(line)
    assert (said["user"], said["objects"], len(said["request_id"])) == ("anonymous", {"run": ["r1"]}, 32)
    caplog.clear()
    assert post(CREATE, {"artifact_location": "/etc"}).status == 400
    assert json.loads(caplog.records[-1].getMessage())["status"] == 400


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://localhost:5000",
        "http://localhost:5000.evil.com",
        "http://localhost:50001",
        "null",
        "http://[::1]:5000",
    ],
)
def test_only_the_platform_s_own_pages_ask(origin: str) -> None:
    settings = gate.Settings(origins=frozenset({"http://localhost:5000"}))
    for method in ("GET", "POST", "OPTIONS"):
        refused = ask(method, SEARCH, settings=settings, origin=origin)
        assert (refused.status, [name for name in refused.headers if name.startswith(b"access-control")]) == (403, [])
        assert ask(method, SEARCH, settings=settings, origin="http://localhost:5000").status == 200


def test_statements_are_bounded_but_not_those_of_other_databases() -> None:
    import sqlalchemy

    made = tracking_server.bounded("postgresql+psycopg://u@h:5432/d?passfile=/p&connect_timeout=5", 30)
    assert sqlalchemy.engine.make_url(made).query["options"] == "-c statement_timeout=30000"
    assert tracking_server.bounded("postgresql://u@h/d", 0) == "postgresql://u@h/d"
    assert tracking_server.bounded("sqlite:///x", 30) == "sqlite:///x"
