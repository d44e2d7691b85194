"""The life of a model version in the registry: registered, checked, promoted.

States of a version are the tag ``validation_status``: ``pending`` from the moment the version exists, then ``passed``
or ``failed``. The alias ``champion`` marks the version that is served.
"""

import io
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from training.datasets import Features, Labels, fingerprints
from training.errors import ChampionError, TrackingError
from training.metrics import DECISIVE_METRIC, accuracy

log = logging.getLogger(__name__)

STATUS_TAG = "validation_status"
PENDING, PASSED, FAILED = "pending", "passed", "failed"
CHAMPION = "champion"

TRAINING_ROWS_FILE = "split/training_rows.npy"
# Below this many rows that the champion has not trained on, one lucky row would decide.
MIN_COMPARABLE_ROWS = 20
# How often a promotion starts again because somebody else moved the alias meanwhile.
PROMOTION_ATTEMPTS = 3


@dataclass(frozen=True)
class Check:
    """What the check of a version found: ``passed`` or ``failed``, accuracy (0..1) and predictions of shape (n,).

    Accuracy and predictions are None if the version could not be loaded or scored.
    """

    status: str
    reason: str
    value: float | None = None
    predictions: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Candidate:
    """A new version, what it predicted on the held-out rows, and the rows it trained on (see datasets.fingerprints)."""

    model: str
    version: int
    predictions: NDArray[np.int64]
    training_rows: NDArray[np.uint64]


@dataclass(frozen=True)
class Promotion:
    """What became of a candidate.

    ``champion_version`` is the version that holds the alias now, ``previous_version`` the one before; ``value`` and
    ``champion_value`` are accuracies (0..1) on the same ``rows`` held-out rows, None if nothing was compared.
    """

    promoted: bool
    champion_version: int | None
    previous_version: int | None
    reason: str
    value: float | None = None
    champion_value: float | None = None
    rows: int = 0


def register(model_uri: str, model: str, tags: Mapping[str, str]) -> int:
    """Create a version of ``model`` from a logged model and return its number.

    The version is born with ``validation_status=pending``: there is no moment at which it exists without a status.
    """
    version = mlflow.register_model(model_uri, model, tags={**tags, STATUS_TAG: PENDING})
    return int(version.version)


def validate(  # noqa: PLR0913, PLR0917 - a version, the held-out rows, and what is asked of it
    client: MlflowClient, model: str, version: int, features: Features, labels: Labels, threshold: float
) -> Check:
    """Load the registered version back, score it on the held-out rows, tag it passed or failed.

    It passes with an accuracy of at least ``threshold`` (0..1). A version that cannot be loaded or scored has failed.
    Raises TrackingError if the tag cannot be set.
    """
    try:
        predictions = predict(model, version, features)
    except Exception as error:  # noqa: BLE001 - whatever a broken artifact raises, the version must not stay pending
        reason = f"version {version} of {model} is registered but cannot be used: {error}"
        _tag(client, model, version, {"validation.error": str(error)[:500], STATUS_TAG: FAILED})
        return Check(FAILED, reason)
    value = accuracy(labels, predictions)
    status = PASSED if value >= threshold else FAILED
    # The status comes last, so that whoever reads it also finds the figures behind it.
    figures = {
        "validation.metric": DECISIVE_METRIC,
        "validation.value": f"{value:.6f}",
        "validation.threshold": f"{threshold:g}",
        "validation.rows": str(len(labels)),
    }
    _tag(client, model, version, {**figures, STATUS_TAG: status})
    relation = "reaches" if status == PASSED else "is below"
    reason = f"version {version} of {model}: held-out {DECISIVE_METRIC} {value:.4f} {relation} {threshold:g}"
    return Check(status, reason, value, predictions)


def promote(client: MlflowClient, candidate: Candidate, features: Features, labels: Labels) -> Promotion:
    """Give ``champion`` to a candidate that passed, if there is no champion or if it is strictly better.

    Both are scored on the same held-out rows, without those that the champion trained on and the candidate did not.
    Raises ChampionError, and changes nothing, if today's champion cannot be loaded or scored.
    """
    for _ in range(PROMOTION_ATTEMPTS):
        champion = champion_version(client, candidate.model)
        decision = _decide(client, candidate, champion, features, labels)
        if not decision.promoted:
            return decision
        # Loading and scoring takes seconds; the registry has no compare-and-set, so look again just before writing.
        if champion_version(client, candidate.model) == champion:
            client.set_registered_model_alias(candidate.model, CHAMPION, str(candidate.version))
            return decision
        log.warning("%s of %s changed during the comparison, comparing again", CHAMPION, candidate.model)
    msg = f"{CHAMPION} of {candidate.model} changed {PROMOTION_ATTEMPTS} times during the comparison; nothing promoted"
    raise ChampionError(msg)


def champion_version(client: MlflowClient, model: str) -> int | None:
    """Return the number of the version that holds ``champion``, or None if no version does."""
    version = client.get_registered_model(model).aliases.get(CHAMPION)
    return None if version is None else int(version)


def log_training_rows(rows: NDArray[np.uint64]) -> None:
    """Store in the active run which rows it trained on; a later comparison leaves them out of the champion's score."""
    buffer = io.BytesIO()
    np.save(buffer, rows)
    name = Path(TRAINING_ROWS_FILE)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name.name
        path.write_bytes(buffer.getvalue())
        mlflow.log_artifact(str(path), str(name.parent))


def predict(model: str, version: int, features: Features) -> NDArray[np.int64]:
    """Load a version through the registry and return its class numbers, shape (n,).

    Raises whatever loading raises, and ValueError if the predictions are not one whole number per row.
    """
    answer: Any = mlflow.pyfunc.load_model(f"models:/{model}/{version}").predict(features)
    values = np.asarray(answer)
    if values.ndim == 2 and values.shape[1] == 1:  # noqa: PLR2004 - one column, for instance a DataFrame
        values = values[:, 0]
    if values.shape != (len(features),):
        msg = f"expected one class number for each of {len(features)} rows, got shape {values.shape}"
        raise ValueError(msg)
    # Labels of another type would never equal ours: an accuracy of 0 that says nothing about the model.
    if values.dtype.kind not in "iuf" or not np.array_equal(values, np.round(values)):
        msg = f"expected whole class numbers, got {values.dtype} such as {values[:3].tolist()}"
        raise ValueError(msg)
    return values.astype(np.int64)


def _decide(
    client: MlflowClient, candidate: Candidate, champion: int | None, features: Features, labels: Labels
) -> Promotion:
    if champion is None:
        return Promotion(
            promoted=True, champion_version=candidate.version, previous_version=None, reason="first version that passed"
        )
    if champion == candidate.version:
        return Promotion(
            promoted=False, champion_version=champion, previous_version=champion, reason="is the champion already"
        )
    fair, note = _comparable_rows(client, candidate, champion, features)
    try:
        # By number and not by alias, so that the version scored is the version looked up.
        theirs = accuracy(labels[fair], predict(candidate.model, champion, features)[fair])
    except Exception as error:
        msg = (
            f"today's champion, version {champion} of {candidate.model}, cannot be loaded or scored, "
            f"so version {candidate.version} was not promoted: {error}"
        )
        raise ChampionError(msg) from error
    ours = accuracy(labels[fair], candidate.predictions[fair])
    better = ours > theirs
    verb = "beats" if better else "does not beat"
    rows = int(fair.sum())
    reason = f"{ours:.4f} {verb} version {champion} with {theirs:.4f} on {rows} held-out rows{note}"
    return Promotion(better, candidate.version if better else champion, champion, reason, ours, theirs, rows)


def _comparable_rows(
    client: MlflowClient, candidate: Candidate, champion: int, features: Features
) -> tuple[NDArray[np.bool_], str]:
    """Return a mask over the held-out rows, shape (n,), and a note for the summary."""
    # Data sets overlap: the 10,000 images that ship with the package are the test set of full MNIST, and a champion
    # would win on rows it has learned by heart.
    known = _training_rows(client, candidate.model, champion)
    if known is None:
        return np.ones(len(features), dtype=bool), " (not known what the champion was trained on)"
    seen = np.isin(fingerprints(features), np.setdiff1d(known, candidate.training_rows))
    fair = ~seen
    if seen.any() and fair.sum() < MIN_COMPARABLE_ROWS:
        msg = (
            f"today's champion, version {champion} of {candidate.model}, was trained on {seen.sum()} of the "
            f"{len(seen)} held-out rows; the other {fair.sum()} are too few to compare, so version "
            f"{candidate.version} was not promoted"
        )
        raise ChampionError(msg)
    note = f" (without {seen.sum()} that the champion was trained on)" if seen.any() else ""
    return fair, note


def _training_rows(client: MlflowClient, model: str, version: int) -> NDArray[np.uint64] | None:
    """Return what log_training_rows stored for a version; None if it was logged by other means."""
    run_id = client.get_model_version(model, str(version)).run_id
    if not run_id:
        return None
    try:
        if TRAINING_ROWS_FILE not in _artifact_paths(client, run_id, str(Path(TRAINING_ROWS_FILE).parent)):
            return None
        with tempfile.TemporaryDirectory() as directory:
            path = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=TRAINING_ROWS_FILE, dst_path=directory
            )
            rows: NDArray[np.uint64] = np.load(path, allow_pickle=False)
    except (MlflowException, OSError, ValueError) as error:
        msg = f"cannot read what version {version} of {model} was trained on, so nothing was promoted: {error}"
        raise ChampionError(msg) from error
    return rows


def _artifact_paths(client: MlflowClient, run_id: str, folder: str) -> set[str]:
    try:
        return {file.path for file in client.list_artifacts(run_id, folder)}
    except MlflowException as error:
        # A version outlives its run: a purged run is a run that says nothing, not a reason to stop.
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return set()
        raise


def _tag(client: MlflowClient, model: str, version: int, tags: Mapping[str, str]) -> None:
    try:
        for key, value in tags.items():
            client.set_model_version_tag(model, str(version), key, value)
    except MlflowException as error:
        msg = f"version {version} of {model} could not be tagged and may still be {PENDING}: {error}"
        raise TrackingError(msg) from error
