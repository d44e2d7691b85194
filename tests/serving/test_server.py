import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from pace import slowness, too_late

from bench import small
from bench.live import Live, request
from serving.logs import JsonLines
from serving.metrics import Metrics
from serving.server import Parent

BODY = json.dumps({"dataframe_records": [small.FLOWER]}).encode()


@pytest.fixture(scope="module")
def live(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    log = tmp_path_factory.mktemp("log") / "log"
    with Live(
        log,
        model_path=models[small.IRIS],
        name="iris",
        version=1,
        workers=2,
        body_timeout=slowness(),
        max_body=1_000_000,
    ) as server:
        yield server


def test_mlflows_own_client(live: Live) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from mlflow.version import VERSION

    client = ScoringServerClient("127.0.0.1", live.port)
    client.wait_server_ready(timeout=10)
    assert client.get_version() == VERSION
    answered = client.invoke(pd.DataFrame([small.FLOWER, dict.fromkeys(small.FLOWER, 9.0)]))
    assert answered.get_predictions()[0].tolist() == [1, 2]


def test_paths_of_a_real_model(live: Live) -> None:
    row = list(small.FLOWER.values())
    infer = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": row}]}
    with live.connect() as connection:
        for path, body, key in (
            ("/predict", small.FLOWER, "probabilities"),
            ("/v2/models/iris/infer", infer, "outputs"),
        ):
            reply = connection.post(body, path)
            assert reply.status == 200
            assert key in reply.json()
        for path in ("/metadata", "/openapi.json", "/docs", "/page.js", "/page.css", "/metrics", "/v2/models/iris"):
            assert connection.get(path).status == 200, path


def test_a_body_that_never_ends_is_cut_off(live: Live) -> None:
    with live.connect() as connection:
        connection.send(request(BODY[:5], content_length=str(len(BODY))))
        assert connection.read().status == 408
        assert connection.closed()


def test_a_connection_without_a_request_is_closed(live: Live) -> None:
    with live.connect() as connection:
        connection.send(b"POST /invocations HTTP/1.1\r\nhost:")
        assert connection.closed()


def test_a_body_that_is_too_large_is_refused_and_the_client_reads_the_answer(live: Live) -> None:
    with live.connect() as connection:
        connection.send(request(b"x" * 3_000_000))
        assert connection.read().status == 413


def test_a_worker_that_is_killed_is_replaced(live: Live) -> None:
    assert len(live.workers()) == 2
    killed = live.workers()[0]
    os.kill(killed, signal.SIGKILL)
    died = live.wait_for("a worker died", 20)
    assert (died["worker"], died["exit_code"]) == (killed, -9)
    began = time.monotonic()
    while len(live.workers()) < 2:
        assert not too_late(began, 20)
        time.sleep(0.05)
    for _ in range(10):
        with live.connect() as connection:
            assert connection.post(BODY).body == b'{"predictions": [1]}'


def test_sigterm_finishes_what_is_in_flight_and_refuses_the_rest(live: Live) -> None:
    # The last test: the server is gone after it.
    with live.connect() as busy, live.connect() as idle:
        assert idle.post(BODY).status == 200
        busy.send(request(BODY[:5], content_length=str(len(BODY))))
        time.sleep(0.2)
        live.process.send_signal(signal.SIGTERM)
        # An idle connection is closed as soon as the signal is seen.
        assert idle.closed()
        busy.send(BODY[5:])
        assert busy.read().status == 200
        assert busy.closed()
    assert live.process.wait(30) == 0
    assert live.wait_for("stopped", 1)["exit_code"] == 0
    with pytest.raises(ConnectionRefusedError), live.connect():
        pass


@pytest.mark.parametrize(
    ("settings", "code", "text"),
    [({"model_path": "/nowhere/at/all"}, 1, "cannot be loaded"), ({"port": "none"}, 2, "SERVING_PORT")],
)
def test_what_cannot_start_says_why_in_one_line(settings: dict[str, str], code: int, text: str, tmp_path: Path) -> None:
    failed = Live(tmp_path / "log", **settings)
    assert failed.process.wait(60) == code
    assert [text in event["event"] for event in failed.events() if event["level"] == "error"] == [True]


def test_the_parent_waits_longer_for_a_worker_that_dies_again_and_again(tmp_path: Path) -> None:
    """In a process of its own, which the signals are for."""
    marks = tmp_path / "marks"
    marks.touch()
    pid = os.fork()
    if not pid:
        metrics = Metrics(workers=1)

        def die(_slot: int) -> None:
            with marks.open("a") as file:
                file.write(f"{time.monotonic()}\n")
            os._exit(3)

        parent = Parent(1, die, metrics, patience=60)

        def look(_number: int, _frame: object) -> None:
            if metrics.totals()[metrics._restarts] >= 4:
                parent._stop(signal.SIGTERM, None)

        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        code = parent.serve()
        os._exit(code if metrics.totals()[metrics._restarts] == len(marks.read_text().splitlines()) else 9)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    times = [float(line) for line in marks.read_text().splitlines()]
    waits = [after - before for before, after in pairwise(times)]
    # Twice as long each time; a busy machine only adds to it.
    assert all(wait >= least for wait, least in zip(waits, (0.09, 0.18, 0.36), strict=False)), waits


def test_log_lines_are_json() -> None:
    record = logging.LogRecord("serving", logging.ERROR, "f", 1, "it %s", ("broke\n",), None)
    record.__dict__["fields"] = {"request_id": "r"}
    line = JsonLines().format(record)
    assert "\n" not in line
    assert {"level": "error", "event": "it broke\n", "request_id": "r"}.items() <= json.loads(line).items()
