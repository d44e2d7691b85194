"""The life of a version: pending, passed or failed, champion; with a real registry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.tree import DecisionTreeClassifier

from training import registry
from training.datasets import fingerprints
from training.errors import ChampionError, TrackingError
from training.registry import Candidate, Check, champion_version, promote, register, validate

ROWS = 40
FEATURES = np.arange(ROWS, dtype=np.float32).reshape(-1, 1)
LABELS = (np.arange(ROWS) % 2).astype(np.int64)
NOTHING = np.array([], dtype=np.uint64)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[float, str]:
    """Saved models by their accuracy on LABELS; saving one takes most of a second."""
    saved = {}
    for accuracy in (0.5, 0.75, 1.0):
        answers = LABELS.copy()
        answers[: round(ROWS * (1 - accuracy))] ^= 1
        saved[accuracy] = _save(tmp_path_factory, DecisionTreeClassifier().fit(FEATURES, answers))
    return saved


@pytest.fixture(scope="session")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that answers with names where numbers are expected."""
    return _save(tmp_path_factory, DummyClassifier().fit(FEATURES, np.where(LABELS == 1, "one", "zero")))


def _save(factory: pytest.TempPathFactory, estimator: Any) -> str:
    path = factory.mktemp("model") / "m"
    trusted = ["sklearn.tree._tree.Tree"]
    mlflow.sklearn.save_model(estimator, str(path), pip_requirements=["scikit-learn"], skops_trusted_types=trusted)
    return str(path)


@pytest.fixture
def add(client: MlflowClient, name: str, models: dict[float, str]) -> Callable[..., int]:
    """Return a function that adds a version of some accuracy, or of some path, to the model ``name``."""
    client.create_registered_model(name)

    def version(model: float | str, *, run_id: str | None = None) -> int:
        source = models[model] if isinstance(model, float) else model
        return int(client.create_model_version(name, source, run_id=run_id).version)

    return version


def status(client: MlflowClient, name: str, version: int) -> str | None:
    tag: str | None = client.get_model_version(name, str(version)).tags.get("validation_status")
    return tag


def checked(client: MlflowClient, name: str, version: int, threshold: float = 0.5) -> Check:
    return validate(client, name, version, FEATURES, LABELS, threshold)


def candidate(client: MlflowClient, name: str, version: int, rows: NDArray[np.uint64] = NOTHING) -> Candidate:
    predictions = checked(client, name, version).predictions
    assert predictions is not None
    return Candidate(name, version, predictions, rows)


def champion(client: MlflowClient, name: str, version: int) -> None:
    client.set_registered_model_alias(name, "champion", str(version))


def test_a_registered_version_is_pending_from_its_first_moment(
    client: MlflowClient, name: str, models: dict[float, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tag must come with the version: a process that dies right after cannot set it any more.
    monkeypatch.setattr(MlflowClient, "set_model_version_tag", lambda *_: pytest.fail("tagged afterwards"))
    version = register(models[1.0], name, {"training.task": "toy"})
    assert client.get_model_version(name, str(version)).tags == {
        "training.task": "toy",
        "validation_status": "pending",
    }
    assert champion_version(client, name) is None


@pytest.mark.parametrize(("threshold", "expected"), [(0.7, "passed"), (0.75, "passed"), (0.76, "failed")])
def test_check_tags_passed_or_failed(
    client: MlflowClient, name: str, add: Callable[..., int], threshold: float, expected: str
) -> None:
    version = add(0.75)
    check = checked(client, name, version, threshold)
    assert (check.status, check.value) == (expected, 0.75)
    assert client.get_model_version(name, str(version)).tags == {
        "validation.metric": "accuracy",
        "validation.value": "0.750000",
        "validation.threshold": f"{threshold:g}",
        "validation.rows": "40",
        "validation_status": expected,
    }


def test_check_loads_the_artifact_and_fails_when_it_is_broken(
    client: MlflowClient, name: str, add: Callable[..., int], tmp_path: Path
) -> None:
    version = add(str(tmp_path / "nothing"))
    check = checked(client, name, version)
    assert (check.status, check.value, check.predictions) == ("failed", None, None)
    assert status(client, name, version) == "failed"


def test_names_instead_of_numbers_fail_the_check(
    client: MlflowClient, name: str, add: Callable[..., int], text_model: str
) -> None:
    check = checked(client, name, add(text_model))
    assert check.status == "failed"
    assert "whole class numbers" in check.reason


def test_a_process_that_dies_during_the_check_leaves_the_version_pending(
    client: MlflowClient, name: str, models: dict[float, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(models[1.0], name, {})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "predict", die)
    with pytest.raises(KeyboardInterrupt):
        checked(client, name, version)
    assert status(client, name, version) == "pending"
    assert champion_version(client, name) is None


def test_a_tag_that_cannot_be_set_is_an_error(
    client: MlflowClient, name: str, add: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add(1.0)

    def refuse(*_: object) -> None:
        raise MlflowException("forbidden")

    monkeypatch.setattr(MlflowClient, "set_model_version_tag", refuse)
    with pytest.raises(TrackingError, match="may still be pending"):
        checked(client, name, version)


def test_first_passed_version_becomes_champion(client: MlflowClient, name: str, add: Callable[..., int]) -> None:
    version = add(0.75)
    result = promote(client, candidate(client, name, version), FEATURES, LABELS)
    assert (result.promoted, result.champion_version, result.previous_version) == (True, version, None)
    assert champion_version(client, name) == version


@pytest.mark.parametrize(
    ("new", "promoted"),
    [
        pytest.param(1.0, True, id="better"),
        pytest.param(0.75, False, id="equal"),
        pytest.param(0.5, False, id="worse"),
    ],
)
def test_champion_goes_to_the_better_version_only(
    client: MlflowClient, name: str, add: Callable[..., int], new: float, *, promoted: bool
) -> None:
    old_version, new_version = add(0.75), add(new)
    champion(client, name, old_version)
    result = promote(client, candidate(client, name, new_version), FEATURES, LABELS)
    expected = new_version if promoted else old_version
    assert (result.promoted, result.champion_version, result.previous_version) == (promoted, expected, old_version)
    assert (result.value, result.champion_value, result.rows) == (new, 0.75, ROWS)
    assert champion_version(client, name) == expected


def test_unloadable_champion_keeps_its_alias(
    client: MlflowClient, name: str, add: Callable[..., int], tmp_path: Path
) -> None:
    old_version, new_version = add(str(tmp_path / "nothing")), add(1.0)
    champion(client, name, old_version)
    with pytest.raises(ChampionError, match=f"version {old_version} of .* cannot be loaded or scored"):
        promote(client, candidate(client, name, new_version), FEATURES, LABELS)
    assert champion_version(client, name) == old_version


def test_champion_that_answers_something_else_is_not_beaten_by_that(
    client: MlflowClient, name: str, add: Callable[..., int], text_model: str
) -> None:
    old_version, new_version = add(text_model), add(0.5)
    champion(client, name, old_version)
    with pytest.raises(ChampionError, match="whole class numbers"):
        promote(client, candidate(client, name, new_version), FEATURES, LABELS)
    assert champion_version(client, name) == old_version


def _run_that_trained_on(rows: NDArray[np.float32]) -> str:
    with mlflow.start_run() as run:
        registry.log_training_rows(fingerprints(rows))
    run_id: str = run.info.run_id
    return run_id


def test_rows_that_the_champion_trained_on_do_not_count(
    client: MlflowClient, name: str, add: Callable[..., int]
) -> None:
    # The champion is right in rows 10.. only; it knows 10..19 by heart, so 20.. are left besides 0..9.
    old_version = add(0.75, run_id=_run_that_trained_on(FEATURES[10:20]))
    champion(client, name, old_version)
    result = promote(client, candidate(client, name, add(1.0)), FEATURES, LABELS)
    assert (result.rows, result.value) == (30, 1.0)
    assert result.champion_value == pytest.approx(20 / 30)
    assert "without 10 that the champion was trained on" in result.reason


def test_rows_that_both_trained_on_count(client: MlflowClient, name: str, add: Callable[..., int]) -> None:
    champion(client, name, add(0.75, run_id=_run_that_trained_on(FEATURES[10:20])))
    result = promote(client, candidate(client, name, add(1.0), fingerprints(FEATURES[10:20])), FEATURES, LABELS)
    assert result.rows == ROWS


def test_too_few_rows_that_the_champion_does_not_know(client: MlflowClient, name: str, add: Callable[..., int]) -> None:
    old_version = add(0.75, run_id=_run_that_trained_on(FEATURES[:21]))
    champion(client, name, old_version)
    with pytest.raises(ChampionError, match="the other 19 are too few"):
        promote(client, candidate(client, name, add(1.0)), FEATURES, LABELS)
    assert champion_version(client, name) == old_version


def test_champion_logged_by_other_means_is_compared_on_all_rows(
    client: MlflowClient, name: str, add: Callable[..., int]
) -> None:
    champion(client, name, add(0.75))
    result = promote(client, candidate(client, name, add(1.0)), FEATURES, LABELS)
    assert (result.promoted, result.rows) == (True, ROWS)
    assert "not known what the champion was trained on" in result.reason


def test_champion_that_changes_during_the_comparison_is_compared_again(
    client: MlflowClient, name: str, add: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    old_version, new_version, best_version = add(0.5), add(0.75), add(1.0)
    champion(client, name, old_version)
    new = candidate(client, name, new_version)
    predict = registry.predict

    def slow_predict(model: str, version: int, features: Any) -> NDArray[np.int64]:
        if version == old_version:
            champion(client, name, best_version)
        return predict(model, version, features)

    monkeypatch.setattr(registry, "predict", slow_predict)
    assert not promote(client, new, FEATURES, LABELS).promoted
    assert champion_version(client, name) == best_version


def test_version_that_is_champion_already(client: MlflowClient, name: str, add: Callable[..., int]) -> None:
    version = add(1.0)
    champion(client, name, version)
    result = promote(client, candidate(client, name, version), FEATURES, LABELS)
    assert (result.promoted, result.champion_version) == (False, version)
