"""Certificates of the control machine are checked before they are used."""

from __future__ import annotations

import datetime as dt
import subprocess
import types
from pathlib import Path

import pytest

from roles.certificate.filter_plugins import certificate_files
from roles.certificate.filter_plugins.certificate_files import certificate_problems


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A certificate for some names, and its key."""
    return make(tmp_path, "own", "-days", "9")


def make(directory: Path, name: str, *validity: str) -> tuple[str, str]:
    certificate, key = str(directory / f"{name}.pem"), str(directory / f"{name}.key")
    names = "subjectAltName=DNS:ml.test,DNS:*.wild.test,IP:10.0.0.7,IP:fd00::7"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command = [
        "openssl",
        "req",
        "-x509",
        *kind,
        "-keyout",
        key,
        "-out",
        certificate,
        "-subj",
        "/CN=own",
        "-addext",
        names,
    ]
    subprocess.run([*command, *validity], check=True, capture_output=True)
    return certificate, key


def test_a_good_pair(pair: tuple[str, str]) -> None:
    assert certificate_problems(["ML.test", "a.wild.test", "10.0.0.7", "fd00:0::7"], *pair) == []


@pytest.mark.parametrize("name", ["other.test", "wild.test", "a.b.wild.test", "10.0.0.8"])
def test_a_name_that_it_is_not_for(pair: tuple[str, str], name: str) -> None:
    (problem,) = certificate_problems([name], *pair)
    assert f"is not for {name}" in problem


def test_the_key_of_another(pair: tuple[str, str], tmp_path: Path) -> None:
    (problem,) = certificate_problems(["ml.test"], pair[0], make(tmp_path, "other", "-days", "9")[1])
    assert "is not the key" in problem


def test_an_expired_one(pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Later:
            return cls.fromtimestamp(dt.datetime.now(tz).timestamp() + 10 * 86400, tz)

    monkeypatch.setattr(certificate_files, "dt", types.SimpleNamespace(datetime=Later, UTC=dt.UTC))
    (problem,) = certificate_problems(["ml.test"], *pair)
    assert "is valid from" in problem


def test_files_that_are_none(pair: tuple[str, str], tmp_path: Path) -> None:
    assert "cannot be read" in certificate_problems([], str(tmp_path / "none"), pair[1])[0]
    assert "no certificate in PEM" in certificate_problems([], pair[1], pair[1])[0]
    assert "no private key in PEM" in certificate_problems([], pair[0], pair[0])[0]
