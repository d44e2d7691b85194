import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from serving.logs import JsonLines
from serving.metrics import Metrics
from serving.server import Parent

ROOT = Path(__file__).parents[2]
BODY = json.dumps({"dataframe_records": [{"a": 1.0, "b": 2.0}]}).encode()


class Live:
    """A started ``python -m serving``."""

    def __init__(self, log: Path, **settings: object) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SERVING_")}
        environment |= {f"SERVING_{key.upper()}": str(value) for key, value in settings.items()}
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, "-m", "serving"], cwd=ROOT, env=environment, stderr=file)
        self.port = 0

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_for(self, event: str, seconds: float = 120.0) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            text = self.log.read_text()
            for line in text.splitlines() if text.endswith("\n") else []:
                found: dict[str, Any] = json.loads(line)
                if found["event"] == event:
                    return found
            assert self.process.poll() is None or event == "stopped", text
            time.sleep(0.05)
        raise AssertionError(f"no event {event}: {self.log.read_text()}")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


def request(body: bytes, length: int | None = None, path: str = "/invocations") -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + body


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The next answer on the connection; status 0 where it is closed."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                break
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    if not head:
        return 0, b""
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < lengths[0]:
        body += connection.recv(65536)
    return int(head.split()[1]), body


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import mlflow
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    path = tmp_path_factory.mktemp("model") / "m"
    rows = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 3.0, 2.0]})
    fitted = LogisticRegression().fit(rows, [0, 0, 1, 1])
    mlflow.sklearn.save_model(
        fitted,
        path,
        signature=infer_signature(rows, fitted.predict(rows)),
        input_example=rows[:1],
        pip_requirements=["scikit-learn"],
    )
    return path


@pytest.fixture(scope="module")
def live(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    log = tmp_path_factory.mktemp("log") / "log"
    server = Live(log, model_path=model, host="127.0.0.1", port=0, name="tiny", version=1, workers=2, body_timeout=1,
                  max_body=1_000_000)  # fmt: skip
    try:
        server.port = server.wait_for("ready")["port"]
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_mlflows_own_client(live: Live) -> None:
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient
    from mlflow.version import VERSION

    client = ScoringServerClient("127.0.0.1", live.port)
    client.wait_server_ready(timeout=10)
    assert client.get_version() == VERSION
    answered = client.invoke(pd.DataFrame({"a": [0.0, 3.0], "b": [1.0, 2.0]}))
    assert answered.get_predictions()[0].tolist() == [0, 1]


def test_paths_of_a_real_model(live: Live) -> None:
    for path, body, key in (
        ("/predict", {"a": 3, "b": 2}, "probabilities"),
        (
            "/v2/models/tiny/infer",
            {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [3, 2]}]},
            "outputs",
        ),
    ):
        with live.connect() as connection:
            connection.sendall(request(json.dumps(body).encode(), path=path))
            status, answered = answer(connection)
            assert status == 200
            assert key in json.loads(answered)
    for path in ("/metadata", "/openapi.json", "/docs", "/page.js", "/page.css", "/metrics", "/v2/models/tiny"):
        with live.connect() as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            assert answer(connection)[0] == 200, path


def test_a_body_that_never_ends_is_cut_off(live: Live) -> None:
    with live.connect() as connection:
        connection.sendall(request(BODY[:5], len(BODY)))
        assert answer(connection)[0] == 408
        assert connection.recv(10) == b""


def test_a_connection_without_a_request_is_closed(live: Live) -> None:
    with live.connect() as connection:
        connection.sendall(b"POST /invocations HTTP/1.1\r\nhost:")
        assert connection.recv(10) == b""


def test_a_body_that_is_too_large_is_refused_and_the_client_reads_the_answer(live: Live) -> None:
    with live.connect() as connection:
        connection.sendall(request(b"x" * 3_000_000))
        assert answer(connection)[0] == 413


def test_a_worker_that_is_killed_is_replaced(live: Live) -> None:
    children = Path(f"/proc/{live.process.pid}/task/{live.process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[0]), signal.SIGKILL)
    died = live.wait_for("a worker died", 20)
    assert (died["worker"], died["exit_code"]) == (int(children[0]), -9)
    end = time.monotonic() + 20
    while len(Path(f"/proc/{live.process.pid}/task/{live.process.pid}/children").read_text().split()) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    for _ in range(10):
        with live.connect() as connection:
            connection.sendall(request(BODY))
            assert answer(connection) == (200, b'{"predictions": [1]}')


def test_sigterm_finishes_what_is_in_flight_and_refuses_the_rest(live: Live) -> None:
    # The last test: the server is gone after it.
    with live.connect() as busy, live.connect() as idle:
        idle.sendall(request(BODY))
        assert answer(idle)[0] == 200
        busy.sendall(request(BODY[:5], len(BODY)))
        time.sleep(0.2)
        live.process.send_signal(signal.SIGTERM)
        # An idle connection is closed as soon as the signal is seen.
        assert idle.recv(10) == b""
        busy.sendall(BODY[5:])
        assert answer(busy)[0] == 200
        assert busy.recv(10) == b""
    assert live.process.wait(30) == 0
    assert live.wait_for("stopped", 1)["exit_code"] == 0
    with pytest.raises(ConnectionRefusedError):
        live.connect()


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

        parent = Parent(1, die, metrics)

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
