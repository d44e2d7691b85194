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
from tests.edge.conftest import Render

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
    (tmp_path / "config" / "haproxy.cfg").touch()
    program = f"""
import sys
from pathlib import Path
from roles.edge.files import edge
from tests.edge.conftest import Render
place = Path({str(tmp_path)!r})
edge.HAPROXY = [sys.executable, str(place / "server.py")]
edge.CONFIG, edge.LOADED, edge.STATE = place / "config", place / "loaded", place / "state"
edge.CONFINED = place / "haproxy.cfg"
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


# As the kernel tells it of a container that is published, on the platform's network and on two of models.
ROUTES = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 10.117.1.0
        /24 link UNICAST
Local:
  +-- 10.117.1.0/24 2 0 2
     |-- 10.117.1.4
        /32 host LOCAL
     |-- 10.117.1.255
        /32 link BROADCAST
     |-- 10.118.1.3
        /32 host LOCAL
     |-- 10.118.250.3
        /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 172.18.0.3
        /32 host LOCAL
"""
CONFIG = "frontend a\n  bind :5000 tcp-ut 30s\n  bind :443 ssl crt x\npeers p\n  peer edge 127.0.0.1:8403\n  server s tracking:5000\n"


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The container's networks, as a file that a test may change."""
    routes = tmp_path / "fib_trie"
    routes.write_text(ROUTES)
    monkeypatch.setattr(edge, "ROUTES", routes)
    monkeypatch.setattr(edge, "POOL", "10.118.0.0/16")
    return routes


@pytest.mark.usefixtures("networks")
def test_no_port_is_open_to_models() -> None:
    assert edge.addresses() == ["10.117.1.4", "127.0.0.1", "172.18.0.3"]
    lines = edge.confined(CONFIG, edge.addresses()).splitlines()
    assert lines[1] == "  bind 10.117.1.4:5000,127.0.0.1:5000,172.18.0.3:5000 tcp-ut 30s"
    assert lines[2] == "  bind 10.117.1.4:443,127.0.0.1:443,172.18.0.3:443 ssl crt x"
    assert lines[3:] == CONFIG.splitlines()[3:]


def test_an_address_that_comes_is_noticed_and_one_of_a_model_is_not(networks: Path) -> None:
    before = edge.watched()
    networks.write_text(ROUTES.replace("10.118.250.3", "10.118.9.9"))
    assert edge.watched() == before
    networks.write_text(ROUTES.replace("172.18.0.3", "172.18.0.4"))
    assert edge.watched() != before


def test_without_inner_networks_all_addresses_are_listened_on() -> None:
    assert edge.addresses() == []
    assert edge.confined(CONFIG, []) == CONFIG


def test_no_bind_line_escapes(render: Render) -> None:
    config = render(
        "haproxy.cfg.j2", platform_public_addresses=["0.0.0.0"], platform_public_names=["x"], edge_tls="files"
    )
    confined = edge.confined(config, ["127.0.0.1"])
    binds = [line.split()[1] for line in confined.splitlines() if line.lstrip().startswith("bind ")]
    assert len(binds) >= 5
    assert all(bind.startswith("127.0.0.1:") for bind in binds)
