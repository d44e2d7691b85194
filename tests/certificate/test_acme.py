"""The program that gets certificates from an ACME server, with a program in certbot's place."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roles.certificate.files import acme

SETTINGS: dict[str, Any] = {
    "directory": "https://acme.test/directory",
    "email": "",
    "profile": "",
    "ca": "",
    "domains": ["ml.test"],
    "addresses": ["10.0.0.7"],
    "check_seconds": 3600,
}
# Issues what its call asks for: a certificate that names its own arguments.
CERTBOT = """#!/bin/sh
for word in "$@"; do case $word in --cert-name=*) name=${word#*=};; --config-dir=*) config=${word#*=};; esac; done
mkdir -p "$config/live/$name"
printf 'chain %s\\n' "$name" > "$config/live/$name/fullchain.pem"
printf 'key\\n' > "$config/live/$name/privkey.pem"
"""


class EndOfTestError(Exception):
    """Ends a program that never ends."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "certificates").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "certbot").write_text(CERTBOT)
    (tmp_path / "certbot").chmod(0o755)
    monkeypatch.setattr(acme, "SETTINGS", tmp_path / "acme.json")
    monkeypatch.setattr(acme, "STATE", tmp_path / "state")
    monkeypatch.setattr(acme, "STATUS", tmp_path / "state/status.json")
    monkeypatch.setattr(acme, "CERTIFICATE", tmp_path / "certificates/edge.pem")
    monkeypatch.setattr(acme, "CERTBOT", str(tmp_path / "certbot"))
    acme.SETTINGS.write_text(json.dumps(SETTINGS))
    return tmp_path


def rounds(monkeypatch: pytest.MonkeyPatch, number: int) -> list[float]:
    """Seconds that the program sleeps in its first rounds; it is ended then."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == number:
            raise EndOfTestError

    monkeypatch.setattr(acme.signal, "signal", lambda *_: None)  # type: ignore[attr-defined]
    # Of the program alone: threads of other tests sleep too.
    clock = SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(acme, "time", clock)
    with pytest.raises(EndOfTestError):
        acme.run()
    return slept


def test_names_and_addresses_are_asked_for() -> None:
    asked = acme.command({**SETTINGS, "profile": "shortlived", "email": "a@ml.test"})
    assert {"--domain=ml.test", "--ip-address=10.0.0.7", "--preferred-profile=shortlived", "--email=a@ml.test"} <= set(
        asked
    )
    assert "--register-unsafely-without-email" in acme.command(SETTINGS)


def test_a_certificate_is_handed_over_whole_and_to_its_reader_alone(place: Path) -> None:
    assert acme.attempt(SETTINGS) == ""
    delivered = place / "certificates/edge.pem"
    assert delivered.read_text() == f"chain {acme.lineage(SETTINGS)}\nkey\n"
    assert stat.S_IMODE(delivered.stat().st_mode) == 0o400
    before = delivered.stat().st_ino
    assert acme.attempt(SETTINGS) == ""
    assert delivered.stat().st_ino == before, "the same one is not handed over again"
    assert [path.name for path in delivered.parent.iterdir()] == ["edge.pem"]


def test_another_server_means_another_certificate(place: Path) -> None:
    acme.attempt(SETTINGS)
    other = {**SETTINGS, "directory": "https://staging.acme.test/directory"}
    acme.attempt(other)
    assert acme.lineage(other) in (place / "certificates/edge.pem").read_text()
    assert acme.lineage(other) != acme.lineage(SETTINGS)


def test_a_failure_is_tried_again_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    acme.attempt(SETTINGS)
    served = acme.CERTIFICATE.read_text()
    Path(acme.CERTBOT).write_text("#!/bin/sh\necho urn:ietf:params:acme:error:dns >&2\nexit 1\n")
    assert rounds(monkeypatch, 4) == [15, 30, 60, 120]
    assert acme.CERTIFICATE.read_text() == served, "the old one serves on"
    assert "error:dns" in json.loads(acme.STATUS.read_text())["problem"]


def test_a_success_is_looked_after_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rounds(monkeypatch, 2) == [3600, 3600]
    acme.wait("1")


def test_nobody_is_content_with_the_answer_of_an_earlier_run(monkeypatch: pytest.MonkeyPatch) -> None:
    acme.STATUS.write_text(json.dumps({"problem": "", "next": 0, "settings": SETTINGS}))
    asked: list[bool] = []

    def attempt(_: dict[str, Any]) -> str:
        asked.append(acme.STATUS.exists())
        return ""

    monkeypatch.setattr(acme, "attempt", attempt)
    rounds(monkeypatch, 1)
    assert asked == [False]


def test_whoever_waits_in_vain_is_told_why() -> None:
    with pytest.raises(SystemExit, match="certbot has not answered yet"):
        acme.wait("0.1")
    acme.STATUS.write_text(json.dumps({"problem": "the name leads nowhere", "next": 0, "settings": SETTINGS}))
    with pytest.raises(SystemExit, match="the name leads nowhere"):
        acme.wait("0.1")
    with pytest.raises(SystemExit, match="no attempt for too long"):
        acme.health()
