"""The program that makes the platform's own authority and certificates."""

from __future__ import annotations

import datetime as dt
import ipaddress
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from roles.certificate.files import selfsigned

NAMES = ["ML.test", "10.0.0.7", "fd00::7"]
Call = Callable[..., str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "certificates").mkdir()
    monkeypatch.setattr(selfsigned, "STATE", tmp_path / "state")
    monkeypatch.setattr(selfsigned, "CERTIFICATE", tmp_path / "certificates/edge.pem")
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run the program; gives its one word."""

    def run(mode: str = "always", names: list[str] = NAMES) -> str:
        monkeypatch.setattr(sys, "argv", ["selfsigned.py", mode, *names])
        selfsigned.main()
        return capfd.readouterr().out.strip()

    return run


def chain() -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(selfsigned.CERTIFICATE.read_bytes())


def authority() -> bytes:
    return (selfsigned.STATE / "ca.pem").read_bytes()


def test_a_client_that_trusts_the_authority_accepts_every_name(call: Call) -> None:
    assert call() == "made"
    leaf, issuer = chain()
    store = Store(x509.load_pem_x509_certificates(authority()))
    subjects: list[x509.GeneralName] = [
        x509.DNSName("ml.test"),
        *(x509.IPAddress(ipaddress.ip_address(name)) for name in NAMES[1:]),
    ]
    for subject in subjects:
        PolicyBuilder().store(store).build_server_verifier(subject).verify(leaf, [issuer])  # type: ignore[arg-type]
    key = load_pem_private_key(selfsigned.CERTIFICATE.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == leaf.public_key()


def test_keys_are_their_owners_alone(call: Call, place: Path) -> None:
    call()
    files = [path for path in place.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"ca.pem", "ca.key", "issued.json", "edge.pem"}
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files} == {0}


def test_the_same_names_again_change_nothing(call: Call) -> None:
    call()
    before = selfsigned.CERTIFICATE.read_bytes()
    assert call() == "unchanged"
    assert selfsigned.CERTIFICATE.read_bytes() == before


def test_other_names_are_signed_by_the_authority_that_clients_know(call: Call) -> None:
    call()
    known = authority()
    assert call(names=["other.test"]) == "made"
    names = chain()[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert (names.get_values_for_type(x509.DNSName), authority()) == (["other.test"], known)


def test_a_certificate_that_somebody_replaced_is_not_taken_for_its_own(call: Call) -> None:
    call()
    own = selfsigned.CERTIFICATE.read_bytes()
    selfsigned.CERTIFICATE.chmod(0o600)
    selfsigned.CERTIFICATE.write_bytes(own + b"\n")
    assert call() == "made"


def test_once_leaves_whatever_is_there(call: Call) -> None:
    selfsigned.CERTIFICATE.write_text("of an ACME server")
    assert call("once") == "unchanged"
    selfsigned.CERTIFICATE.unlink()
    assert call("once") == "made"


def test_near_its_end_it_is_made_anew(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call()
    monkeypatch.setattr(selfsigned, "RENEW_BEFORE_SECONDS", (selfsigned.DAYS - 1) * 86400)
    assert call() == "unchanged"
    monkeypatch.setattr(selfsigned, "RENEW_BEFORE_SECONDS", (selfsigned.DAYS + 1) * 86400)
    assert call() == "made"


def test_an_authority_does_not_end_before_what_it_signs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfsigned, "AUTHORITY_DAYS", selfsigned.DAYS - 1)
    call()
    first = authority()
    monkeypatch.setattr(selfsigned, "AUTHORITY_DAYS", 3650)
    call(names=["other.test"])
    assert authority() != first
    leaf, issuer = chain()
    assert leaf.not_valid_after_utc <= issuer.not_valid_after_utc
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < dt.timedelta(days=398)
