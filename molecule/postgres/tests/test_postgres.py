"""The database as a client on its network and an operator on the host see it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from instance import Instance, wait_until
from postgres.database import AWKWARD, CLIENT, CONTAINER, IMAGE, NETWORK, SECRETS, encoded, healthy, login, sql


@pytest.fixture
def vaulted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A value as a variable file that ansible-vault encrypted holds it, and the vault's password where Ansible looks for it."""
    (tmp_path / "vault").write_text("of this test")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "vault"))
    return {"__ansible_vault": VaultLib([("default", VaultSecret(b"of this test"))]).encrypt(AWKWARD).decode()}


def test_text_is_utf_8_sorted_alike_on_every_system_and_pages_have_checksums(instance: Instance) -> None:
    found = sql(
        instance,
        "SELECT datlocprovider, datlocale, pg_encoding_to_char(encoding), current_setting('data_checksums')"
        " FROM pg_database WHERE datname = 'mlflow'",
    )
    assert found == "b|C.UTF-8|UTF8|on"


def test_only_the_password_opens_over_the_network(instance: Instance, secrets: dict[str, str]) -> None:
    password = secrets["postgres_password"]
    assert login(instance, password) == "in"
    assert login(instance, password, at="loopback") == "in"
    assert "password authentication failed" in login(instance, "x" * 40)
    for place in ("a network", "loopback"):
        assert "no password supplied" in login(instance, None, at=place)
    assert "password authentication failed" in login(instance, password, user="postgres")
    # Nobody else is even asked.
    assert "no pg_hba.conf entry" in login(instance, password, name="stranger")


# Connections that stop before they have signed in: half of them in the middle of it, half without a word.
STALLED = """
import socket, struct, time
hello = b"user\\0mlflow\\0database\\0mlflow\\0\\0"
held = []
while True:
    for number in range(40):
        try:
            held.append(socket.create_connection(("postgres", 5432), timeout=2))
            if number % 2:
                held[-1].sendall(struct.pack("!II", len(hello) + 8, 196608) + hello)
        except OSError:
            pass
    del held[:-150]
    time.sleep(1)
"""


def test_sign_ins_that_are_not_completed_take_no_place_of_others(instance: Instance, secrets: dict[str, str]) -> None:
    instance.sh(
        f"{encoded(STALLED)} >/run/stalled.py; docker run --detach --name stalled --network {NETWORK}"
        " --volume /run/stalled.py:/stalled.py:ro mlflow-anywhere/base:13 python3 /stalled.py"
    )
    try:
        began = time.monotonic()
        found = []
        while time.monotonic() - began < 12:
            found.append(login(instance, secrets["postgres_password"]))
        assert set(found) == {"in"}, found
        assert int(sql(instance, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")) < 50
    finally:
        instance.sh("docker rm --force stalled")


def test_no_port_is_published(instance: Instance) -> None:
    assert instance.inspect(CONTAINER)[0]["HostConfig"]["PortBindings"] in (None, {})


def test_runs_without_privileges_and_within_limits(instance: Instance) -> None:
    status = dict(
        line.split(":\t")
        for line in instance.sh(f"docker exec {CONTAINER} cat /proc/1/status").splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert "Read-only file system" in instance.sh(f"docker exec {CONTAINER} touch /usr/x 2>&1 || true")
    host = instance.inspect(CONTAINER)[0]["HostConfig"]
    assert (host["Memory"], host["PidsLimit"]) == (1536 * 1024**2, 300)


def test_the_password_is_long_and_only_its_reader_reads_it(instance: Instance, secrets: dict[str, str]) -> None:
    assert len(secrets["postgres_password"]) >= 32
    assert instance.modes(SECRETS) == {SECRETS: "0700 10001:0", f"{SECRETS}/password": "0400 10001:0"}


def test_secrets_are_kept_on_the_control_machine_for_their_owner_alone() -> None:
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets"
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in directory.iterdir()} == {
        "postgres_password": "0o600"
    }


def test_a_password_from_a_vault_replaces_the_old_one_and_is_never_logged(
    instance: Instance, secrets: dict[str, str], vaulted: dict[str, Any]
) -> None:
    # Settings under which the server writes every statement to its log.
    talkative = {"max_connections": 50, "log_statement": "all", "log_min_duration_statement": 0}
    instance.converge(postgres_password=vaulted, postgres_settings=talkative)
    assert login(instance, AWKWARD) == "in"
    assert login(instance, AWKWARD, at="loopback") == "in"
    assert "password authentication failed" in login(instance, secrets["postgres_password"])
    assert instance.leaks({"password": AWKWARD}) == {}
    assert sql(instance, "SHOW max_connections") == "50"
    assert instance.modes(SECRETS)[f"{SECRETS}/password"] == "0400 10001:0"
    instance.converge()
    assert login(instance, secrets["postgres_password"]) == "in"
    assert "password authentication failed" in login(instance, AWKWARD)


def test_a_password_changed_behind_its_back_is_set_again(instance: Instance, secrets: dict[str, str]) -> None:
    sql(instance, "ALTER ROLE mlflow PASSWORD 'another'")
    assert instance.converge().changed == 1
    assert login(instance, secrets["postgres_password"]) == "in"


def write_rows(instance: Instance) -> None:
    """Start a client that writes one row after the other and prints each that the server acknowledged."""
    instance.sh(f"docker rm -f {CLIENT} 2>/dev/null; {encoded('DROP TABLE IF EXISTS row; CREATE TABLE row (n int)')} | "
                f"docker exec -i {CONTAINER} psql -qX -h /run/postgresql -U mlflow -d mlflow 2>/dev/null")  # fmt: skip
    script = (
        "seq 1000000 | sed 's/.*/INSERT INTO row VALUES (&) RETURNING n;/'"
        " | psql -qtAX 'host=postgres user=mlflow dbname=mlflow passfile=/run/login'"
    )
    instance.sh(
        f'docker run --detach --name {CLIENT} --network {NETWORK} --volume /run/login:/run/login:ro {IMAGE} sh -c "{script}"'
    )


@pytest.fixture
def neighbour(instance: Instance) -> Iterator[None]:
    """A container that stays on the network, as the tracking server does on a platform.

    An engine removes an overlay network with its last container; engine 20.10 may be doing so while it starts that container anew, and then gives up.
    """
    instance.sh(f"docker run --detach --name neighbour --network {NETWORK} --stop-signal KILL {IMAGE} sleep infinity")
    yield
    instance.sh("docker rm --force neighbour")


@pytest.mark.usefixtures("neighbour")
def test_a_killed_server_comes_back_with_every_row_that_it_acknowledged(
    instance: Instance, secrets: dict[str, str]
) -> None:
    line = "*:*:*:*:" + secrets["postgres_password"].replace("\\", "\\\\").replace(":", "\\:")
    instance.sh(f"(umask 077; {encoded(line)} >/run/login; chown 10001 /run/login)")
    write_rows(instance)
    wait_until(lambda: int(sql(instance, "SELECT count(*) FROM row")) > 100, 20, "nothing was written")
    instance.sh(f"kill -9 $(docker inspect --format '{{{{.State.Pid}}}}' {CONTAINER})")
    instance.sh("docker wait " + CLIENT)
    acknowledged = [int(line) for line in instance.logs(CLIENT).splitlines() if line.isdigit()]
    instance.sh(f"docker rm {CLIENT}; rm /run/login")
    wait_until(lambda: healthy(instance), 30, "the database is not back")
    kept = {int(n) for n in sql(instance, "SELECT n FROM row").split()}
    assert len(acknowledged) > 100
    assert set(acknowledged) - kept == set()
    assert instance.inspect(CONTAINER)[0]["RestartCount"] >= 1


@pytest.mark.parametrize("event", ["removal", "engine"])
def test_rows_survive(instance: Instance, event: str) -> None:
    sql(instance, f"CREATE TABLE kept_{event} AS SELECT 'row'::text AS what")
    if event == "removal":
        instance.sh("docker ps --all --quiet | xargs docker rm --force")
        instance.converge()
    else:
        instance.sh("systemctl restart docker")
        wait_until(lambda: healthy(instance), 60, "the database is not back")
    assert sql(instance, f"SELECT what FROM kept_{event}") == "row"


def test_secrets_stand_in_no_readable_place(instance: Instance, secrets: dict[str, str]) -> None:
    assert list(secrets) == ["postgres_password"]
    assert instance.leaks(secrets) == {}
