"""The benchmark of the prediction API without servers: what is asked, what is read, what is made of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import __main__ as program
from bench.machine import Failure
from bench.serving import client, command, environments, forms, page, picture, process, targets, wrk
from bench.serving.peer import FLOOR, OURS, PEERS, RIVALS, STOCK, Start
from bench.serving.plan import FOOTPRINT, GROUPS, IRIS_32, PARTS, Group, Point, Settings, estimate, groups
from bench.serving.samples import CLOCK, FAILURE, LOAD, WEIGHT, Sample, Samples, read, spread

NAMES = ["sepal length (cm)", "petal width (cm)"]
ROWS = np.array([[5.1, 0.2], [6.0, 1.5]])


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """No samples yet."""
    return Samples(tmp_path / "samples.jsonl")


def load(samples: Samples, key: str, peer: str, rates: list[float], **others: float) -> None:
    for number, rate in enumerate(rates):
        values = {"rate": rate, "requests": rate, "failed": 0.0, "p50": 1.0, "p99": 2.0, **others}
        samples.add(Sample(LOAD, key, peer, number, values))


def reach(samples: Samples) -> None:
    """Everything just as it has to be."""
    for target in targets.SPEED:
        load(samples, target.point.key, STOCK, [100.0, 100.0], p99=100.0)
        load(samples, target.point.key, OURS, [100.0 * target.times] * 2, p99=4.9)
    load(samples, IRIS_32.key, FLOOR, [5880.0] * 2)
    samples.add(Sample(WEIGHT, FOOTPRINT, OURS, 0, {"one": 240e6, "further": 60e6, "ready": 4.0}))


# Bodies and answers


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("scoring", {"dataframe_split": {"columns": NAMES, "data": [[5.1, 0.2], [6.0, 1.5]]}}),
        (
            "inference",
            {"inputs": [{"name": "predict", "shape": [2, 2], "datatype": "FP32", "data": [5.1, 0.2, 6.0, 1.5]}]},
        ),
        ("arrays", {"inputs": [[5.1, 0.2], [6.0, 1.5]]}),
        ("records", {"rows": [{"sepal_length": 5.1, "petal_width": 0.2}, {"sepal_length": 6.0, "petal_width": 1.5}]}),
        ("mlflow_records", {"data": [dict(zip(NAMES, row, strict=True)) for row in ROWS.tolist()]}),
    ],
)
def test_every_form_carries_the_same_rows(form: str, body: Any) -> None:
    (encoded,) = forms.encode(forms.FORMS[form], NAMES, ROWS[np.newaxis])
    assert json.loads(encoded) == body
    assert b"\n" not in encoded, "wrk reads a body per line"


def test_a_tensor_has_no_column_names() -> None:
    assert forms.scoring([], ROWS) == {"inputs": ROWS.tolist()}
    assert forms.records([], ROWS) == {"rows": [{"image": [5.1, 0.2]}, {"image": [6.0, 1.5]}]}


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        ("scoring", {"predictions": [1, 2]}),
        ("inference", {"outputs": [{"name": "predict", "data": [1, 2]}]}),
        ("array", [1, 2]),
        ("arrays", {"predictions": [1, 2]}),
        ("mlflow_records", {"data": [{"prediction": 1}, {"prediction": 2}]}),
    ],
)
def test_classes_are_found_and_compared(form: str, answer: Any) -> None:
    text = json.dumps(answer).encode()
    assert forms.mistake(forms.FORMS[form], [1, 2], 200, text) is None
    assert "predicted [1, 2], the model itself [2, 1]" in str(forms.mistake(forms.FORMS[form], [2, 1], 200, text))
    assert str(forms.mistake(forms.FORMS[form], [1], 200, text)).startswith("predicted")
    assert str(forms.mistake(forms.FORMS[form], [1, 2], 503, text)).startswith("status 503")
    assert forms.mistake(forms.FORMS[form], [1, 2], 200, b'"nonsense"') is not None


def test_the_floor_need_only_answer() -> None:
    assert forms.mistake(forms.FORMS["anything"], [1], 200, b"") is None
    assert forms.mistake(forms.FORMS["anything"], [1], 500, b"") is not None


# The HTTP client

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_an_answer_is_complete_when_its_length_is_there() -> None:
    whole = HEAD + b"content-length: 4\r\n\r\nbody"
    assert client.complete(whole) == (200, b"body")
    assert all(client.complete(whole[:end]) is None for end in range(len(whole)))


def test_an_answer_in_chunks_is_put_together() -> None:
    whole = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n1;x=y\r\ny\r\n0\r\n\r\n"
    assert client.complete(whole) == (200, b"body")
    assert client.complete(whole[:-2]) is None


def test_an_answer_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a length nor chunks"):
        client.complete(b"HTTP/1.1 200 OK\r\n\r\n")


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 99, 0.0), ([3.0], 50, 3.0), ([4, 1, 3, 2], 50, 2), (list(range(1, 101)), 99, 99), ([1, 2], 99, 2)],
)
def test_percentiles(values: list[float], share: float, expected: float) -> None:
    assert client.percentile(values, share) == expected


async def served(work: Callable[[int], Any], answer: Callable[[bytes], bytes]) -> Any:
    """Do some work while a server answers each request, which has two bytes of body, at once."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(2)
                writer.write(answer(body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, client.HOST, 0)
    async with server:
        found = await work(server.sockets[0].getsockname()[1])
        # The server's ends of the connections close a turn after the client's.
        await asyncio.sleep(0.01)
        return found


def echo(body: bytes) -> bytes:
    status = b"503 Full" if body == b"13" else b"200 OK"
    return b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\n" + body


@pytest.mark.parametrize("connections", [1, 4, 64])
def test_answers_come_in_the_order_of_the_requests(connections: int) -> None:
    requests = [client.request("/", b"%02d" % number) for number in range(30)]
    answers = asyncio.run(served(lambda port: client.ask(port, requests, connections, 30), echo))
    assert answers == [(503 if number == 13 else 200, b"%02d" % number) for number in range(30)]


def test_a_server_that_hangs_up_has_given_no_answer() -> None:
    def hang_up(body: bytes) -> bytes:
        raise ConnectionError(body)

    requests = [client.request("/", b"00")]
    answers = asyncio.run(served(lambda port: client.ask(port, requests, 1, 30), hang_up))
    assert [status for status, _ in answers] == [0]


def test_the_clock_counts_requests_and_failures() -> None:
    requests = [client.request("/", b"00"), client.request("/", b"13")]
    found = asyncio.run(served(lambda port: client.by_the_clock(port, requests, 1000, 0.05, 4), echo))
    assert (found.sent, found.failed) == (50, 25)
    assert 0 < found.p50 <= found.p99


# wrk, processes


def test_what_wrk_prints_is_read() -> None:
    text = "Running 1s test\n  2 requests in 1.00s\nRESULT 1999.500000 2000 3 0.412000 7.250000\n"
    assert wrk.parse(text) == wrk.Load(1999.5, 2000, 3, 0.412, 7.25)
    with pytest.raises(Failure, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_the_script_prints_what_is_read() -> None:
    (form,) = re.findall(r'string\.format\("(RESULT[^"]*)\\n"', wrk.SCRIPT.read_text())
    line = form.replace("%f", "1.5").replace("%d", "7")
    assert wrk.parse(line) == wrk.Load(1.5, 7, 7, 1.5, 1.5)


def test_a_missing_wrk_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Failure, match="apt-get install wrk"):
        wrk.require()


def test_a_family_is_descendants_and_session() -> None:
    known = {10: (1, 10), 11: (10, 10), 12: (11, 12), 13: (1, 10), 14: (1, 1), 15: (14, 1)}
    assert process.family(known, 10) == {10, 11, 12, 13}


def test_memory_is_read_from_the_kernel() -> None:
    assert process.proportional("00400000-7ffd [rollup]\nRss:  100 kB\nPss:    42 kB\nPss_Anon:  7 kB\n") == 42 * 1024
    assert process.proportional("") == 0
    assert process.processes()


def test_the_last_error_of_a_log_is_told() -> None:
    log = 'Traceback:\n  File "x"\nRuntimeError: no loop\nINFO: stopping\n  done\n'
    assert process.last_words(log) == "RuntimeError: no loop"
    assert process.last_words("one\n  two\n") == "one two"


# The plan


def test_the_points_are_those_that_the_targets_name() -> None:
    measured = {point.key for group in GROUPS for point in group.points}
    assert {target.point.key for target in targets.SPEED} <= measured
    assert {Point("iris", 1, connections).key for connections in (1, 8, 32, 128)} <= measured


def test_every_peer_that_can_is_asked_everywhere_but_with_784_columns() -> None:
    for group in GROUPS:
        able = {name for name in RIVALS if group.model != "digits" or PEERS[name].tensors}
        assert {STOCK, OURS} <= set(group.peers)
        if group.model != "wide":
            assert able <= set(group.peers), group.name


def test_keys_lead_back_to_points() -> None:
    for group in groups(PARTS, everything=True):
        assert len(group.points) == 8
        for point in group.points:
            assert page.point(point.key) == point


def test_the_floor_is_only_compared_with_one_row() -> None:
    group = next(group for group in GROUPS if group.name == "iris")
    assert group.asked(FLOOR, Point("iris", 1, 8))
    assert not group.asked(FLOOR, Point("iris", 100, 8))
    assert not group.asked("nobody", Point("iris", 1, 8))


def test_the_estimate_counts_every_run() -> None:
    group = Group("x", "iris", (Point("iris", 1, 1), Point("iris", 1, 8)), (STOCK, OURS))
    assert group.cells() == 4
    assert estimate([group], [], Settings(rounds=3, seconds=8)) == 4 * 3 * 10 + 2 * 8
    short = estimate(GROUPS, PARTS, Settings(rounds=2, seconds=2))
    assert estimate(GROUPS, PARTS, Settings()) > 3 * short


def test_parts_are_chosen_by_name() -> None:
    assert [group.name for group in groups(["wide", "iris"], everything=False)] == ["iris", "wide"]
    assert groups(["open", "footprint"], everything=False) == []


# Samples


def test_a_spread_is_median_least_and_most() -> None:
    found = spread([3, 1, 2, 10])
    assert found is not None
    assert (found.median, found.least, found.most) == (2.5, 1, 10)
    assert spread([]) is None


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds(samples: Samples) -> None:
    load(samples, "iris/1/1", STOCK, [100, 200, 400])
    load(samples, "iris/1/1", OURS, [1000, 1200, 8000])
    found = samples.ratio("iris/1/1", OURS, STOCK)
    assert found is not None
    assert (found.median, found.least, found.most) == (6.0, 6.0, 20.0)
    assert samples.ratio("iris/1/8", OURS, STOCK) is None
    assert samples.ratio("iris/1/1", OURS, "mlserver") is None


def test_a_run_that_was_stopped_goes_on(samples: Samples) -> None:
    load(samples, "iris/1/1", STOCK, [100.0])
    samples.add(Sample(FAILURE, "iris", "bentoml", 0, note="no"))
    with samples.path.open("a") as file:
        file.write('{"kind": "load", "poi')
    again = Samples(samples.path, resume=True)
    assert again.all == samples.all
    assert again.has(LOAD, "iris/1/1", STOCK, 0)
    assert not again.has(LOAD, "iris/1/1", STOCK, 1)
    assert again.failures() == {("iris", "bentoml"): "no"}
    assert Samples(samples.path).all == []
    assert len(read(samples.path.with_suffix(".old").read_text())) == 2


# Targets and page


def test_targets_that_are_just_reached(samples: Samples) -> None:
    reach(samples)
    assert [figure.name for figure in targets.check(samples) if not figure.met] == []


@pytest.mark.parametrize("number", range(len(targets.SPEED)))
def test_a_target_that_is_just_missed(samples: Samples, number: int) -> None:
    reach(samples)
    target = targets.SPEED[number]
    load(samples, target.point.key, OURS, [100.0 * target.times - 1] * 2, p99=4.9)
    missed = [figure.name for figure in targets.check(samples) if not figure.met]
    assert missed == [f"{target.point.title}: requests per second"]


def test_failed_requests_miss_a_target(samples: Samples) -> None:
    load(samples, "iris/1/1", STOCK, [100.0])
    load(samples, "iris/1/1", OURS, [9000.0], failed=1.0)
    figure = targets.speed(samples, targets.SPEED[0])
    assert (figure.met, figure.measured) == (False, "90.0x (90.0 to 90.0), 1 failed")


def test_a_peer_that_is_ahead_is_named(samples: Samples) -> None:
    load(samples, "digits/1/1", OURS, [100.0])
    load(samples, "digits/1/1", "fastapi", [125.0])
    figure = targets.ahead(samples)
    assert (figure.met, figure.measured) == (False, "fastapi at digits/1/1: 0.80x")


def test_nothing_measured_reaches_nothing(samples: Samples) -> None:
    assert all(figure.met is False and figure.measured == targets.MISSING for figure in targets.check(samples))


def test_the_page_shows_rates_ratios_spreads_and_who_could_not_run(samples: Samples) -> None:
    reach(samples)
    load(samples, "iris/1/1", "litserve", [300.0, 500.0], failed=2.0)
    samples.add(Sample(FAILURE, "iris", "bentoml", 0, note="ended with 1: no such module"))
    samples.add(Sample(CLOCK, "open/50%", OURS, 0, {"rate": 160, "p50": 0.5, "p99": 0.9, "lag": 0.1, "failed": 0}))
    text = page.render(samples, "python -m bench serving", picture=True)
    assert f"### Targets: {len(targets.check(samples))} of {len(targets.check(samples))} reached" in text
    assert "| LitServe | 400 (4.0x)<br>300 to 500<br>**4 failed** |" in text
    assert "| BentoML | could not run, see below |" in text
    assert "- BentoML, iris: ended with 1: no such module" in text
    assert "| 50 % of the stock server's at c=32 | this engine | 160 | 0.50 | 0.90 | 0.90 to 0.90 | 0 | 0.10 |" in text
    assert "| this engine | 240 | 60 | 4.0 |" in text


def test_a_peer_that_could_not_be_installed_is_in_every_table(samples: Samples) -> None:
    load(samples, "iris/1/1", STOCK, [100.0])
    samples.add(Sample(FAILURE, page.INSTALLATION, "mlserver", 0, note="needs an older Python"))
    text = page.render(samples, "x", picture=False)
    assert "| MLServer (sklearn) | could not run, see below |" in text


def test_the_page_keeps_what_a_person_wrote() -> None:
    old = f"# Title\n\nBefore.\n\n{page.BEGIN}\nold\n{page.END}\n\nAfter.\n"
    assert page.merge(old, "new\\1\n") == f"# Title\n\nBefore.\n\n{page.BEGIN}\nnew\\1\n{page.END}\n\nAfter.\n"
    assert page.merge("# Title\n", "new") == f"# Title\n\n{page.BEGIN}\nnew\n{page.END}\n"


def test_the_picture_can_be_drawn_of_part_of_it(samples: Samples, tmp_path: Path) -> None:
    load(samples, "iris/1/1", STOCK, [100.0, 90.0])
    load(samples, "iris/1/1", OURS, [1000.0, 1100.0])
    picture.draw(samples, tmp_path / "images" / "x.png")
    assert (tmp_path / "images" / "x.png").read_bytes().startswith(b"\x89PNG")


# Peers


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_locked_and_hashed_requirements(name: str) -> None:
    text = PEERS[name].requirements.read_text()
    pinned = re.findall(r"^\S+==\S+.*$", text, re.MULTILINE)
    assert pinned
    assert all(line.endswith("\\") for line in pinned), "a hash follows"
    assert "://" not in text
    assert PEERS[name].requirements.with_suffix(".in").exists()


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_listens_where_it_is_told(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bench.serving.peer.CACHE", tmp_path)
    start = Start("iris", 21007, workers=2)
    told = [*PEERS[name].argv(start), *PEERS[name].environ(start).values()]
    assert "21007" in told
    assert "2" in told


def test_a_silent_start_differs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bench.serving.peer.CACHE", tmp_path)
    for name in RIVALS:
        loud, quiet = Start("iris", 1), Start("iris", 1, quiet=True)
        peer = PEERS[name]
        assert (peer.argv(loud), peer.environ(loud)) != (peer.argv(quiet), peer.environ(quiet)), name


def test_nothing_of_this_programs_environment_reaches_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert "MLFLOW_TRACKING_URI" not in PEERS[STOCK].environ(Start("iris", 1))


def test_what_cannot_be_installed_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "uv", lambda: "false")
    with pytest.raises(Failure, match="cannot be installed"):
        environments.install(tmp_path / "fastapi", PEERS["fastapi"].requirements, lambda _: None)
    assert not (tmp_path / "fastapi" / "stamp").exists()


# The command line


def options(*arguments: str) -> argparse.Namespace:
    return program.parser().parse_args(["serving", *arguments])


def test_the_defaults_are_those_of_the_documentation() -> None:
    found = options()
    assert (found.command, found.rounds, found.seconds, found.only) == ("serving", 5, 10.0, list(PARTS))
    assert found.page == page.PAGE


def test_an_estimate_measures_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(program, "alone", lambda: pytest.fail("measures"))
    monkeypatch.setattr("sys.argv", ["bench", "serving", "--estimate", "--rounds", "1", "--seconds", "1"])
    assert program.main() == 0
    assert re.search(r"About \d+ minutes once everything is installed; rounds: 1", capsys.readouterr().out)


def test_a_server_that_manages_nothing_has_no_ratio(samples: Samples) -> None:
    load(samples, "iris/1/1", STOCK, [0.0])
    load(samples, "iris/1/1", OURS, [9.0])
    assert samples.ratio("iris/1/1", OURS, STOCK) is None


def test_a_try_leaves_the_page_alone(samples: Samples, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "TRIED", tmp_path / "speed.md")
    written: list[Path] = []
    monkeypatch.setattr(page, "write", lambda _, goal: written.append(goal))
    monkeypatch.setattr(picture, "draw", lambda *_: None)
    reach(samples)
    for arguments, ended in ((["--quick"], True), ([], False), ([], True)):
        command.publish(samples, options(*arguments), "x", lambda _: None, ended=ended)
    assert written == [tmp_path / "speed.md"] * 3, "a part is missing"
    command.publish(samples, options("--page", str(tmp_path / "other.md")), "x", lambda _: None, ended=False)
    assert written[-1] == tmp_path / "other.md"
    for group in GROUPS:
        for point in group.points:
            load(samples, point.key, STOCK, [1.0])
    samples.add(Sample(CLOCK, "open/50%", OURS, 0, {}))
    command.publish(samples, options(), "x", lambda _: None, ended=True)
    assert written[-1] == page.PAGE
