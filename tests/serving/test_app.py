import asyncio
import json
import logging
import re
import time
from typing import Any

import numpy as np
import pytest

from serving import app as app_module
from serving.cage import Cage
from serving.errors import DeadlineExceeded, InvalidInput, ModelFailed, NotReady, Problem, QueueFull
from serving.model import Answer
from serving.scoring import Scoring
from tests.serving.transport import (
    DENSE,
    FLOWER,
    IMAGE,
    MIXED,
    NAMES,
    ROW,
    Reply,
    Sums,
    application,
    call,
    get,
    post,
    run,
)

RECORDS = {"dataframe_records": [FLOWER]}
INFER = {"inputs": [{"name": name, "shape": [1], "datatype": "FP64", "data": [2]} for name in NAMES]}


def counted(app: Any) -> dict[tuple[str, str], float]:
    pattern = re.compile(r'serving_requests_total\{endpoint="(\w+)",.*status="(\d+)",?.*\} (\S+)')
    return {(match[1], match[2]): float(match[3]) for match in pattern.finditer(app.metrics.text().decode())}


def test_invocations() -> None:
    app = application()
    reply = post(app, "/invocations", RECORDS)
    assert (reply.status, reply.body) == (200, b'{"predictions": [8.6]}')
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert counted(app) == {("invocations", "200"): 1}
    assert app.bodies.held == 0


def test_csv() -> None:
    body = b'"sepal length (cm)","sepal width (cm)"\n1,2\n3,4\n'
    reply = run(call(application(), "/invocations", body, headers={"content-type": "text/csv"}))
    assert (reply.status, reply.body) == (200, b'{"predictions": [3.0, 7.0]}')


def test_predict_with_probabilities() -> None:
    reply = post(application(more={"classes": ("low", "high")}), "/predict", FLOWER)
    assert reply.json() == {
        "prediction": 8.6,
        "probabilities": {"low": 0.25, "high": 0.75},
        "model": "flowers",
        "version": "3",
    }
    assert post(application(), "/predict", [FLOWER] * 2).json() == {
        "predictions": [{"prediction": 8.6}] * 2, "model": "flowers", "version": "3"}  # fmt: skip


def test_a_class_with_a_label_is_told_with_it() -> None:
    app = application(more={"labels": {"8.6": "long", "0": "short"}})
    assert post(app, "/predict", FLOWER).json()["label"] == "long"
    assert run(call(app, "/metadata", None)).json()["labels"] == {"8.6": "long", "0": "short"}
    assert "label" not in post(application(more={"labels": {"0": "short"}}), "/predict", FLOWER).json()


def test_infer() -> None:
    app = application(more={"classes": (0, 1)})
    for path in ("/v2/models/flowers/infer", "/v2/models/flowers/versions/3/infer"):
        reply = post(app, path, {**INFER, "id": "7"})
        assert reply.json() == {"model_name": "flowers", "model_version": "3", "id": "7",
                                "outputs": [{"name": "predict", "shape": [1], "datatype": "FP64", "data": [4.0]}]}  # fmt: skip
    reply = post(app, path, {**INFER, "outputs": [{"name": "predict_proba"}]})
    assert [item["name"] for item in reply.json()["outputs"]] == ["predict_proba"]
    assert reply.json()["id"] == reply.headers["x-request-id"]


def test_infer_needs_no_content_type_for_json() -> None:
    path, body = "/v2/models/flowers/infer", json.dumps(INFER).encode()
    assert run(call(application(), path, body, headers={})).status == 200
    assert run(call(application(), path, body, headers={"content-type": "text/csv"})).status == 415


def test_infer_with_binary_tensors() -> None:
    inputs = [{"name": name, "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}} for name in NAMES]
    head = json.dumps({"inputs": inputs}).encode()
    body = head + np.array([1.5, 2], "<f4").tobytes()
    kind = {"content-type": "application/octet-stream"}
    path = "/v2/models/flowers/infer"

    def ask(length: str) -> Reply:
        return run(call(application(), path, body, headers={**kind, "inference-header-content-length": length}))

    assert ask(str(len(head))).json()["outputs"][0]["data"] == [3.5]
    for length in ("", "-1", "x", "9" * 30, str(len(body) + 1)):
        assert ask(length).status == 400, length
    assert run(call(application(), path, body, headers=kind)).status == 415


def test_what_is_answered_at_once() -> None:
    app = application(
        pages={"/page.js": ("text/javascript", b"1", {"cache-control": "no-cache"}), "/": ("text/html", b"<p>", {})}
    )
    assert (get(app, "/ping").status, get(app, "/ping").body) == (200, b"\n")
    assert (get(app, "/health").status, get(app, "/version").body) == (200, b"3.17.2")
    assert get(app, "/page.js").headers["cache-control"] == "no-cache"
    assert get(app, "/", headers={"accept": "text/html,*/*"}).body == b"<p>"
    assert get(app, "/").json()["name"] == "flowers"
    metadata = get(app, "/metadata").json()
    assert (metadata["version"], metadata["aliases"], metadata["engine"]) == ("3", ["champion"], "api")
    assert get(app, "/v2").json() == {"name": "mlflow-anywhere", "version": "3.17.2", "extensions": []}
    assert get(app, "/v2/health/live").json() == {"live": True}
    assert get(app, "/v2/health/ready").status == get(app, "/v2/models/flowers/ready").status == 200
    assert get(app, "/v2/models/flowers").json()["inputs"][0] == {"name": NAMES[0], "datatype": "FP64", "shape": [-1]}
    assert b"serving_requests_total" in get(app, "/metrics").body
    assert get(app, "/metrics").headers["content-type"].startswith("text/plain")
    assert get(app, "/health", method="HEAD").status == 200


def test_every_answer_says_which_model_gave_it() -> None:
    app = application()
    for reply in (
        post(app, "/invocations", RECORDS),
        get(app, "/health"),
        get(app, "/nothing"),
        post(app, "/predict", []),
    ):
        assert reply.headers["x-model-name"] == "flowers"
        assert reply.headers["x-model-version"] == "3"
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", reply.headers["x-request-id"])


@pytest.mark.parametrize(
    ("given", "taken"),
    [("abc-1.2_Z", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("a\n", False), ("", False)],
)
def test_request_ids(given: str, taken: bool) -> None:
    reply = post(application(), "/invocations", RECORDS, headers={"x-request-id": given})
    assert (reply.headers["x-request-id"] == given) is taken


def test_400_and_422_name_what_is_wrong_and_nothing_else() -> None:
    app = application()
    reply = post(app, "/invocations", b'{"dataframe_records": [')
    assert (reply.status, reply.json()["error_code"]) == (400, "BAD_REQUEST")
    reply = post(app, "/invocations", {"dataframe_records": [{NAMES[0]: "secret-value", NAMES[1]: 1}]})
    assert reply.status == 422
    assert [item["loc"] for item in reply.json()["detail"]] == [["body", "dataframe_records", 0, NAMES[0]]]
    assert b"secret-value" not in reply.body
    assert re.search(rb'rejects_total\{field="sepal length \(cm\)".*\} 1.0', app.metrics.text())
    deep = post(app, "/invocations", b'{"a":' * 100_000)
    assert deep.status == 400


def test_404_names_the_paths() -> None:
    reply = get(application(), "/nothing")
    assert reply.status == 404
    assert "/invocations" in reply.json()["message"]
    assert get(application(), "/v2/models/other").json()["error"]


def test_405_names_the_methods() -> None:
    app = application()
    assert (get(app, "/invocations").status, get(app, "/invocations").headers["allow"]) == (405, "POST")
    assert get(app, "/predict", method="HEAD").status == 405
    reply = post(app, "/health", {})
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


def test_408_after_the_time_for_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "SWEEP", 0.01)
    app = application(body_timeout=0.02)

    async def never() -> Any:
        await asyncio.sleep(60)

    reply = run(call(app, "/invocations", b"", receive=never))
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert (app.bodies.held, counted(app)) == (0, {("invocations", "408"): 1})


def test_413_by_the_head_and_by_what_comes() -> None:
    app = application(max_body=100)
    reply = post(app, "/invocations", RECORDS, headers={"content-length": "1000000"})
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    parts = [b"x" * 60] * 1000
    reply = post(app, "/invocations", parts, headers={"transfer-encoding": "chunked"})
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert post(app, "/invocations", b" " * 101).status == 413
    assert app.bodies.held == 0
    assert post(application(max_rows=1), "/predict", [FLOWER, FLOWER]).status == 413


def test_a_body_in_parts() -> None:
    body = json.dumps(RECORDS).encode()
    reply = post(application(), "/invocations", [body[:10], body[10:20], b"", body[20:]])
    assert reply.body == b'{"predictions": [8.6]}'


def test_415() -> None:
    app = application()
    body = json.dumps(RECORDS).encode()
    for headers in (
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-encoding": "gzip"},
        {"content-encoding": "br"},
    ):
        assert run(call(app, "/invocations", body, headers=headers)).status == 415, headers
    assert run(call(app, "/invocations", body, headers={"content-encoding": "identity"})).status == 200
    assert run(call(app, "/predict", body, headers={"content-type": "text/csv"})).status == 415


def test_429_when_the_queue_or_the_memory_is_full() -> None:
    predictor = Sums()
    app = application(predictor=predictor, max_body=1000)
    predictor.error = QueueFull("full")
    reply = post(app, "/invocations", RECORDS)
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    predictor.error = None
    app.bodies.held = 3990
    reply = post(app, "/invocations", RECORDS)
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert app.bodies.held == 3990


def test_500_tells_the_request_id_and_nothing_internal(caplog: pytest.LogCaptureFixture) -> None:
    predictor = Sums()
    app = application(predictor=predictor)
    predictor.error = ZeroDivisionError("/opt/secret")
    reply = post(app, "/invocations", RECORDS, headers={"x-request-id": "mine"})
    assert reply.status == 500
    assert "mine" in reply.json()["message"]
    assert b"secret" not in reply.body
    assert any(record.exc_info and record.levelno == logging.ERROR for record in caplog.records)
    assert post(application(predictor=failing(ModelFailed("no"))), "/predict", FLOWER).status == 500


def failing(error: Exception) -> Sums:
    predictor = Sums()
    predictor.error = error
    return predictor


def test_422_503_and_504_of_the_model() -> None:
    assert (
        post(application(predictor=failing(InvalidInput([Problem((), "NaN", "finite")]))), "/predict", FLOWER).status
        == 422
    )
    reply = post(application(predictor=failing(NotReady("going"))), "/invocations", RECORDS)
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert post(application(predictor=failing(DeadlineExceeded("late"))), "/invocations", RECORDS).status == 504


def test_a_model_that_hangs_makes_the_server_unhealthy() -> None:
    predictor = Sums()
    app = application(predictor=predictor, hang_timeout=5.0)
    assert get(app, "/ping").status == 200
    predictor.stuck_seconds = 6.0
    for path in ("/ping", "/health", "/v2/health/ready", "/v2/models/flowers/ready"):
        assert get(app, path).status == 503
    assert get(app, "/v2/health/live").status == 200


def test_errors_of_the_inference_protocol_have_its_key() -> None:
    reply = post(application(), "/v2/models/flowers/infer", {"inputs": []})
    assert reply.status == 422
    assert reply.json()["error"] == reply.json()["message"]


def test_a_client_that_leaves_while_it_waits_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "SWEEP", 0.01)
    predictor = Sums()
    predictor.hold = True
    app = application(predictor=predictor)
    messages = [
        {"type": "http.request", "body": json.dumps(RECORDS).encode(), "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def leave() -> Reply:
        reply = await asyncio.wait_for(call(app, "/invocations", b"", receive=receive), 10)
        assert predictor.futures[0].cancelled()
        return reply

    assert run(leave()).status == 0
    assert (app.bodies.held, counted(app)) == (0, {("invocations", "499"): 1})


def test_a_client_that_leaves_before_its_body_is_complete() -> None:
    app = application()
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    assert run(call(app, "/predict", b"", receive=receive)).status == 0
    assert app.bodies.held == 0


def test_a_slow_prediction_is_answered_though_it_was_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "SWEEP", 0.01)
    predictor = Sums()
    predictor.hold = True
    app = application(predictor=predictor)

    async def slow() -> Reply:
        task = asyncio.ensure_future(call(app, "/invocations", json.dumps(RECORDS).encode()))
        while not app._watched:  # noqa: ASYNC110 - the application has no event for its tests
            await asyncio.sleep(0.01)
        predictor.futures[0].set_result(Answer([1]))
        reply = await task
        await asyncio.sleep(0)
        assert not app._watched
        return reply

    assert run(slow()).body == b'{"predictions": [1]}'


def test_large_bodies_are_decoded_beside_the_loop() -> None:
    rows = [[float(place)] * 64 for place in range(2000)]
    reply = post(application(IMAGE), "/invocations", {"inputs": rows})
    assert len(reply.json()["predictions"]) == 2000
    assert post(application(IMAGE), "/predict", [{"inputs": row} for row in rows]).json()["predictions"][3] == {
        "prediction": 192.0
    }


def test_what_is_slow_to_read_is_read_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    caged: list[str] = []
    read = Cage.read

    async def noted(cage: Cage, name: str, body: bytes, headers: Any) -> Any:
        caged.append(name)
        return await read(cage, name, body, headers)

    monkeypatch.setattr(Cage, "read", noted)
    body = json.dumps(RECORDS).encode()
    csv = b'"sepal length (cm)","sepal width (cm)"\n1,2\n'
    mixed = json.dumps({"dataframe_records": [ROW]}).encode()
    dates = json.dumps({"dataframe_records": [ROW] * 17}).encode()
    empty = b'{"dataframe_records":[%b]}' % b",".join([b"{}"] * 10_000)
    look = {"input_shape": (8, 8), "input_name": "image"}
    for app, path, sent, kind, status, expected in (
        (application(), "/invocations", body, "application/json", 200, False),
        (application(), "/invocations", body + b" " * 200_000, "application/json", 200, False),
        (application(), "/invocations", body + b" " * 300_000, "application/json", 200, True),
        (application(), "/invocations", csv, "text/csv", 200, True),
        (application(MIXED), "/invocations", mixed, "application/json", 200, False),
        (application(MIXED), "/invocations", dates, "application/json", 200, True),
        (application(MIXED), "/invocations", mixed + b" " * 40_000, "application/json", 200, True),
        (application(MIXED), "/invocations", empty, "application/json", 422, True),
        (application(), "/v2/models/flowers/infer", json.dumps(INFER).encode() + b" " * 40_000, "application/json", 200, True),
        (application(IMAGE, more=look), "/predict", b'{"image": "aaaa"}', "application/json", 422, True),
    ):  # fmt: skip
        caged.clear()
        assert post(app, path, sent, headers={"content-type": kind}).status == status
        assert bool(caged) is expected, (path, sent[:80])
        assert (app.bodies.held, app.budget.used) == (0, 0)


def test_504_for_a_body_that_takes_too_long_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    app = application(timeout=0.2)
    monkeypatch.setattr(Scoring, "read", lambda *_: time.sleep(5))
    reply = post(app, "/invocations", b"a\n1\n", headers={"content-type": "text/csv"})
    assert (reply.status, app.bodies.held, app.budget.used) == (504, 0, 0)


def test_access_log_only_when_asked(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    post(application(), "/invocations", RECORDS)
    assert not [record for record in caplog.records if record.name == "serving.access"]
    post(application(access_log=True), "/invocations", RECORDS, headers={"x-request-id": "r1"})
    fields = [record.__dict__["fields"] for record in caplog.records if record.name == "serving.access"]
    assert [(item["path"], item["status"], item["request_id"]) for item in fields] == [("/invocations", 200, "r1")]


def test_websockets_are_refused_and_lifespan_is_answered() -> None:
    async def talk(kind: str, *given: str) -> list[str]:
        messages = [{"type": name} for name in given]
        sent = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await application()({"type": kind}, receive, send)
        return sent

    assert asyncio.run(talk("websocket", "websocket.connect")) == ["websocket.close"]
    assert asyncio.run(talk("lifespan", "lifespan.startup", "lifespan.shutdown")) == [
        "lifespan.startup.complete", "lifespan.shutdown.complete"]  # fmt: skip


def test_names_beyond_ascii_in_headers() -> None:
    app = application(DENSE, more={"name": "fl\u00f6wers\r\nx: y"})
    assert get(app, "/health").headers["x-model-name"] == "fl?wers??x: y"
