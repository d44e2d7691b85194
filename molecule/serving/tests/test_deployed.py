"""What a first run leaves: every model answers, and its container may do nothing else."""

from __future__ import annotations

import json

from edge.traffic import ask, request
from instance import Instance
from serving.models import DIGIT, FLOWERS, NAMES, NUMBERS, PREFIX, containers, images, predict


def test_every_model_answers_with_its_name_and_version(instance: Instance) -> None:
    bodies = {"iris": FLOWERS, "flowers": FLOWERS, "digits": DIGIT}
    replies = {name: predict(instance, name, bodies.get(name, NUMBERS)) for name in NAMES}
    assert {
        name: (reply.status, reply.headers["x-model-name"], reply.headers["x-model-version"])
        for name, reply in replies.items()
    } == {name: (200, name, "1") for name in NAMES}
    assert replies["iris"].body == replies["flowers"].body
    own, bare, listed, ping = ask(
        instance,
        request(
            "/invocations", "POST", port=9201, body=json.dumps(FLOWERS), headers={"Content-Type": "application/json"}
        ),
        request("/invocations", "POST", body=json.dumps(FLOWERS), headers={"Content-Type": "application/json"}),
        request("/models"),
        request("/models/slow/ping"),
    )
    assert own.headers["x-model-name"] == "flowers"
    assert bare.headers["x-model-name"] == "iris"
    assert own.body == bare.body == replies["iris"].body
    assert ping.status == 200
    assert {model["name"]: (model["version"], model["replicas"]) for model in listed.json()} == {
        name: ("1", replicas) for name, replicas in NAMES.items()
    }


def test_the_container_may_do_nothing_but_answer(instance: Instance) -> None:
    [identity] = containers(instance, "slow")
    container = instance.inspect(identity)[0]
    settings = container["HostConfig"]
    assert container["Config"]["User"] == "mlflow"
    assert settings["ReadonlyRootfs"]
    assert settings["CapDrop"] in (["ALL"], ["CAP_ALL"])
    assert settings["Memory"] == 512 * 2**20
    assert settings["PidsLimit"] == 256
    assert not settings["PortBindings"]
    assert [mount for mount in container["Mounts"] if mount["Type"] != "tmpfs"] == []
    assert container["Config"]["Healthcheck"]["Test"][1] == "/usr/local/bin/healthy"
    status = instance.sh(f"cat /proc/{container['State']['Pid']}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    writable = (
        "import os; print([p for p in ('/', '/opt/model', '/opt/mlflow', '/etc', '/usr') if os.access(p, os.W_OK)])"
    )
    assert instance.sh(f'docker exec {identity} python3 -c "{writable}"').strip() == "[]"


def test_the_service_is_replaced_start_first_and_rolled_back(instance: Instance) -> None:
    spec = instance.service(f"{PREFIX}iris")["Spec"]
    assert (spec["UpdateConfig"]["Order"], spec["UpdateConfig"]["FailureAction"]) == ("start-first", "rollback")
    assert spec["RollbackConfig"]["Order"] == "start-first"
    assert spec["EndpointSpec"]["Mode"] == "dnsrr"
    assert spec["Mode"]["Replicated"]["Replicas"] == 2


def test_names_of_one_version_share_one_image(instance: Instance) -> None:
    versions = sorted(name.rpartition("-")[0].removeprefix("mlflow-anywhere/model-") for name in images(instance))
    # That of digits without Debian packages is of the platform that the scenario started from.
    assert versions == ["digits:v1", "digits:v1", "iris:v1", "prod-test-factor:v1"]


def test_a_model_has_the_debian_packages_and_labels_of_its_entry(instance: Instance) -> None:
    digits, slow = (containers(instance, name).popitem()[0] for name in ("digits", "slow"))
    assert "Hello, world!" in instance.sh(f"docker exec {digits} hello")
    assert instance.host.run(f"docker exec {slow} hello").rc != 0
    assert instance.sh(f"docker exec --user 0 {digits} find / -xdev -type f -perm /6000") == ""
    [told] = ask(instance, request("/models/digits/metadata"))
    assert told.json()["labels"] == {"7": "seven"}
