"""The tracking server as the plain MLflow client, a browser's requests and an operator on the host see it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path

from instance import Answer, Instance, wait_until
from postgres.database import encoded, sql
from tracking.clients import BASE, CONTAINER, FILES, NETWORK, SECRETS, address, client, ready, starts

RECEIVER_SECRET = "a secret of the receiver, @:/%#?"


def test_a_run_of_the_plain_client_is_in_the_database_and_its_artifacts_in_the_volume(instance: Instance) -> None:
    run = client(instance, "log_run.py")
    assert run["keys"] == []
    assert run["uri"] == f"mlflow-artifacts:/{run['experiment']}/{run['run']}/artifacts"
    where = f"WHERE run_uuid = '{run['run']}'"
    assert sql(instance, f"SELECT status FROM runs {where}") == "FINISHED"
    assert sql(instance, f"SELECT key, value FROM params {where}") == "depth|3"
    assert sql(instance, f"SELECT step, value FROM metrics {where} ORDER BY step").split() == ["1|0.5", "2|0.75"]
    volume = instance.sh("docker volume inspect --format '{{.Mountpoint}}' mlflow-anywhere-artifacts").strip()
    files = f"{volume}/{run['experiment']}/{run['run']}/artifacts"
    assert instance.sh(f"cat {files}/note.txt") == "written by a client"
    assert instance.sh(f"stat --format %s {files}/deep/er/big.bin").strip() == str(3 * 1024 * 1024)


def test_a_dataset_is_added_to_an_experiment_by_the_text_of_its_id(instance: Instance) -> None:
    """The call of MLflow's in which psycopg 3 compares a number with text."""
    url = f"{address(instance)}/api/3.0/mlflow/datasets"
    host = {"Host": "localhost"}
    made = instance.http(f"{url}/create", {"name": f"added-{os.urandom(4).hex()}"}, headers=host).json()["dataset"]
    place = f"{url}/{made['dataset_id']}"
    added = instance.http(f"{place}/add-experiments", {"experiment_ids": ["0"]}, headers=host)
    assert added.status == 200, added.body
    assert instance.http(f"{place}/experiment-ids", headers=host).json() == {"experiment_ids": ["0"]}


def search(instance: Instance, url: str, host: str, origin: str | None = None) -> Answer:
    """A question that a page of the UI asks."""
    headers = {"Host": host} | ({"Origin": origin} if origin else {})
    return instance.http(f"{url}/api/2.0/mlflow/experiments/search", {"max_results": 1}, headers=headers)


def test_only_the_names_of_the_platform_are_answered(instance: Instance) -> None:
    url = address(instance)
    names = ["localhost:5000", "127.0.0.1:5000", "localhost", "tracking:5000", "tracking"]
    assert {name: search(instance, url, name).status for name in names} == dict.fromkeys(names, 200)
    for name in ("evil.example", "evil.example:5000", "localhost.evil.example", "localhost:5001"):
        refused = search(instance, url, name)
        assert (refused.status, "Invalid Host header" in refused.body) == (403, True), name


def test_only_pages_of_the_platform_may_ask(instance: Instance) -> None:
    url = address(instance)
    for origin in ("http://localhost:5000", "http://127.0.0.1:5000"):
        assert search(instance, url, "localhost:5000", origin).status == 200
    # MLflow itself lets pages of every port of the browser's own machine ask.
    for origin in ("http://evil.example", "https://localhost.evil.example", "null"):
        refused = search(instance, url, "localhost:5000", origin)
        assert (refused.status, "Cross-origin request blocked" in refused.body) == (403, True), origin


def test_one_process_serves_and_nothing_else_runs(instance: Instance) -> None:
    lines = instance.sh(f"docker top {CONTAINER} -eo pid,rss,args").splitlines()[1:]
    processes = [line.split(maxsplit=2) for line in lines]
    # A health check may run just now.
    serving = [(rss, command) for _, rss, command in processes if "-init" not in command and "healthy" not in command]
    assert [command for _, command in serving] == ["python -m tracking_server"]
    assert int(serving[0][0]) < 600 * 1024
    settings = instance.sh(f"docker exec {CONTAINER} env").splitlines()
    assert {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true"} <= set(settings)


def test_runs_without_privileges_and_within_limits(instance: Instance) -> None:
    pid = instance.inspect(CONTAINER)[0]["State"]["Pid"]
    lines = instance.sh(f"cat /proc/{pid}/status").splitlines()
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert status["Uid"].split() == ["10001"] * 4
    assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapInh")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert "Read-only file system" in instance.sh(f"docker exec {CONTAINER} touch /opt/x 2>&1 || true")
    host = instance.inspect(CONTAINER)[0]["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["PortBindings"] or {}) == (1024**3, 300, {})


def test_secrets_are_long_and_only_their_readers_read_them(instance: Instance, secrets: dict[str, str]) -> None:
    assert {name for name, value in secrets.items() if len(value) >= 32} == {
        "postgres_password",
        "tracking_encryption_passphrase",
        "tracking_webhook_key",
    }
    assert instance.modes(SECRETS) == {
        SECRETS: "0700 10001:0",
        # Without users too, and empty of passwords then.
        f"{SECRETS}/accounts.json": "0400 10001:0",
        f"{SECRETS}/auth.ini": "0400 10001:0",
        f"{SECRETS}/aws_credentials": "0400 10001:0",
        f"{SECRETS}/environment.json": "0400 10001:0",
        f"{SECRETS}/pgpass": "0400 10001:0",
    }
    assert json.loads(instance.sh(f"cat {SECRETS}/accounts.json")) == []
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "secrets"
    assert {oct(path.stat().st_mode & 0o777) for path in directory.iterdir()} == {"0o600"}


def test_a_webhook_is_signed_with_its_secret_after_a_restart(instance: Instance) -> None:
    program = encoded((FILES / "receiver.py").read_text())
    instance.sh(f"{program} >/run/receiver.py; docker rm --force receiver 2>/dev/null || true")
    instance.sh(
        f"docker run --detach --name receiver --network {NETWORK} --volume /run/receiver.py:/receiver.py:ro {BASE} python3 -u /receiver.py"
    )
    api = "/api/2.0/mlflow/webhooks"
    asked = {
        "name": "molecule",
        "url": "http://receiver:8080/",
        "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
        "secret": RECEIVER_SECRET,
    }
    host = {"Host": "localhost:5000"}
    created = instance.http(address(instance) + api, asked, headers=host)
    assert created.status == 200, created.body
    webhook = created.json()["webhook"]["webhook_id"]
    assert RECEIVER_SECRET not in sql(instance, f"SELECT secret FROM webhooks WHERE webhook_id = '{webhook}'")
    instance.sh(f"docker restart {CONTAINER}")
    wait_until(lambda: ready(instance), 60, "the tracking server is not back")
    sent = instance.http(f"{address(instance)}{api}/{webhook}/test", {}, headers=host)
    assert sent.json()["result"]["success"] is True, sent.body
    received = json.loads(instance.logs("receiver", 1).splitlines()[-1])
    headers = received["headers"]
    signed = f"{headers['x-mlflow-delivery-id']}.{headers['x-mlflow-timestamp']}.{received['body']}"
    signature = base64.b64encode(hmac.digest(RECEIVER_SECRET.encode(), signed.encode(), hashlib.sha256)).decode()
    assert headers["x-mlflow-signature"] == f"v1,{signature}"
    instance.sh("docker rm --force receiver")


def test_waits_for_a_database_that_starts_later(instance: Instance) -> None:
    instance.sh(f"docker stop mlflow-anywhere-postgres {CONTAINER} && docker start {CONTAINER}")
    try:
        wait_until(lambda: "Waiting for the database" in instance.logs(CONTAINER, 20), 30, "it said nothing")
        began = starts(instance)
        assert instance.http(address(instance) + "/health", timeout=2).status == 0
    finally:
        instance.sh("docker start mlflow-anywhere-postgres")
    wait_until(lambda: ready(instance), 60, "the tracking server does not serve")
    assert starts(instance) == began


def test_secrets_stand_in_no_readable_place(instance: Instance, secrets: dict[str, str]) -> None:
    kept = secrets | {"environment.json": base64.b64encode(secrets["tracking_webhook_key"].encode()).decode()}
    assert instance.leaks(kept) == {}
