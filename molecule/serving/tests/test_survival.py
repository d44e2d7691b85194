"""What does not depend on the Debian release: answers, refusals, deaths and interruptions, after the rollout of test_promotion.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from edge.traffic import ask, load, request
from instance import Instance
from pace import slowness, too_late
from serving.models import (
    FACTOR,
    FLOWERS,
    NUMBERS,
    PREFIX,
    RUNTIME,
    SERVE,
    Rollout,
    containers,
    images,
    play,
    predict,
    set_alias,
    version_image,
    wait_for_replicas,
)

IRIS = {"name": "iris", "replicas": 2, "memory": "512m"}
TORN = {"name": "torn", "model": FACTOR, "alias": "torn", "memory": "512m"}


@pytest.fixture(autouse=True)
def after_the_rollout(rollout: Rollout) -> None:
    """Version 2 of iris is live, and version 1 of the other model."""


def test_predictions_are_those_of_mlflow_bit_for_bit(instance: Instance) -> None:
    golden = {"models:/iris/2": ("iris", FLOWERS), f"models:/{FACTOR}/1": ("torn", NUMBERS)}
    commands = []
    for number, (uri, (_, body)) in enumerate(golden.items()):
        instance.sh(
            f"mkdir -p /run/golden && chmod 777 /run/golden && echo '{json.dumps(body)}' >/run/golden/{number}.in"
        )
        commands.append(
            f"mlflow models predict --model-uri {uri} --env-manager local --content-type json"
            f" --input-path /golden/{number}.in --output-path /golden/{number}.out"
        )
    instance.sh(
        f"docker run --rm --network mlflow-anywhere --env MLFLOW_TRACKING_URI=http://tracking:5000 --workdir /tmp"
        f" --volume /run/golden:/golden {RUNTIME} sh -c '{' && '.join(commands)}'"
    )
    for number, (name, body) in enumerate(golden.values()):
        reply = predict(instance, name, body)
        assert reply.status == 200
        assert reply.body == instance.sh(f"cat /run/golden/{number}.out"), name


def test_what_cannot_be_served_is_named_and_changes_nothing(instance: Instance) -> None:
    # The engine lists services and their replicas, and containers by their ids; the edge has its routes and its catalogue; its page says what is not served.
    list_all = f"docker service ls; docker ps --quiet --filter name={PREFIX}; cd /var/lib/mlflow-anywhere/edge; sha256sum haproxy.cfg models.json"
    before = instance.sh(list_all), images(instance)
    # The list is reduced as well: what it no longer names stays, as the list is in doubt.
    wrong: list[dict[str, Any]] = [
        IRIS,
        {"name": "roses"},
        {"name": "lilies", "model": "iris", "alias": "best"},
        {"name": "bad", "model": FACTOR, "alias": "rejected", "port": 9333},
    ]
    with pytest.raises(AssertionError) as refused:
        instance.converge(SERVE, served_models=wrong, serving_default_model="iris")
    message = str(refused.value)
    assert "has no model 'roses'. Known models: digits, iris, prod.test.factor" in message
    assert "The model 'iris' has no alias 'best'. Its aliases: challenger (version 2), champion (version 2)" in message
    assert f"version 5 of {FACTOR} (alias rejected) has validation_status=failed and is not served" in message
    assert message.count("fatal: ") == 1
    # Named at first, before anything is built or routed.
    assert message.index("this is not served:") < message.index("PLAY [Route what is declared]")
    assert "roses failed, is not served" in message
    assert (instance.sh(list_all), images(instance)) == before


@pytest.fixture
def no_registry(instance: Instance) -> Iterator[None]:
    """The tracking server and its database are down."""
    instance.sh("docker stop --time 1 mlflow-anywhere-tracking mlflow-anywhere-postgres")
    yield
    instance.sh("docker start mlflow-anywhere-postgres mlflow-anywhere-tracking")
    wait = "[ $(docker inspect --format '{{.State.Health.Status}}' mlflow-anywhere-tracking) = healthy ]"
    instance.sh(f"for i in $(seq 90); do {wait} && exit 0; sleep 1; done; exit 1")


@pytest.mark.usefixtures("no_registry")
def test_a_dead_replica_is_replaced_and_nobody_notices(instance: Instance) -> None:
    with load(instance, "/models/iris/invocations", FLOWERS, pause=0.05) as traffic:
        victim = next(iter(containers(instance, "iris")))
        instance.sh(f"docker kill {victim}")
        time.sleep(1)
        seconds = wait_for_replicas(instance, "iris", 2)
    assert traffic.failed == []
    assert traffic.count("2") == traffic.sent > 50
    assert victim not in containers(instance, "iris")
    # Swarm waits a second, MLflow loads for three on an idle machine.
    assert seconds < 45 * slowness()


def test_the_image_alone_answers_without_a_network(instance: Instance) -> None:
    image = version_image(instance, "iris", "1")
    instance.sh(f"docker run --detach --name alone --network none --read-only --tmpfs /tmp --cap-drop ALL {image}")
    try:
        healthy = "[ $(docker inspect --format '{{.State.Health.Status}}' alone) = healthy ]"
        instance.sh(f"for i in $(seq 60); do {healthy} && exit 0; sleep 0.5; done; docker logs alone; exit 1")
    finally:
        instance.sh("docker rm --force alone")


def kill_run(instance: Instance, run: subprocess.Popen[bytes]) -> None:
    """Kill a run with all its processes, here and in the instance."""
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    for process in instance.host.run("pgrep -f 'AnsiballZ_|ansible_swarm_rollout'").stdout.split():
        instance.host.run(f"kill -9 {process}")


def test_an_interrupted_rollout_is_completed_by_the_next_run(instance: Instance) -> None:
    before = images(instance)
    set_alias(instance, "iris", "champion", "1")
    models: dict[str, Any] = {"served_models": [IRIS, TORN], "serving_default_model": "iris"}
    set_alias(instance, FACTOR, "torn", "1")
    with load(instance, "/models/iris/invocations", FLOWERS, pause=0.1) as traffic:
        run = subprocess.Popen(play(instance.name, **models), stdout=subprocess.DEVNULL, start_new_session=True)
        began = time.monotonic()
        update = f"docker service inspect --format '{{{{with .UpdateStatus}}}}{{{{.State}}}}{{{{end}}}}' {PREFIX}iris"
        while instance.sh(update).strip() != "updating":
            assert not too_late(began, 120)
            assert run.poll() is None
            time.sleep(0.2)
        kill_run(instance, run)
        assert instance.converge(SERVE, **models).changed > 0
        assert {reply.headers["x-model-version"] for reply in ask(instance, *[request("/models/iris/ping")] * 20)} == {
            "1"
        }
    assert traffic.failed == []
    assert {kind.version for kind in traffic.kinds} == {"1", "2"}
    assert len(containers(instance, "iris")) == 2
    # The way back built nothing.
    assert images(instance) == before
    # What the inventory no longer names is gone, here and in the catalogue.
    assert sorted(instance.sh("docker service ls --format '{{.Name}}'").split()) == [f"{PREFIX}iris", f"{PREFIX}torn"]
    listed, gone = ask(instance, request("/models"), request("/models/flowers/ping"))
    assert [model["name"] for model in listed.json()] == ["iris", "torn"]
    assert (gone.status, gone.json()["models"]) == (404, ["iris", "torn"])


def test_the_challenger_answers_its_share(instance: Instance) -> None:
    before = containers(instance, "iris"), containers(instance, "torn")
    challenged = IRIS | {"challenger": {"alias": "challenger", "percent": 30}}
    instance.converge(SERVE, served_models=[challenged, TORN], serving_default_model="iris")
    # Of what the completed rollout left, the run does nothing again.
    assert (containers(instance, "iris"), containers(instance, "torn")) == before
    assert len(containers(instance, "iris--challenger")) == 1
    asked = request(
        "/models/iris/invocations", "POST", body=json.dumps(FLOWERS), headers={"Content-Type": "application/json"}
    )
    replies = [reply for _ in range(10) for reply in ask(instance, *[asked] * 20)]
    assert {(reply.status, reply.headers["x-model-name"]) for reply in replies} == {(200, "iris")}
    share = sum(reply.headers["x-model-version"] == "2" for reply in replies)
    # Three of ten: within 4.6 standard deviations.
    assert 30 <= share <= 90
    [listed] = ask(instance, request("/models"))
    assert listed.json()[0]["challenger"] == {"alias": "challenger", "version": "2", "percent": 30}


def test_what_the_registry_loses_goes_on_being_served(instance: Instance) -> None:
    api = "http://127.0.0.1:5000/api/2.0/mlflow"
    before = predict(instance, "torn", NUMBERS)
    found = instance.http(f"{api}/model-versions/get?name={FACTOR}&version=1").json()["model_version"]
    assert instance.http(f"{api}/runs/delete", {"run_id": found["run_id"]}).status == 200
    assert instance.http(f"{api}/registered-models/delete", {"name": FACTOR}, method="DELETE").status == 200
    [victim] = containers(instance, "torn")
    instance.sh(f"docker kill {victim}")
    time.sleep(1)
    wait_for_replicas(instance, "torn", 1)
    time.sleep(1.5)
    after = predict(instance, "torn", NUMBERS)
    assert (after.status, after.body) == (before.status, before.body)
    assert after.headers["x-model-version"] == "1"
    # A run that cannot find it any more says so and leaves it alone.
    with pytest.raises(AssertionError, match=r"has no model 'prod\.test\.factor'"):
        instance.converge(SERVE, served_models=[IRIS, TORN], serving_default_model="iris")
    assert predict(instance, "torn", NUMBERS).body == before.body
