"""The program in the edge's container that keeps HAProxy and passes its log on."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "roles/edge/files/edge.py"
# Says what it was told by signals, like a server that ends its transfers first.
SERVER = """
import signal, sys, time
def end(number, frame):
    print("draining", number, flush=True)
    time.sleep(0.3)
    print("drained", flush=True)
    sys.exit(3)
signal.signal(signal.SIGUSR1, end)
print("started", flush=True)
while True:
    time.sleep(1)
"""


@pytest.fixture
def edge() -> ModuleType:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("edge_program", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_lines_are_passed_on_whole_and_in_order(edge: ModuleType, tmp_path: Path) -> None:
    source, lines = os.pipe()
    count = 2000
    with (tmp_path / "out").open("wb") as out:
        for number in range(count):
            os.write(lines, f"line {number}\n".encode())
        os.close(lines)
        edge.pass_on(source, out.fileno())
    assert (tmp_path / "out").read_text() == "".join(f"line {number}\n" for number in range(count))


def test_a_stop_reaches_the_server_and_its_last_words_the_log(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "config").mkdir()
    program = f"""
import runpy, sys
from pathlib import Path
edge = runpy.run_path({str(PROGRAM)!r}, run_name="edge_program")
places = {{"HAPROXY": [sys.executable, {str(tmp_path / "server.py")!r}], "CONFIG": Path({str(tmp_path / "config")!r}),
           "LOADED": Path({str(tmp_path / "loaded")!r}), "STATE": Path({str(tmp_path / "state")!r})}}
edge["run"].__globals__.update(places)
sys.exit(edge["run"]())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "started\n"
        child.send_signal(signal.SIGUSR1)
        began = time.monotonic()
        rest = child.stdout.read()
    assert rest == f"draining {signal.SIGUSR1.value}\ndrained\n"
    assert child.returncode == 3
    assert time.monotonic() - began < 5
