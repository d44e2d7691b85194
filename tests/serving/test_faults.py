"""A real model that raises, hangs or takes its process with it, behind a live server."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pace import slowness, too_late
from sklearn.svm import SVC

from bench.live import Connection, Live, Reply, request

from .trained import columns, data, save

# As many times longer as this machine is slower than an idle one; the model sleeps for a time between the two.
SLOW = slowness()
TIMEOUT, SLEEP, HANG_TIMEOUT = 1.0 * SLOW, 2.0 * SLOW, 3.5 * SLOW
# What may be added, and more on a machine that has become slower since (pace.too_late).
SLACK = 4.0
MEGABYTE = 1 << 20


def told(word: str) -> dict[str, Any]:
    return {"dataframe_records": [{"word": word}]}


def say(connection: Connection, word: str) -> Reply:
    return connection.post(told(word))


@pytest.fixture(scope="module")
def live(trouble: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    log = tmp_path_factory.mktemp("log") / "log"
    limits = {"timeout": TIMEOUT, "hang_timeout": HANG_TIMEOUT}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLEEP", str(SLEEP))
        server = Live(log, model_path=trouble, name="trouble", workers=2, **limits)
    with server:
        yield server


@pytest.fixture
def both(live: Live) -> Iterator[list[Connection]]:
    """A connection to each of the two workers, which are both well."""
    found: dict[bytes, Connection] = {}
    began = time.monotonic()
    with ExitStack() as stack:
        while len(found) < 2:
            assert not too_late(began, 30), live.log.read_text()
            connection = stack.enter_context(live.connect())
            reply = say(connection, "pid")
            if reply.status == 200:
                found.setdefault(reply.body, connection)
            else:
                time.sleep(0.1)
        yield list(found.values())


def restarts(live: Live) -> float:
    with live.connect() as connection:
        text = connection.get("/metrics").body.decode()
    return sum(
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("serving_worker_restarts_total")
    )


@pytest.mark.parametrize("word", ["fail", "quit", "hog", "object"])
def test_a_model_that_fails_is_a_500_that_tells_nothing_and_the_worker_lives(
    live: Live, both: list[Connection], word: str
) -> None:
    before, memory = restarts(live), live.memory()
    pid = say(both[0], "pid").body
    for path, body in (("/invocations", told(word)), ("/predict", {"word": word})):
        reply = both[0].post(body, path, x_request_id="r-1")
        assert reply.status == 500
        assert reply.json()["error_code"] == "INTERNAL_ERROR"
        assert not any(part in reply.body for part in (b"secret", b"Traceback", b".py", b"RuntimeError"))
        assert say(both[0], "pid").body == pid
    assert restarts(live) == before
    assert live.memory() < memory + 100 * MEGABYTE
    assert any(event.get("level") == "error" and "exception" in event for event in live.events())


@pytest.mark.parametrize("word", ["exit", "killed"])
def test_a_model_that_takes_its_process_with_it_costs_its_own_worker_alone(
    live: Live, both: list[Connection], word: str
) -> None:
    before = restarts(live)
    both[0].send(request(json.dumps(told(word)).encode()))
    others = [say(both[1], "pid").status for _ in range(20)]
    assert others == [200] * 20
    assert both[0].read().status == 0
    began = time.monotonic()
    while restarts(live) == before or len(live.workers()) < 2:
        assert not too_late(began, 20)
        time.sleep(0.05)


def test_a_model_that_is_slow_is_late_for_one_and_then_serves_again(live: Live, both: list[Connection]) -> None:
    before = restarts(live)
    pid = say(both[0], "pid").body
    began = time.monotonic()
    both[0].send(request(json.dumps(told("sleep")).encode()))
    # What waits behind it is late as well, and what comes after that is told at once.
    with live.connect() as first:
        assert say(both[1], "pid").status == 200
        reply = both[0].read()
        assert (reply.status, reply.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
        assert time.monotonic() - began > TIMEOUT - 0.1
        assert not too_late(began, TIMEOUT + SLACK)
        assert first.get("/v2/health/live").status == 200
    # On a busy machine the model may be left so late that one more request waited in vain: 504, then 503 again.
    while (reply := say(both[0], "pid")).status in (503, 504):
        if reply.status == 503:
            assert reply.headers["retry-after"] == "5"
        assert not too_late(began, HANG_TIMEOUT + SLACK)
        time.sleep(0.05)
    assert reply.body == pid
    assert restarts(live) == before


@pytest.mark.parametrize("word", ["hang", "spin", "freeze"])
def test_a_model_that_never_comes_back_costs_its_worker_which_is_started_anew(
    live: Live, both: list[Connection], word: str
) -> None:
    before, memory = restarts(live), live.memory()
    pids = live.workers()
    began = time.monotonic()
    both[0].send(request(json.dumps(told(word)).encode()))
    # The worker is gone after HANG_TIMEOUT; until then the other one answers as if nothing had happened.
    while len(live.workers()) == 2 and live.workers() == pids:
        assert say(both[1], "pid").status == 200
        assert not too_late(began, HANG_TIMEOUT + SLACK)
        time.sleep(0.02)
    answers = both[0].read()
    assert answers.status == (0 if word == "freeze" else 504)
    while restarts(live) == before or len(live.workers()) < 2:
        assert not too_late(began, HANG_TIMEOUT + SLACK + 10)
        time.sleep(0.05)
    assert [event["event"] for event in live.events()].count("a worker hangs") >= 1
    assert live.memory() < memory + 100 * MEGABYTE


def test_hundreds_that_wait_for_a_model_that_hangs_are_answered_in_time(trouble: Path, tmp_path: Path) -> None:
    """One worker, so nobody kills it: it answers all the same, with 504, 429 and 503."""
    with ExitStack() as stack:
        alone = stack.enter_context(
            Live(tmp_path / "log", model_path=trouble, timeout=TIMEOUT, hang_timeout=HANG_TIMEOUT, queue=100)
        )
        connections = stack.enter_context(alone.connections(200))
        assert say(connections[0], "pid").status == 200
        memory = alone.memory()
        began = time.monotonic()
        connections[0].send(request(json.dumps(told("hang")).encode()))
        time.sleep(TIMEOUT / 10)
        for connection in connections[1:]:
            connection.send(request(json.dumps(told("pid")).encode()))
        statuses = [connection.read().status for connection in connections]
        assert not too_late(began, TIMEOUT + SLACK)
        assert sorted(set(statuses)) == [429, 504]
        assert statuses.count(504) == 101
        assert say(connections[1], "pid").status == 503
        while connections[1].get("/health").status == 200:
            assert not too_late(began, HANG_TIMEOUT + SLACK)
            time.sleep(0.05)
        assert connections[1].get("/v2/health/live").status == 200
        assert alone.memory() < memory + 50 * MEGABYTE
        # It still ends when it is told to.
        alone.process.send_signal(signal.SIGTERM)
        assert alone.process.wait(30) == 0


def test_the_others_of_a_batch_get_their_answers(tmp_path: Path) -> None:
    """An estimator without a kernel: requests that wait are joined, and one of them has a number that it refuses."""
    features, labels = data(2)
    path = save(tmp_path / "m", SVC().fit(features, labels), columns(["double"] * 5))
    with Live(tmp_path / "log", model_path=path) as server, server.connections(32) as connections:
        good = {"inputs": [{f"c{place}": 1.0 for place in range(5)}]}
        bad = {"inputs": [{**good["inputs"][0], "c0": None}]}
        expected = connections[0].post(good).body
        for connection, body in zip(connections, [bad, *[good] * 30, bad], strict=True):
            connection.send(request(json.dumps(body).encode()))
        replies = [connection.read() for connection in connections]
        assert [reply.status for reply in replies] == [422, *[200] * 30, 422]
        assert {reply.body for reply in replies[1:-1]} == {expected}
        batches = connections[0].get("/metrics").body.decode()
        calls = next(
            float(line.split()[-1]) for line in batches.splitlines() if line.startswith("serving_batch_requests_count")
        )
        assert calls < 33


def test_sigterm_under_load_loses_no_answer(trouble: Path, tmp_path: Path) -> None:
    """Every prediction that was made is received, and nobody gets half an answer or an error."""
    tally = tmp_path / "tally"
    os.environ["TALLY"] = str(tally)
    try:
        server = Live(tmp_path / "log", model_path=trouble, workers=2)
    finally:
        del os.environ["TALLY"]
    statuses: list[int] = []

    def ask() -> None:
        try:
            with server.connect() as connection:
                while True:
                    connection.send(request(json.dumps(told("nap")).encode()))
                    reply = connection.read()
                    if not reply.status:
                        return
                    statuses.append(reply.status)
                    if reply.headers.get("connection") == "close":
                        return
        except ConnectionRefusedError:
            return

    with server:
        assert server.port
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        # Until some were answered, however long that takes here.
        while len(statuses) <= 20:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(30)
        assert server.process.wait(30) == 0
    assert set(statuses) == {200}
    assert len(statuses) == len(tally.read_text()) > 20
