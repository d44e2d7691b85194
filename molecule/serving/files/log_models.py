"""Log and register what the scenario serves: two good versions of one model, one good and several bad ones of another.

Runs in the runtime image; registers nothing a second time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

FACTOR = str(Path(__file__).with_name("factor.py"))
PINNED = [f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "numpy", "pandas")]
client = mlflow.MlflowClient()


def iris(strength: float) -> str:
    """Log a classifier that answers with probabilities; return where it is."""
    data = load_iris(as_frame=True)
    model = LogisticRegression(C=strength, max_iter=500).fit(data.data, data.target)
    with mlflow.start_run():
        mlflow.log_metric("accuracy", model.score(data.data, data.target))
        return str(
            mlflow.sklearn.log_model(
                model,
                name="iris",
                pyfunc_predict_fn="predict_proba",
                input_example=data.data.head(3),
                signature=infer_signature(data.data, model.predict_proba(data.data)),
                pip_requirements=PINNED,
            ).model_uri
        )


def factor(number: float, load: str = "well", requirements: list[str] | None = None) -> str:
    """Log a model that multiplies by a number; return where it is."""
    example = np.array([[0.1, 0.2], [1e-3, 1 / 3]])
    with mlflow.start_run():
        return str(
            mlflow.pyfunc.log_model(
                name="factor",
                python_model=FACTOR,
                model_config={"factor": number, "load": load},
                input_example=example,
                signature=infer_signature(example, example * 2),
                pip_requirements=requirements or PINNED,
            ).model_uri
        )


def register(name: str, number: int, uri: Callable[[], str], *aliases: str, **tags: Any) -> None:
    """Log and register a version of a model with aliases and tags, unless an earlier run did."""
    if number <= len(client.search_model_versions(f"name='{name}'")):
        return
    mlflow.register_model(uri(), name, await_registration_for=0)
    for alias in aliases:
        client.set_registered_model_alias(name, alias, str(number))
    for key, value in tags.items():
        client.set_model_version_tag(name, str(number), key, value)
    print(f"logged version {number} of {name}")  # noqa: T201


def main() -> None:
    """Log and register everything that is missing."""
    mlflow.set_experiment("served")
    register("iris", 1, lambda: iris(1.0), "champion")
    register("iris", 2, lambda: iris(0.01), "challenger", validation_status="passed")
    name = "prod.test.factor"
    register(name, 1, lambda: factor(3.0), "torn", "slow", "unbuildable")
    register(name, 2, lambda: factor(4.0, load="raise"))
    register(name, 3, lambda: factor(5.0, load="hang"))
    # A version of a real package that was never there.
    register(name, 4, lambda: factor(6.0, requirements=[f"mlflow=={version('mlflow')}", "scikit-learn==0.0.7"]))
    register(name, 5, lambda: factor(7.0), "rejected", validation_status="failed")


# MLflow loads what it logs; a broken model breaks when it is served.
os.environ["LOGGING"] = "yes"
main()
