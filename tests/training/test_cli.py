"""The commands as a person or a playbook runs them: output, exit codes, and what the server holds afterwards."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

from training import cli, errors, registry, run
from training.cli import build_parser, main
from training.provenance import COMMIT_VARIABLE, MODEL_PACKAGES, git_commit, model_requirements

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")

KEYS = {
    "model",
    "version",
    "run_id",
    "experiment_id",
    "validation_status",
    "metric",
    "value",
    "champion_version",
    "promoted",
}


@pytest.fixture(autouse=True)
def _keep_signals() -> Any:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def result(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the JSON document on stdout, which must hold nothing else."""
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    return document


def iris(name: str, *more: str) -> list[str]:
    return ["iris", "--model-name", name, "--json", *more]


def test_iris_from_first_version_to_second(client: MlflowClient, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(iris(name, "--experiment", "/iris-experiment", "--run-name", "first")) == 0
    first = result(capfd)
    assert first.keys() >= KEYS
    assert (first["model"], first["version"], first["validation_status"]) == (name, 1, "passed")
    assert (first["promoted"], first["champion_version"]) == (True, 1)

    logged = client.get_run(first["run_id"])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["solver"] == "lbfgs"
    assert logged.data.params["random_state"] == "8888"
    metrics = logged.data.metrics
    assert {"accuracy", "f1_macro", "f1_setosa", "log_loss", "train_accuracy", "training_seconds"} <= metrics.keys()
    assert metrics["accuracy"] == first["value"]
    assert logged.data.tags["training.task"] == "iris"
    assert logged.inputs is not None
    contexts = [[tag.value for tag in entry.tags] for entry in logged.inputs.dataset_inputs]
    assert sorted(contexts) == [["training"], ["validation"]]
    assert client.list_artifacts(first["run_id"], "plots")[0].path == "plots/confusion_matrix.png"
    assert client.get_experiment(first["experiment_id"]).name == "/iris-experiment"

    model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    columns = model.metadata.get_input_schema().input_names()
    assert columns == ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
    assert len(model.input_example) == run.EXAMPLE_ROWS
    assert mlflow.pyfunc.get_model_dependencies(f"models:/{name}/1")

    # The same model again is equal, not better.
    assert main(iris(name)) == 0
    second = result(capfd)
    assert (second["version"], second["promoted"], second["champion_version"]) == (2, False, 1)
    assert second["champion_value"] == second["value"]


def test_digits_take_a_tensor_of_raw_grey_levels(
    client: MlflowClient,
    name: str,
    capfd: pytest.CaptureFixture[str],
    write_pair: Callable[..., Path],
    toy_digits: Callable[[int], tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> None:
    images, labels = toy_digits(20)
    directory = write_pair(images, labels)
    options = f"--data {directory} --epochs 6 --threshold 0.9 --model-name {name} --json"
    assert main(["digits", *options.split()]) == 0
    document = result(capfd)
    version = client.get_model_version(name, str(document["version"]))
    assert version.tags["training.dataset"] == "idx-idx"
    assert version.tags["training.dataset_source"] == str(directory)

    path = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/1"))
    model = mlflow.pyfunc.load_model(str(path))
    assert model.metadata.metadata == {"input_name": "image", "input_shape": [28, 28]}
    signature = model.metadata.signature.to_dict()
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 784]}}
    assert json.loads(signature["inputs"]) == [tensor]
    assert json.loads(signature["outputs"]) == [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]
    assert (path / "requirements.txt").read_text().split() == model_requirements()
    assert (path / "serving_input_example.json").stat().st_size < 100_000
    predictions = model.predict(images[:10].reshape(-1, 784).astype(np.float32))
    assert predictions.dtype == np.int64
    assert np.mean(predictions == labels[:10]) > 0.8
    assert client.get_metric_history(document["run_id"], "train_loss")[0].step == 1


def test_no_promote_leaves_the_alias_alone(client: MlflowClient, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(iris(name, "--no-promote")) == 0
    document = result(capfd)
    assert (document["validation_status"], document["promoted"]) == ("passed", False)
    assert document["champion_version"] is None
    assert registry.champion_version(client, name) is None


def test_failed_version_is_tagged_not_promoted_and_exits_5(
    client: MlflowClient, name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "accuracy", lambda *_: 0.89)
    assert main(iris(name)) == 5
    document = result(capfd)
    assert (document["validation_status"], document["value"], document["promoted"]) == ("failed", 0.89, False)
    assert "below 0.9" in document["error"]
    assert client.get_model_version(name, "1").tags["validation_status"] == "failed"
    assert registry.champion_version(client, name) is None
    # The training went well; it is the version that is not good enough.
    assert client.get_run(document["run_id"]).info.status == "FINISHED"


def test_unloadable_champion_exits_6_and_says_why(
    client: MlflowClient, name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, str(tmp_path / "nothing"))
    client.set_registered_model_alias(name, "champion", "1")
    assert main(iris(name)) == 6
    document = result(capfd)
    assert (document["version"], document["validation_status"], document["promoted"]) == (2, "passed", False)
    assert document["champion_version"] == 1
    assert "cannot be loaded or scored" in document["error"]
    assert registry.champion_version(client, name) == 1


def test_interrupted_during_the_check(client: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "predict", die)
    assert main(iris(name)) == 130
    assert client.get_model_version(name, "1").tags["validation_status"] == "pending"
    assert registry.champion_version(client, name) is None


def test_summary_for_a_person(client: MlflowClient, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["iris", "--model-name", name, "--ui-url", "https://mlflow.example.org/"]) == 0
    output = capfd.readouterr()
    (run_id,) = {version.run_id for version in client.search_model_versions(f"name = '{name}'")}
    assert output.out.startswith("run:        https://mlflow.example.org/#/experiments/")
    assert output.out.splitlines()[0].endswith(f"/{run_id}")
    assert "promoted:   yes, first version that passed" in output.out
    assert "trained in" in output.err


def test_bad_data_exits_3_before_anything_is_logged(
    client: MlflowClient, name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["digits", "--data", str(tmp_path / "nothing"), "--model-name", name, "--json"]) == 3
    document = result(capfd)
    assert (document["run_id"], document["version"], document["promoted"]) == (None, None, False)
    assert "no such directory" in document["error"]
    assert not client.search_registered_models(f"name = '{name}'")


def test_unreachable_server_exits_4_without_training(
    capfd: pytest.CaptureFixture[str], client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, "before")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["iris", "--tracking-uri", "http://me:hunter2@127.0.0.1:9", "--json"]) == 4
    output = capfd.readouterr()
    assert "no MLflow at http://127.0.0.1:9:" in json.loads(output.out)["error"]
    assert "hunter2" not in output.out + output.err
    # Out of the address, so that what MLflow itself prints holds no password either.
    assert mlflow.get_tracking_uri() == "http://127.0.0.1:9"


def test_login_in_the_address_goes_to_the_variables_of_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, "before")
    assert cli._without_login("https://me:p%40ss@mlflow.example.org:8443/x") == "https://mlflow.example.org:8443/x"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "p@ss"


@pytest.mark.parametrize(
    "arguments",
    [
        ["iris", "--threshold", "90"],
        ["iris", "--model-name", "a/b"],
        ["digits", "--epochs", "0"],
    ],
)
def test_wrong_options_exit_2(client: MlflowClient, arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert client
    assert main(arguments) == 2
    assert arguments[1] in capfd.readouterr().err


def test_data_and_full_are_refused_by_the_parser(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["digits", "--data", ".", "--full"])
    assert "not allowed with" in capfd.readouterr().err


def test_no_server_named_is_an_error_and_not_a_local_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["iris"]) == 2
    assert "export MLFLOW_TRACKING_URI=http://127.0.0.1:5000" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_is_quick_because_it_imports_no_mlflow() -> None:
    code = "import sys, training.cli; training.cli.build_parser().format_help(); print('mlflow' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "False"


def test_every_option_and_exit_code_is_documented() -> None:
    commands = next(action for action in build_parser()._actions if action.dest == "task").choices
    assert commands is not None
    options = {
        option
        for command in dict(commands).values()
        for action in command._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }
    assert [option for option in sorted(options) if f"`{option}" not in DOCS] == []
    kinds: list[type[errors.TrainingError]] = [errors.TrainingError, *errors.TrainingError.__subclasses__()]
    codes = {kind.exit_code for kind in kinds} | {0, cli.INTERRUPTED, cli.TERMINATED}
    assert [code for code in sorted(codes) if f"| {code} |" not in DOCS] == []


def test_requirements_are_exact_pins_of_all_that_loading_needs() -> None:
    pins = model_requirements()
    assert [pin.split("==")[0] for pin in pins] == list(MODEL_PACKAGES)
    assert all(pin.split("==")[1][0].isdigit() for pin in pins)


def test_commit_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMIT_VARIABLE, "abc123")
    assert git_commit() == "abc123"


def test_commit_of_a_foreign_repository_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"]
    subprocess.run([*command, "--allow-empty"], check=True)
    assert git_commit(tmp_path) is None


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("https://me:secret@mlflow.example.org/x", "https://mlflow.example.org/x"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql://u:p@ss@db/x", "postgresql://db/x"),
    ],
)
def test_addresses_in_logs_hold_no_password(uri: str, public: str) -> None:
    assert run.redact(uri) == public
