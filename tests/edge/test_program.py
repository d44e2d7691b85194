"""The program in the edge's container that keeps HAProxy and passes its log on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pace import too_late

from roles.edge.files import edge

ROOT = Path(__file__).parents[2]
# Says what it was told by signals, like a server that ends its transfers first.
SERVER = """
import os, signal, sys, time
# Not print: a signal may come while it writes, and it does not let itself be called again then.
def end(number, frame):
    os.write(1, b"draining %d\\n" % number)
    time.sleep(0.3)
    os.write(1, b"drained\\n")
    sys.exit(3)
signal.signal(signal.SIGUSR1, end)
os.write(1, b"started\\n")
while True:
    time.sleep(1)
"""


def test_all_lines_are_passed_on_whole_and_in_order(tmp_path: Path) -> None:
    # More than the pipe holds, so that it takes several pieces.
    text = "".join(f"line {number}\n" for number in range(20_000)).encode()
    source, lines = os.pipe()

    def write() -> None:
        with os.fdopen(lines, "wb") as log:
            log.write(text)

    writer = threading.Thread(target=write)
    writer.start()
    with (tmp_path / "out").open("wb") as out:
        edge.pass_on(source, out.fileno())
    writer.join()
    assert (tmp_path / "out").read_bytes() == text


def test_a_stop_reaches_the_server_and_its_last_words_the_log(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "config").mkdir()
    program = f"""
import sys
from pathlib import Path
from roles.edge.files import edge
place = Path({str(tmp_path)!r})
edge.HAPROXY = [sys.executable, str(place / "server.py")]
edge.CONFIG, edge.LOADED, edge.STATE = place / "config", place / "loaded", place / "state"
sys.exit(edge.run())
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "started\n"
        child.send_signal(signal.SIGUSR1)
        began = time.monotonic()
        rest = child.stdout.read()
    assert rest == f"draining {signal.SIGUSR1.value}\ndrained\n"
    assert child.returncode == 3
    assert not too_late(began, 5)


def test_the_watch_survives_what_is_refused_and_asks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[BaseException | None] = [ValueError("odd"), SystemExit("refused"), OSError("away"), None]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 5:
            raise KeyboardInterrupt

    def reload() -> None:
        if outcome := outcomes.pop(0):
            raise outcome

    # Of the program alone: threads of other tests sleep too.
    monkeypatch.setattr(edge, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(edge, "reload", reload)
    monkeypatch.setattr(edge, "digest", lambda *_: "new")
    with pytest.raises(KeyboardInterrupt):
        edge.watch("old")
    assert outcomes == []
    assert pauses == [edge.WATCH_PAUSE * factor for factor in (1, 2, 4, 8, 1, 1)]
