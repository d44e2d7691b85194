"""Small models, trained in milliseconds, saved with MLflow and loaded as the server loads them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, Schema, TensorSpec
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from serving.model import ServedModel, load

Array = NDArray[Any]

WIDTH = 5
ROWS = 120


def data(classes: int) -> tuple[Array, Array]:
    """Rows of WIDTH doubles and class numbers, always the same."""
    rows, labels = make_classification(
        ROWS, WIDTH, n_informative=4, n_redundant=1, n_classes=classes, random_state=classes
    )
    return rows, labels


def network(kind: Any, **more: Any) -> Any:
    return kind(hidden_layer_sizes=(8, 6), max_iter=40, tol=1e-1, random_state=0, **more)


# Everything that has a kernel: how it is made, and whether it is a classifier.
COMPILED: dict[str, tuple[Callable[[], Any], bool]] = {
    "logistic": (LogisticRegression, True),
    "svc": (LinearSVC, True),
    "perceptron": (Perceptron, True),
    "ridge-classifier": (RidgeClassifier, True),
    "sgd-hinge": (lambda: SGDClassifier(random_state=0), True),
    "sgd-log": (lambda: SGDClassifier(loss="log_loss", random_state=0), True),
    "linear": (LinearRegression, False),
    "ridge": (Ridge, False),
    "lasso": (lambda: Lasso(0.1), False),
    "elastic-net": (lambda: ElasticNet(0.1), False),
    "sgd": (lambda: SGDRegressor(random_state=0), False),
    "mlp": (lambda: network(MLPClassifier), True),
    "mlp-tanh": (lambda: network(MLPClassifier, activation="tanh"), True),
    "mlp-logistic": (lambda: network(MLPClassifier, activation="logistic"), True),
    "mlp-regressor": (lambda: network(MLPRegressor), False),
    "tree": (lambda: DecisionTreeClassifier(random_state=0), True),
    "tree-regressor": (lambda: DecisionTreeRegressor(random_state=0), False),
    "extra-tree": (lambda: ExtraTreeClassifier(random_state=0), True),
    "extra-tree-regressor": (lambda: ExtraTreeRegressor(random_state=0), False),
    "forest": (lambda: RandomForestClassifier(12, random_state=0), True),
    "forest-regressor": (lambda: RandomForestRegressor(12, random_state=0), False),
    "extra-trees": (lambda: ExtraTreesClassifier(12, random_state=0), True),
    "extra-trees-regressor": (lambda: ExtraTreesRegressor(12, random_state=0), False),
    "boosting": (lambda: GradientBoostingClassifier(n_estimators=8, random_state=0), True),
    "boosting-regressor": (lambda: GradientBoostingRegressor(n_estimators=8, random_state=0), False),
    "scaled": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), True),
    "scaled-network": (lambda: make_pipeline(MinMaxScaler(), network(MLPClassifier)), True),
    "clipped": (lambda: make_pipeline(MinMaxScaler(clip=True), RandomForestClassifier(5, random_state=0)), True),
    "imputed": (lambda: make_pipeline(SimpleImputer(), MaxAbsScaler(), LogisticRegression()), True),
    "passed": (lambda: Pipeline([("nothing", "passthrough"), ("last", Ridge())]), False),
}


class Parity(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that scikit-learn does not know."""

    def fit(self, _: Array, labels: Array) -> Parity:
        self.classes_ = np.unique(labels)
        return self

    def predict(self, rows: Any) -> Array:
        return np.asarray(np.rint(np.asarray(rows)).sum(axis=1) % 2, dtype=np.int64)


def columns(types: Sequence[str], params: ParamSchema | None = None) -> ModelSignature:
    """A signature of required columns c0, c1, ... of these types."""
    return ModelSignature(Schema([ColSpec(kind, f"c{place}") for place, kind in enumerate(types)]), params=params)


def tensor(dtype: str, *shape: int) -> ModelSignature:
    """A signature of one unnamed tensor."""
    return ModelSignature(Schema([TensorSpec(np.dtype(dtype), (-1, *shape))]))


def save(path: Path, estimator: Any, signature: ModelSignature | None, **more: Any) -> Path:
    """Save a scikit-learn model; its requirements are not looked for, which takes seconds."""
    mlflow.sklearn.save_model(
        estimator,
        str(path),
        signature=signature,
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
        **more,
    )
    return path


def save_function(path: Path, model: Any, signature: ModelSignature | None, **more: Any) -> Path:
    """Save a python-function model."""
    mlflow.pyfunc.save_model(
        str(path), python_model=model, signature=signature, pip_requirements=["scikit-learn"], **more
    )
    return path


def served(path: Path, estimator: Any, signature: ModelSignature | None, **more: Any) -> ServedModel:
    """Save and load a scikit-learn model."""
    return load(save(path, estimator, signature, **more))
