"""Filter `certificate_problems`: what is wrong with a certificate and key of the control machine, before they are used."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

SPKI = serialization.PublicFormat.SubjectPublicKeyInfo
DER = serialization.Encoding.DER


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether the certificate is for a host name or address; a wildcard stands for one label."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(name) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        wanted = name.lower()
    known = [entry.lower() for entry in names.get_values_for_type(x509.DNSName)]
    return wanted in known or "*." + wanted.partition(".")[2] in known


def certificate_problems(names: list[str], certificate_file: str, key_file: str) -> list[str]:
    """Return a sentence for everything that is wrong."""
    texts: list[bytes] = []
    for path in (certificate_file, key_file):
        try:
            texts.append(Path(path).expanduser().read_bytes())
        except OSError as error:
            return [f"{path!r} cannot be read: {error.strerror}"]
    try:
        certificate = x509.load_pem_x509_certificates(texts[0])[0]
    except ValueError:
        return [f"{certificate_file} has no certificate in PEM"]
    try:
        key = serialization.load_pem_private_key(texts[1], None)
    except (ValueError, TypeError):
        return [f"{key_file} has no private key in PEM, or one with a passphrase"]
    problems = []
    if key.public_key().public_bytes(DER, SPKI) != certificate.public_key().public_bytes(DER, SPKI):
        problems.append(f"{key_file} is not the key of the first certificate in {certificate_file}")
    now = dt.datetime.now(dt.UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        problems.append(
            f"{certificate_file} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )
    problems += [
        f"{certificate_file} is not for {name}, a name in platform_public_names"
        for name in names
        if not covers(certificate, name)
    ]
    return problems


class FilterModule:
    """Filters of this role."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Map filter names to functions, as Ansible asks for it."""
        return {"certificate_problems": certificate_problems}
