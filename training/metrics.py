"""Scores of class predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss

from training.datasets import DataSet, Features, Labels
from training.tasks.base import Estimator

# The metric that decides about validation and promotion; every task is a classification.
DECISIVE_METRIC = "accuracy"


def accuracy(labels: Labels, predictions: NDArray[np.int64]) -> float:
    """Return the share (0..1) of ``predictions`` that equal ``labels``; both have shape (n,), n > 0."""
    if labels.shape != predictions.shape or len(labels) == 0:
        msg = f"cannot compare {predictions.shape} predictions with {labels.shape} labels"
        raise ValueError(msg)
    return float(np.mean(labels == predictions))


def score(estimator: Estimator, data: DataSet) -> dict[str, float]:
    """Return the metrics to log: accuracy, f1_macro, f1_<class> and log_loss (nats) held out, the first two also on
    training rows with the prefix ``train_``.
    """  # noqa: D205 - one sentence that needs two lines
    return _score(estimator, data.x_test, data.y_test, data.class_names, "") | {
        name: value
        for name, value in _score(estimator, data.x_train, data.y_train, data.class_names, "train_").items()
        if name in {"train_accuracy", "train_f1_macro", "train_log_loss"}
    }


def _score(
    estimator: Estimator, features: Features, labels: Labels, class_names: Sequence[str], prefix: str
) -> dict[str, float]:
    predictions = np.asarray(estimator.predict(features))
    probabilities: NDArray[Any] = np.asarray(estimator.predict_proba(features), dtype=np.float64)
    # float32 rows sum to 1 within 1e-7 only, which log_loss warns about.
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    classes = list(range(len(class_names)))
    per_class = f1_score(labels, predictions, labels=classes, average=None, zero_division=0.0)
    return {
        f"{prefix}accuracy": accuracy(labels, predictions),
        f"{prefix}f1_macro": float(np.mean(per_class)),
        f"{prefix}log_loss": float(log_loss(labels, probabilities, labels=classes)),
        **{f"{prefix}f1_{name}": float(value) for name, value in zip(class_names, per_class, strict=True)},
    }
