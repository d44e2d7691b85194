"""One training run from the data to the champion, as the command line and notebooks use it."""

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import requests
from mlflow import MlflowClient
from mlflow.data.dataset import Dataset
from mlflow.data.numpy_dataset import from_numpy
from mlflow.data.pandas_dataset import from_pandas
from mlflow.exceptions import MlflowException

from training import registry
from training.datasets import DataSet, Features, Labels, fingerprints
from training.errors import ChampionError, TrackingError, TrainingError, UsageError, ValidationFailedError
from training.metrics import DECISIVE_METRIC, score
from training.plots import confusion_figure
from training.provenance import git_commit, model_requirements
from training.tasks import Fitted, Task

log = logging.getLogger(__name__)

# One row: it travels with the catalogue of models and is what every health check sends; a digit takes 4 KB.
EXAMPLE_ROWS = 1
# A progress line and a point of the loss curve every so many epochs.
REPORT_EVERY = 5
# MLflow's own patience, 7 retries of 120 s, is for long runs; a wrong address must show before the training.
CONNECT_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@dataclass(frozen=True)
class Options:
    """What a caller may choose; None means the task's own value."""

    experiment: str | None = None
    model: str | None = None
    run_name: str | None = None
    threshold: float | None = None
    """Lowest held-out accuracy, 0..1, with which the version passes."""
    promote: bool = True
    ui_url: str | None = None
    """Address of the MLflow UI for links; None takes the tracking address."""


@dataclass(frozen=True)
class Outcome:
    """The result of a run, as ``--json`` prints it; what did not happen is None."""

    model: str
    threshold: float
    version: int | None = None
    run_id: str | None = None
    experiment_id: str | None = None
    run_url: str | None = None
    validation_status: str | None = None
    metric: str = DECISIVE_METRIC
    value: float | None = None
    champion_version: int | None = None
    """The version that holds ``champion`` at the end."""
    previous_champion_version: int | None = None
    champion_value: float | None = None
    """Accuracy of the previous champion on ``compared_rows`` held-out rows."""
    candidate_value: float | None = None
    """Accuracy of the new version on the same rows; equals ``value`` when these are all held-out rows."""
    compared_rows: int = 0
    promoted: bool = False
    reason: str | None = None
    """Why the version was or was not promoted."""
    error: str | None = None


class Session:
    """A training run in progress; ``outcome`` is up to date at every moment, also after an error."""

    def __init__(self, task: Task, options: Options) -> None:
        """Check the options. Raises UsageError."""
        self.task = task
        self.options = options
        threshold = task.threshold if options.threshold is None else options.threshold
        if not 0.0 <= threshold <= 1.0:
            msg = f"--threshold {threshold}: expected a share between 0 and 1"
            raise UsageError(msg)
        self.outcome = Outcome(_checked_name(options.model or task.name), threshold)

    def run(self) -> Outcome:
        """Load, train, log, register, check and promote.

        Needs the tracking address in MLFLOW_TRACKING_URI or from mlflow.set_tracking_uri. Raises TrainingError; what
        the server refuses becomes TrackingError.
        """
        try:
            self._run()
        except TrainingError as error:
            self._note(error=str(error))
            raise
        except (MlflowException, requests.RequestException) as error:
            msg = redact(f"MLflow at {mlflow.get_tracking_uri()} refused or failed: {error}")
            self._note(error=msg)
            raise TrackingError(msg) from error
        return self.outcome

    def _run(self) -> None:
        client = connect()
        data = self.task.load()
        log.info("data %s: %d rows to train on, %d held out", data.name, len(data.y_train), len(data.y_test))
        experiment = mlflow.set_experiment(self.options.experiment or self.task.name)
        with mlflow.start_run(run_name=self.options.run_name) as active:
            run_id, experiment_id = active.info.run_id, experiment.experiment_id
            url = run_url(self.options.ui_url, experiment_id, run_id)
            self._note(run_id=run_id, experiment_id=experiment_id, run_url=url)
            log.info("run %s", url)
            version = self._train_and_register(data)
        # From here on the run is finished: what follows judges the version, not the training.
        check = self._validate(client, data, version)
        if check.predictions is None or check.status != registry.PASSED:
            raise ValidationFailedError(check.reason)
        candidate = registry.Candidate(self.outcome.model, version, check.predictions, fingerprints(data.x_train))
        self._promote(client, candidate, data)

    def _train_and_register(self, data: DataSet) -> int:
        task = self.task
        tags = self._tags(data)
        mlflow.set_tags(tags)
        training, held_out = _mlflow_datasets(data)
        mlflow.log_input(training, context="training")
        mlflow.log_input(held_out, context="validation")
        log.info("training %s", task.name)
        start = time.perf_counter()
        fitted = task.fit(data, _report)
        seconds = time.perf_counter() - start
        metrics = score(fitted.estimator, data)
        log.info("trained in %.1f s, held-out accuracy %.4f", seconds, metrics["accuracy"])
        mlflow.log_params(dict(fitted.params))
        mlflow.log_metric("training_seconds", seconds)
        registry.log_training_rows(fingerprints(data.x_train))
        self._log_confusion(fitted, data)
        info = mlflow.sklearn.log_model(
            fitted.estimator,
            name="model",
            signature=task.signature(data, fitted.estimator),
            input_example=data.x_train[:EXAMPLE_ROWS],
            pip_requirements=model_requirements(),
            metadata=dict(task.metadata) or None,
            skops_trusted_types=list(task.trusted_types) or None,
        )
        # With the model and the data set named, the figures also appear on the model's own page.
        mlflow.log_metrics(metrics, model_id=info.model_id, dataset=held_out)
        version = registry.register(info.model_uri, self.outcome.model, tags)
        self._note(version=version, validation_status=registry.PENDING)
        return version

    def _log_confusion(self, fitted: Fitted, data: DataSet) -> None:
        predicted = np.asarray(fitted.estimator.predict(data.x_test))
        title = f"{self.outcome.model}, {len(data.y_test)} held-out rows"
        figure = confusion_figure(data.y_test, predicted, data.class_names, title)
        mlflow.log_figure(figure, "plots/confusion_matrix.png")

    def _validate(self, client: MlflowClient, data: DataSet, version: int) -> registry.Check:
        log.info("registered version %d of %s, checking it on held-out data", version, self.outcome.model)
        check = registry.validate(client, self.outcome.model, version, data.x_test, data.y_test, self.outcome.threshold)
        champion = registry.champion_version(client, self.outcome.model)
        self._note(
            validation_status=check.status,
            value=check.value,
            champion_version=champion,
            previous_champion_version=champion,
            reason=f"validation {check.status}",
        )
        log.info("%s: %s", check.status, check.reason)
        return check

    def _promote(self, client: MlflowClient, candidate: registry.Candidate, data: DataSet) -> None:
        if not self.options.promote:
            self._note(reason="promotion was switched off")
            return
        try:
            result = registry.promote(client, candidate, data.x_test, data.y_test)
        except ChampionError as error:
            self._note(reason=str(error))
            raise
        self._note(
            promoted=result.promoted,
            champion_version=result.champion_version,
            previous_champion_version=result.previous_version,
            champion_value=result.champion_value,
            candidate_value=result.value,
            compared_rows=result.rows,
            reason=result.reason,
        )

    def _tags(self, data: DataSet) -> dict[str, str]:
        tags = {"training.task": self.task.name, "training.dataset": data.name}
        if data.source:
            tags["training.dataset_source"] = data.source
        if commit := git_commit():
            tags["training.git_commit"] = commit
        return tags

    def _note(self, **changes: Any) -> None:
        self.outcome = replace(self.outcome, **changes)


def connect() -> MlflowClient:
    """Return a client of the tracking server, after one request that proves that it answers and lets us in.

    Raises TrackingError within about half a minute if it does not.
    """
    client = MlflowClient()
    with _environment(CONNECT_LIMITS):
        try:
            client.search_experiments(max_results=1)
        except (MlflowException, requests.RequestException, UnicodeError) as error:
            msg = (
                f"no MLflow at {mlflow.get_tracking_uri()}: {error}. Check MLFLOW_TRACKING_URI, and "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD if the server asks for a login"
            )
            raise TrackingError(redact(msg)) from error
    return client


def run_url(ui_url: str | None, experiment_id: str, run_id: str) -> str:
    """Return the address of a run in the UI, or its ``runs:/`` URI if the store has no UI."""
    base = ui_url or redact(mlflow.get_tracking_uri())
    if not base.startswith(("http://", "https://")):
        return f"runs:/{run_id}"
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def redact(text: str) -> str:
    """Return ``text`` with user names and passwords taken out of the addresses in it."""
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


def _checked_name(model: str) -> str:
    # MLflow refuses these too, but only after the training.
    if not model.strip() or any(sign in model for sign in "/:"):
        msg = f"--model-name {model!r}: a registered model needs a name without '/' and ':'"
        raise UsageError(msg)
    return model


def _report(epoch: int, loss: float) -> None:
    if epoch == 1 or epoch % REPORT_EVERY == 0:
        log.info("epoch %d: training loss %.4f", epoch, loss)
        mlflow.log_metric("train_loss", loss, step=epoch)


def _mlflow_datasets(data: DataSet) -> tuple[Dataset, Dataset]:
    with warnings.catch_warnings():
        # MLflow knows two equally good readers for a local path, and says so at length.
        warnings.filterwarnings("ignore", message="The specified dataset source can be interpreted in multiple ways")
        return (
            _mlflow_dataset(data, f"{data.name}-train", data.x_train, data.y_train),
            _mlflow_dataset(data, f"{data.name}-heldout", data.x_test, data.y_test),
        )


def _mlflow_dataset(data: DataSet, name: str, features: Features, labels: Labels) -> Dataset:
    # Without a source MLflow records the code that made the data.
    source: Any = data.source or None
    if isinstance(features, pd.DataFrame):
        # As names, because MLflow warns about integer columns that might one day have gaps.
        classes = [data.class_names[label] for label in labels]
        return from_pandas(features.assign(target=classes), source=source, targets="target", name=name)
    return from_numpy(features, source=source, targets=labels, name=name)


@contextmanager
def _environment(defaults: dict[str, str]) -> Iterator[None]:
    # Only what the user has not set.
    added = {key: value for key, value in defaults.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
