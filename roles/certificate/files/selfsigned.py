"""Make a certificate authority of the platform's own once, and certificates of it when they are missing, near their end or for other names.

python3 selfsigned.py always|once NAME...     prints `made` or `unchanged`; `once` leaves whatever certificate is there

Keys are made where they are used: /state keeps the authority's, which no other container sees, /certificates the edge's.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

STATE = Path("/state")
CERTIFICATE = Path("/certificates/edge.pem")
AUTHORITY_DAYS = 3650
DAYS = 397
RENEW_BEFORE_SECONDS = 30 * 86400
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def openssl(*arguments: str) -> bool:
    """Run openssl and return whether it agreed; what it has to say goes to the log."""
    return subprocess.run(["openssl", *arguments], check=False, stdout=sys.stderr).returncode == 0  # noqa: S603, S607


def made(*arguments: str) -> None:
    """Run openssl, which must succeed."""
    if not openssl(*arguments):
        sys.exit(f"openssl {arguments[0]} failed")


def alternative(name: str) -> str:
    """One entry of subjectAltName."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name.lower()}"


def valid(path: Path, seconds: int) -> bool:
    """Whether a certificate is there and stays valid that long."""
    return path.is_file() and openssl("x509", "-in", str(path), "-noout", "-checkend", str(seconds))


def authority() -> tuple[str, str]:
    """Certificate and key of the authority, made anew only when it ends before the certificates it would sign."""
    certificate, key = STATE / "ca.pem", STATE / "ca.key"
    if not key.is_file() or not valid(certificate, DAYS * 86400):
        made(
            *("req", "-x509", *KEY, "-keyout", str(key), "-out", str(certificate), "-days", str(AUTHORITY_DAYS)),
            *(
                "-subj",
                f"/CN=mlflow-anywhere {os.urandom(4).hex()}",
                "-addext",
                "basicConstraints=critical,CA:TRUE,pathlen:0",
            ),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
    return str(certificate), str(key)


def issue(names: list[str]) -> bytes:
    """A certificate for the names, with its chain and key, in one text."""
    certificate, key = authority()
    leaf, leaf_key = STATE / "leaf.pem", STATE / "leaf.key"
    made(
        *("req", "-x509", "-CA", certificate, "-CAkey", key, *KEY, "-keyout", str(leaf_key), "-out", str(leaf)),
        *("-days", str(DAYS), "-subj", "/CN=mlflow-anywhere", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=serverAuth"),
        *("-addext", "subjectAltName=" + ",".join(alternative(name) for name in names)),
    )
    text = leaf.read_bytes() + Path(certificate).read_bytes() + leaf_key.read_bytes()
    leaf.unlink()
    leaf_key.unlink()
    return text


def main() -> None:
    """Do what the arguments say."""
    os.umask(0o077)
    mode, *names = sys.argv[1:]
    record = STATE / "issued.json"
    there = CERTIFICATE.is_file()
    content = CERTIFICATE.read_bytes() if there else b""
    wanted = {"names": names, "sha256": hashlib.sha256(content).hexdigest()}
    current = there and record.is_file() and json.loads(record.read_text()) == wanted
    if (mode == "once" and there) or (current and valid(CERTIFICATE, RENEW_BEFORE_SECONDS)):
        print("unchanged")
        return
    text = issue(names)
    new = CERTIFICATE.with_name("edge.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(text)
    new.replace(CERTIFICATE)
    record.write_text(json.dumps({"names": names, "sha256": hashlib.sha256(text).hexdigest()}))
    print("made")


if __name__ == "__main__":
    main()
