"""A model behind the fastapi-mlflow package, as its documentation shows."""

from __future__ import annotations

import os

from fastapi_mlflow.applications import build_app  # type: ignore[import-not-found]
from mlflow.pyfunc import load_model

app = build_app(load_model(os.environ["BENCH_MLFLOW_MODEL"]))
