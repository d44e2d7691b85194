"""The edge's certificate: brought along, and from an ACME server, renewed while requests go on."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instance import Instance, wait_until
from public.traffic import EDGE, ask, get, load

Figure = Callable[[str], None]
STATE = "/var/lib/mlflow-anywhere/certificate"
SERVED = "openssl s_client -connect 127.0.0.1:443 -servername ml.test </dev/null 2>/dev/null | openssl x509 -noout"
SECONDS = 30
# What Let's Encrypt's profile `shortlived` gives.
SIX_DAYS = 160 * 3600
# The ACME server of Debian, which asks port 80 of the instance for the challenge, by name and by address.
PEBBLE: dict[str, Any] = {
    "listenAddress": "0.0.0.0:14000",
    "managementListenAddress": "0.0.0.0:15000",
    "certificate": "/pebble/edge.pem",
    "privateKey": "/pebble/edge.pem",
    "httpPort": 80,
    "tlsPort": 443,
    "ocspResponderURL": "",
}
# What the container of the product does each time, once, in the time that `faketime` sets for it.
ONCE = """
import json, os, subprocess
from importlib.machinery import SourceFileLoader
acme = SourceFileLoader("acme", "/usr/local/bin/acme").load_module()
settings = json.loads(acme.SETTINGS.read_text())
subprocess.run(acme.command(settings), env={**os.environ, "REQUESTS_CA_BUNDLE": "/settings/ca.pem"}, check=True, stdout=subprocess.DEVNULL)
print("new" if acme.deliver(settings) else "kept")
"""


def served(instance: Instance, what: str = "-serial") -> str:
    """What a new connection is shown."""
    return instance.sh(f"{SERVED} {what}").strip()


def start_pebble(instance: Instance, address: str, seconds: int, *, trusting: bool = False) -> Path:
    """Run the ACME server, which takes a client's word where it is trusting; return the file that its own certificate is checked against."""
    options = {"pebble": {**PEBBLE, "certificateValidityPeriod": seconds}}
    settings = base64.b64encode(json.dumps(options).encode()).decode()
    command = (
        # It forgets its accounts with its process; so must its client.
        f"rm -rf {STATE}/acme && mkdir -p /run/pebble /run/authority && chown 10001 /run/pebble /run/authority"
        f" && echo {settings} | base64 --decode >/run/pebble/pebble.json"
        r" && printf 'FROM mlflow-anywhere/base:13\nUSER root\nRUN apt-get update -qq && apt-get install -y -qq --no-install-recommends pebble\n'"
        " | docker build --quiet --network host --tag pebble - >/dev/null"
        f" && docker run --rm --network none --user 10001 --volume {STATE}/selfsigned.py:/selfsigned.py:ro --volume /run/authority:/state"
        " --volume /run/pebble:/certificates mlflow-anywhere/base:13 python3 /selfsigned.py always pebble"
        f" && docker run --detach --name pebble --network mlflow-anywhere --user 10001 --add-host ml.test:{address}"
        f" --env PEBBLE_VA_NOSLEEP=1 --env PEBBLE_WFE_NONCEREJECT=0 --env PEBBLE_VA_ALWAYS_VALID={trusting:d}"
        " --volume /run/pebble:/pebble:ro pebble pebble -config /pebble/pebble.json"
    )
    instance.sh(f"docker rm --force pebble 2>/dev/null; {command}")
    file = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "pebble-ca.pem"
    file.write_text(instance.sh("cat /run/authority/ca.pem"))
    return file


def test_files_of_the_control_machine(instance: Instance, tmp_path: Path, figure: Figure) -> None:
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    names = "subjectAltName=DNS:*.test,IP:127.0.0.1"
    subprocess.run([*command, "-days", "9", "-subj", "/CN=own", "-addext", names], check=True, capture_output=True)
    own = {"edge_tls": "files", "certificate_file": str(certificate), "certificate_key_file": str(key)}
    with load(instance, path="/health", ca="") as result:
        assert instance.converge(EDGE, **own).changed > 0
        wait_until(lambda: "CN = own" in served(instance, "-subject"), 10, "the edge shows another certificate")
    assert set(result["counts"]) == {"200"}, result["counts"]
    figure(f"certificate replaced under load: {result['counts']['200']} requests, 0 failed")


def test_acme_for_a_name_and_an_address(instance: Instance, figure: Figure) -> None:
    address = str(ipaddress.ip_address(instance.sh("hostname --ip-address").split()[0]))
    authority = start_pebble(instance, address, SECONDS)
    acme: dict[str, Any] = {
        "edge_tls": "acme",
        "platform_public_names": ["ml.test", address],
        "certificate_acme_directory": "https://pebble:14000/dir",
        "certificate_acme_ca": str(authority),
    }
    with load(instance, path="/health", ca="") as result:
        instance.converge(EDGE, **acme)
        wait_until(lambda: "Pebble" in served(instance, "-issuer"), 10, "the certificate is not the ACME server's")
        names = served(instance, "-ext subjectAltName")
        assert "DNS:ml.test" in names
        assert f"IP Address:{address}" in names
        shown = {served(instance)}

        def renewed() -> bool:
            shown.add(served(instance))
            return len(shown) == 3

        seconds = wait_until(renewed, 3 * SECONDS, "the certificate was not renewed twice")
    assert set(result["counts"]) == {"200"}, result["counts"]
    figure(
        f"ACME for a name and an address, 2 renewals in {seconds:.0f} s: {result['counts']['200']} requests, 0 failed"
    )
    # Without the ACME server the old one serves on; the log says why, and the container tries again.
    instance.sh("docker network disconnect mlflow-anywhere pebble")
    wait_until(
        lambda: "the old one serves on" in instance.logs("mlflow-anywhere-acme"), 2 * SECONDS, "nobody has noticed"
    )
    assert ask(instance, get("/health", port=5000, name="localhost"))[0].status == 200
    last = served(instance)
    instance.sh("docker network connect mlflow-anywhere pebble")
    wait_until(lambda: served(instance) != last, 2 * SECONDS + 30, "the certificate was not renewed again")


def test_a_certificate_of_six_days_is_renewed_a_day_before_it_ends(instance: Instance, figure: Figure) -> None:
    """With the clock moved, for it alone. The server suggests when: from 3.4 to 5.4 days after the issue."""
    (container,) = instance.inspect("mlflow-anywhere-acme")
    start_pebble(instance, "127.0.0.1", SIX_DAYS, trusting=True)
    settings = {
        "directory": "https://pebble:14000/dir",
        "email": "",
        "profile": "",
        "domains": ["ml.test"],
        "addresses": [],
    }
    instance.sh(
        "rm -rf /run/clock && mkdir -p /run/clock/state /run/clock/certificates /run/clock/settings && chown -R 10001 /run/clock"
        " && install --mode 644 /run/authority/ca.pem /run/clock/settings/"
        f" && printf '%s' {shlex.quote(json.dumps(settings))} >/run/clock/settings/acme.json"
        rf" && printf 'FROM {container['Config']['Image']}\nUSER root\nRUN apt-get update -qq && apt-get install -y -qq faketime\n'"
        " | docker build --quiet --network host --tag clock - >/dev/null"
    )

    def after(days: str) -> str:
        return instance.sh(
            "docker run --rm --user 10001 --network mlflow-anywhere --tmpfs /tmp:uid=10001 --env HOME=/tmp --entrypoint faketime"
            " --volume /run/clock/state:/state --volume /run/clock/certificates:/certificates --volume /run/clock/settings:/settings:ro"
            f" clock --exclude-monotonic -f {days} python3 -IS -c {shlex.quote(ONCE)}"
        ).strip()

    found = {days: after(days) for days in ("+0d", "+1d", "+3d", "+6d")}
    assert found == {"+0d": "new", "+1d": "kept", "+3d": "kept", "+6d": "new"}
    figure(f"a certificate of 6.7 days with the clock moved: {found}")


def test_back_to_the_own_authority(instance: Instance) -> None:
    before = instance.sh(f"sha256sum {STATE}/ca.pem")
    instance.converge(EDGE)
    assert instance.sh(f"sha256sum {STATE}/ca.pem") == before
    assert "mlflow-anywhere-acme" not in instance.containers()
    wait_until(lambda: "mlflow-anywhere" in served(instance, "-issuer"), 10, "the edge shows another certificate")
    assert ask(instance, get("/health"))[0].status == 200
