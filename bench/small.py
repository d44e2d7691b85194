"""Small models, one of each kind of signature, made in moments: named columns, a tensor, and a function of columns of every type."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

ALL = IRIS, DIGITS, MIXED = "iris", "digits", "mixed"
FLOWER = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}
SIDE = 28
RECORD = {
    "word": "a",
    "when": "2024-01-02T03:04:05",
    "flag": True,
    "count": 3,
    "big": 2**40,
    "share": 0.5,
    "size": 1.5,
    "blob": "YWJj",
    "note": "n",
}
OPTIONAL = ("size", "blob", "note")
TYPES = ("string", "datetime", "boolean", "integer", "long", "float", "double", "binary", "string")
PARAMS = {"factor": 1.5, "names": ["x"], "loud": False}
# Each of them takes seconds to look for requirements, or only says that there is no example.
logging.getLogger("mlflow").setLevel(logging.ERROR)


class Describe(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers with a number that another value, type or missing column would change, times a parameter."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[float]:  # noqa: ARG002
        """Return a number for each row."""
        factor = (params or {}).get("factor") or 1.0
        return [
            factor * (zlib.crc32(repr(row).encode("utf-8", "replace")) % 1000)
            for row in model_input.itertuples(index=False)
        ]


def make(directory: Path) -> dict[str, Path]:
    """Save all of them below ``directory``."""
    return {IRIS: iris(directory / IRIS), DIGITS: digits(directory / DIGITS), MIXED: mixed(directory / MIXED)}


def iris(path: Path) -> Path:
    """A classifier of four named columns."""
    rng = np.random.default_rng(8888)
    classes = np.arange(60) % 3
    rows = pd.DataFrame(rng.normal(classes[:, None] * 2, 1, (60, 4)), columns=list(FLOWER))
    model = LogisticRegression(max_iter=500).fit(rows, classes)
    example = pd.DataFrame([FLOWER])
    signature = infer_signature(rows, model.predict(rows))
    mlflow.sklearn.save_model(
        model, str(path), signature=signature, input_example=example, pip_requirements=["scikit-learn"]
    )
    return path


def digits(path: Path) -> Path:
    """A classifier of a tensor without a name, whose rows are pictures."""
    rng = np.random.default_rng(8888)
    classes = np.arange(40) % 10
    rows = rng.uniform(0, 255, (40, SIDE * SIDE)).astype(np.float32)
    model = MLPClassifier((8,), max_iter=30, random_state=0, tol=1).fit(rows, classes)
    signature = ModelSignature(Schema([TensorSpec(np.dtype("float32"), (-1, SIDE * SIDE))]),
                               Schema([TensorSpec(np.dtype("int64"), (-1,))]))  # fmt: skip
    mlflow.sklearn.save_model(
        model,
        str(path),
        signature=signature,
        input_example=rows[:1],
        pip_requirements=["scikit-learn"],
        metadata={"input_name": "image", "input_shape": [SIDE, SIDE]},
        serialization_format="cloudpickle",
    )
    return path


def mixed(path: Path) -> Path:
    """A function of columns of every type, some of them optional, with parameters."""
    columns = [ColSpec(kind, name, required=name not in OPTIONAL) for name, kind in zip(RECORD, TYPES, strict=True)]
    params = ParamSchema([ParamSpec("factor", "double", PARAMS["factor"]), ParamSpec("names", "string", PARAMS["names"], (-1,)),
                          ParamSpec("loud", "boolean", PARAMS["loud"])])  # fmt: skip
    signature = ModelSignature(Schema(columns), Schema([ColSpec("double")]), params)
    mlflow.pyfunc.save_model(str(path), python_model=Describe(), signature=signature, pip_requirements=["mlflow"])
    return path
