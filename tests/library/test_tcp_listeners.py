"""The module tcp_listeners: a table as Linux writes it, and a socket of this very process."""

import os
import socket
from pathlib import Path

import pytest

from library import tcp_listeners as module

HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"


def row(address: str, state: str = "0A", inode: str = "77") -> str:
    return f"   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0 0 10 0"


def fake_proc(tmp_path: Path, *rows: str) -> Path:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text("\n".join([HEADING, *rows]) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("00000000000000000000000000000000", "::"),
        ("00000000000000000000000001000000", "::1"),
    ],
)
def test_addresses_are_read_in_the_byte_order_of_the_kernel(text: str, address: str) -> None:
    assert module.parse_address(text) == address


def test_only_listening_sockets_count() -> None:
    table = [HEADING, row("0100007F:1388"), row("0100007F:1F40", state="01")]
    assert list(module.parse_listeners(table)) == [module.Listener("127.0.0.1", 5000, "77")]


@pytest.mark.parametrize(
    ("listening", "wanted", "blocks"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("10.0.0.1", "0.0.0.0", True),
        ("10.0.0.1", "127.0.0.1", False),
    ],
)
def test_what_stands_in_the_way_of_an_address(listening: str, wanted: str, blocks: bool) -> None:
    assert module.in_the_way(module.Listener(listening, 5000, "1"), wanted, [5000]) is blocks


def test_the_process_behind_a_port_is_named(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path, row("0100007F:1388"))
    (proc / "41/fd").mkdir(parents=True)
    (proc / "41/fd/3").symlink_to("socket:[77]")
    (proc / "41/cmdline").write_bytes(b"/usr/bin/thing\0--port\x005000\0")
    (found,) = module.find("127.0.0.1", [5000, 8000], proc)
    assert found["pid"] == 41
    assert found["description"] == "Port 5000 on 127.0.0.1 is taken by process 41 (/usr/bin/thing --port 5000)"


def test_a_process_of_another_user_is_not_guessed(tmp_path: Path) -> None:
    (found,) = module.find("127.0.0.1", [5000], fake_proc(tmp_path, row("00000000:1388")))
    assert found["pid"] == 0
    assert "sudo ss -ltnp" in str(found["description"])


def test_a_real_socket_of_this_process() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        (found,) = module.find("127.0.0.1", [port])
        assert found["pid"] == os.getpid()
    assert module.find("127.0.0.1", [port]) == []
