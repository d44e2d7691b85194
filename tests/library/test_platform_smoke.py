"""The module platform_smoke against a platform that is whole, and one that is broken in each way it looks for."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from library import platform_smoke as module

Routes = dict[str, tuple[int, dict[str, str], bytes]]
IRIS = {"name": "iris", "version": "3", "input_example": {"inputs": [[1.0]]}}
NAMED = {"X-Model-Name": "iris", "X-Model-Version": "3"}


@pytest.fixture
def routes() -> Routes:
    return {
        "/api/2.0/mlflow/experiments/search": (200, {}, b'{"experiments": []}'),
        "/": (200, {}, b"<!doctype html><title>MLflow</title>"),
        "/version": (200, {}, b"3.17.2"),
        "/models": (200, {}, json.dumps([{"name": "iris", "version": "3", "replicas": 2}]).encode()),
        "/models/iris/metadata": (200, {}, json.dumps(IRIS).encode()),
        "/models/iris/invocations": (200, NAMED, b'{"predictions": [0]}'),
        "/models/iris/ping": (200, NAMED, b""),
    }


@pytest.fixture
def url(routes: Routes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = routes.get(self.path, (404, {}, b"no such path"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_whole_platform(url: str) -> None:
    assert module.check_tracking(url, 5) == "3.17.2"
    assert module.check_model(url, "iris", 5) == {"name": "iris", "version": "3", "replicas": 2, "prediction": [0]}


def test_a_typed_model_is_asked_both_ways(url: str, routes: Routes) -> None:
    routes["/models/iris/metadata"] = (200, {}, json.dumps({**IRIS, "predict_example": {"inputs": [1.0]}}).encode())
    with pytest.raises(module.SmokeError, match="/models/iris/predict answers 404"):
        module.check_model(url, "iris", 5)
    routes["/models/iris/predict"] = (200, NAMED, b'{"prediction": 0}')
    assert module.check_model(url, "iris", 5)["prediction"] == [0]


def test_a_model_without_an_example_answers_its_ping(url: str, routes: Routes) -> None:
    routes["/models/iris/metadata"] = (200, {}, json.dumps({**IRIS, "input_example": None}).encode())
    assert "no input example" in module.check_model(url, "iris", 5)["prediction"]


@pytest.mark.parametrize(
    ("path", "answer", "complaint"),
    [
        ("/api/2.0/mlflow/experiments/search", (403, {}, b"Cross-origin request blocked"), "answers 403: Cross-origin"),
        ("/api/2.0/mlflow/experiments/search", (200, {}, b"{}"), "without experiments"),
        ("/", (200, {}, b"<title>It works!</title>"), "not the page of MLflow"),
    ],
)
def test_a_broken_tracking_server(url: str, routes: Routes, path: str, answer: Any, complaint: str) -> None:
    routes[path] = answer
    with pytest.raises(module.SmokeError, match=complaint):
        module.check_tracking(url, 5)


@pytest.mark.parametrize(
    ("path", "answer", "complaint"),
    [
        ("/models", (200, {}, b"[]"), "does not list iris"),
        ("/models/iris/metadata", (404, {}, b"nothing is served here"), "answers 404"),
        ("/models/iris/invocations", (503, {}, b"no replica"), "answers 503: no replica"),
        (
            "/models/iris/invocations",
            (200, {**NAMED, "X-Model-Version": "2"}, b'{"predictions": [0]}'),
            "iris version 2",
        ),
        ("/models/iris/invocations", (200, {}, b'{"predictions": [0]}'), "names None"),
    ],
)
def test_a_broken_model(url: str, routes: Routes, path: str, answer: Any, complaint: str) -> None:
    routes[path] = answer
    with pytest.raises(module.SmokeError, match=complaint):
        module.check_model(url, "iris", 5)


def test_nobody_there() -> None:
    with pytest.raises(module.SmokeError, match="does not answer"):
        module.check_tracking("http://127.0.0.1:9", 2)


def test_who_is_busy_for_a_moment_is_asked_again_when_it_says(
    url: str, routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = routes["/models/iris/invocations"]
    routes["/models/iris/invocations"] = (503, {"Retry-After": "5"}, b"busy")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            routes["/models/iris/invocations"] = whole

    monkeypatch.setattr("time.sleep", sleep)
    assert module.check_model(url, "iris", 5)["prediction"] == [0]
    assert slept == [5, 5]


def test_who_stays_busy_is_a_failure(url: str, routes: Routes, monkeypatch: pytest.MonkeyPatch) -> None:
    routes["/models/iris/invocations"] = (503, {"Retry-After": "5"}, b"busy")
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(module.SmokeError, match="answers 503: busy"):
        module.check_model(url, "iris", 5)
    assert sum(slept) == module.PATIENCE
