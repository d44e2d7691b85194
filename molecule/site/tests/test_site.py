"""The whole platform on a host that had nothing, as its users see it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from clients import Clients
from instance import Instance
from pace import too_late

IRIS = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}
CONTAINERS = ["mlflow-anywhere-edge", "mlflow-anywhere-postgres", "mlflow-anywhere-tracking"]

LOG_A_RUN = """
import json, mlflow, os, tempfile
mlflow.set_experiment("from-a-plain-client")
with mlflow.start_run(run_name="first-light") as run:
    mlflow.log_param("foo", 1)
    mlflow.log_metrics({"bar": 2, "baz": 0.5})
    mlflow.set_tag("kind", "smoke")
    mlflow.log_text("artifact of a client without storage keys", "notes/hello.txt")
text = mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/hello.txt")
keys = sorted(name for name in os.environ if name.startswith("AWS_ACCESS") or name.startswith("MLFLOW_S3"))
print(json.dumps({"run": run.info.run_id, "experiment": run.info.experiment_id, "text": text, "uri": run.info.artifact_uri, "keys": keys}))
"""


def model_services(instance: Instance) -> list[str]:
    return instance.sh("docker ps --filter name=mlflow-anywhere-model- --format '{{.Names}}'").split()


def test_the_readme_s_first_prediction(instance: Instance) -> None:
    answer = instance.http("http://localhost:8000/models/iris/invocations", {"dataframe_records": [IRIS]})
    assert answer.status == 200, answer.body
    assert answer.json() == {"predictions": [0]}
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert (headers["x-model-name"], headers["x-model-version"]) == ("iris", "1")


@pytest.mark.parametrize(
    "url", ["http://localhost:9201", "http://localhost:8000", "http://localhost:8000/models/digits"]
)
def test_digits_are_read(instance: Instance, digits: tuple[list[list[int]], list[int]], url: str) -> None:
    images, labels = digits
    predicted: list[int] = []
    for start in range(0, 100, 20):  # an argument of the shell holds no more
        answer = instance.http(f"{url}/invocations", {"inputs": images[start : start + 20]})
        assert answer.status == 200, answer.body
        predicted += answer.json()["predictions"]
    assert sum(a == b for a, b in zip(predicted, labels[:100], strict=True)) >= 95


def test_predictions_are_those_of_mlflow_bit_for_bit(
    instance: Instance, clients: Clients, digits: tuple[list[list[int]], list[int]]
) -> None:
    """`mlflow models predict` on the registered model against the endpoint, on the same input."""
    flowers = {"dataframe_records": [IRIS] * 3}
    for names, body in ((["digits"], {"inputs": digits[0][:10]}), (["iris", "flowers"], flowers)):
        golden = clients.python(f"""
import json, pathlib, subprocess
pathlib.Path("/tmp/in.json").write_text({json.dumps(json.dumps(body))})
subprocess.run(["mlflow", "models", "predict", "-m", "models:/{names[0]}@champion", "-i", "/tmp/in.json", "-t", "json", "-o", "/tmp/out.json",
                "--env-manager", "local"], check=True)
print(json.dumps(json.loads(pathlib.Path("/tmp/out.json").read_text())))
""")
        for name in names:
            assert instance.http(f"http://localhost:8000/models/{name}/invocations", body).json() == golden


def test_a_run_of_the_plain_client_is_in_database_store_and_ui(instance: Instance, clients: Clients) -> None:
    logged = clients.python(LOG_A_RUN)
    assert logged["keys"] == []
    assert logged["uri"].startswith("mlflow-artifacts:/")
    assert logged["text"] == "artifact of a client without storage keys"
    run = logged["run"]
    assert clients.sql(f"SELECT key, value FROM params WHERE run_uuid = '{run}'") == ["foo|1"]
    assert sorted(clients.sql(f"SELECT key, value FROM metrics WHERE run_uuid = '{run}'")) == ["bar|2", "baz|0.5"]
    assert clients.sql(f"SELECT name, status FROM runs WHERE run_uuid = '{run}'") == ["first-light|FINISHED"]
    stored = instance.sh("find /var/lib/docker/volumes/mlflow-anywhere-artifacts/_data -name hello.txt")
    assert run in stored
    # The page asks the API from the browser: this fails where host or origin are refused.
    page = clients.browse(f"http://localhost:5000/#/experiments/{logged['experiment']}/runs")
    assert "first-light" in page
    assert "from-a-plain-client" in page


def test_training_left_what_a_reviewer_looks_for(clients: Clients) -> None:
    tags = clients.sql("SELECT name, key, value FROM model_version_tags WHERE key = 'validation_status' ORDER BY name")
    assert tags == ["digits|validation_status|passed", "iris|validation_status|passed"]
    assert clients.sql("SELECT name, alias, version FROM registered_model_aliases ORDER BY name") == [
        "digits|champion|1",
        "iris|champion|1",
    ]
    (accuracy,) = clients.sql("SELECT value FROM latest_metrics m JOIN runs r USING (run_uuid) JOIN experiments e USING (experiment_id) "
                              "WHERE e.name = 'digits' AND m.key = 'accuracy' LIMIT 1")  # fmt: skip
    assert float(accuracy) >= 0.96


def test_the_index_shows_every_model_to_programs_and_people(instance: Instance, clients: Clients) -> None:
    listed = {model["name"]: model for model in instance.http("http://localhost:8000/models").json()}
    assert {name: (m["alias"], m["version"], m["engine"], m["replicas"]) for name, m in listed.items()} == {
        "iris": ("champion", "1", "mlflow", 1),
        "flowers": ("champion", "1", "api", 1),
        "digits": ("champion", "1", "api", 2),
    }
    page = clients.browse("http://localhost:8000/")
    assert "iris" in page
    assert "digits" in page
    assert "/models/digits/docs" in page
    # MLflow's own page at this address loads its script from the internet; ours has one of the edge.
    documentation = instance.http("http://localhost:8000/models/iris/docs").body
    assert 'href="openapi.json"' in documentation
    assert documentation.count("<script") == documentation.count('<script src="/pages.js"') == 1
    for name in listed:
        assert "/invocations" in instance.http(f"http://localhost:8000/models/{name}/openapi.json").json()["paths"]


def test_what_is_not_there_is_said_in_json(instance: Instance) -> None:
    missing = instance.http("http://localhost:8000/models/nothing/invocations", {"inputs": [1]})
    assert missing.status == 404
    assert missing.json()["models"] == ["digits", "flowers", "iris"]
    untyped = instance.http("http://localhost:8000/models/iris/predict", IRIS)
    assert untyped.status == 404
    assert "/invocations" in untyped.json()["message"]


def test_only_the_promised_ports_listen_and_only_on_loopback(instance: Instance) -> None:
    # containerd keeps a port of its own on loopback.
    listening = instance.sh("ss -H -ltnp | grep -v containerd | awk '{print $4}'").split()
    # Docker's embedded resolver listens inside the instance on 127.0.0.11; 2377 and 7946 are the Swarm of one.
    ours = sorted(address for address in listening if not address.startswith("127.0.0.11:"))
    assert ours == sorted(f"127.0.0.1:{port}" for port in (2377, 5000, 7946, 8000, 9201))


def test_containers_have_no_more_than_they_need(instance: Instance) -> None:
    for container in instance.inspect(*CONTAINERS, *model_services(instance)):
        name, host, config = container["Name"], container["HostConfig"], container["Config"]
        assert config["User"] not in {"", "0", "root"}, name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] in (["ALL"], ["CAP_ALL"]) or len(host["CapDrop"]) > 10, name
        assert not host["Privileged"], name
        assert host["Memory"] > 0, name
        assert not any("docker.sock" in mount["Source"] for mount in container["Mounts"]), name
        assert config["Healthcheck"]["Test"], name
        assert container["State"]["Health"]["Status"] == "healthy", name


def test_secrets_are_files_of_their_reader_alone(instance: Instance, secrets: dict[str, str]) -> None:
    for directory in ("postgres", "tracking"):
        modes = instance.modes(f"/var/lib/mlflow-anywhere/{directory}/secrets")
        folder = modes.pop(f"/var/lib/mlflow-anywhere/{directory}/secrets")
        assert folder.startswith("0700 10001:")
        assert modes
        assert {mode.split(":")[0] for mode in modes.values()} == {"0400 10001"}
    assert {name: len(value) >= 32 for name, value in secrets.items()} == dict.fromkeys(secrets, True)
    assert set(secrets) == {"postgres_password", "tracking_webhook_key", "tracking_encryption_passphrase"}


def test_secrets_stand_in_no_readable_place(instance: Instance, secrets: dict[str, str]) -> None:
    assert instance.leaks(secrets) == {}


def test_no_image_is_larger_than_promised_and_models_share_the_runtime(instance: Instance) -> None:
    names = instance.sh("docker images --format '{{.Repository}}:{{.Tag}}' 'mlflow-anywhere/*'").split()
    images = {image["RepoTags"][0]: image for image in instance.inspect(*names)}
    assert {name: image["Size"] for name, image in images.items() if image["Size"] > 1.1e9} == {}
    runtime = images["mlflow-anywhere/runtime:3.17.2"]["RootFS"]["Layers"]
    children = [name for name in images if "/model-" in name or "/tracking:" in name or "/training:" in name]
    assert len(children) >= 4
    for name in children:
        assert images[name]["RootFS"]["Layers"][: len(runtime)] == runtime, name


def answers_again(instance: Instance, seconds: float) -> dict[str, Any]:
    """Ask until everything answers; return what did not when time was up."""
    began = time.monotonic()
    while True:
        status = {
            "tracking": instance.http(
                "http://localhost:5000/api/2.0/mlflow/experiments/search", {"max_results": 1}
            ).status,
            "iris": instance.http(
                "http://localhost:8000/models/iris/invocations", {"dataframe_records": [IRIS]}
            ).status,
            "digits": instance.http("http://localhost:9201/invocations", {"inputs": [[0] * 784]}).status,
        }
        missing = {name: code for name, code in status.items() if code != 200}
        if not missing or too_late(began, seconds):
            return missing
        time.sleep(1)


def test_everything_comes_back_after_a_restart_of_the_engine(instance: Instance, clients: Clients) -> None:
    before = clients.sql("SELECT count(*) FROM runs")
    instance.sh("systemctl restart docker")
    assert answers_again(instance, 120) == {}
    assert clients.sql("SELECT count(*) FROM runs") == before


def test_data_survives_the_removal_of_every_container(instance: Instance, clients: Clients) -> None:
    before = clients.sql("SELECT run_uuid FROM runs ORDER BY run_uuid")
    versions = clients.sql("SELECT name, version FROM model_versions ORDER BY name, version")
    assert {"digits|1", "iris|1"} <= set(versions)
    instance.sh("docker service ls -q | xargs -r docker service rm; docker ps -aq | xargs -r docker rm --force")
    instance.converge()
    assert answers_again(instance, 30) == {}
    assert clients.sql("SELECT run_uuid FROM runs ORDER BY run_uuid") == before
    # The models are the same versions: nothing was trained again.
    assert clients.sql("SELECT name, version FROM model_versions ORDER BY name, version") == versions


def test_teardown_leaves_the_data_and_takes_it_when_told(instance: Instance) -> None:
    volumes = "docker volume ls --quiet --filter name=mlflow-anywhere-"
    instance.converge("../../playbooks/teardown.yml")
    assert instance.containers() == []
    assert "mlflow-anywhere-postgres" in instance.sh(volumes).split()
    assert instance.converge("../../playbooks/teardown.yml").changed == 0
    # A directory of its own: the scenario's secrets stay for what else is asked of them.
    instance.converge("../../playbooks/teardown.yml", teardown_data=True, platform_secrets_dir="/tmp/none")
    assert instance.sh(volumes) == ""
    assert not instance.host.file("/var/lib/mlflow-anywhere").exists
