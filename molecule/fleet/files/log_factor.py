"""Log and register what the fleet serves: two versions of a model that multiplies. Registers nothing a second time."""

from __future__ import annotations

import os
from importlib.metadata import version

os.environ["LOGGING"] = "yes"

import mlflow
import numpy as np
from mlflow.models import infer_signature

EXAMPLE = np.array([[0.1, 0.2], [1e-3, 1 / 3]])
client = mlflow.MlflowClient()
mlflow.set_experiment("served")
for number, factor in enumerate([3.0, 4.0], 1):
    if number <= len(client.search_model_versions("name='factor'")):
        continue
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="factor",
            python_model="/opt/log-models/factor.py",
            model_config={"factor": factor, "load": "well"},
            input_example=EXAMPLE,
            signature=infer_signature(EXAMPLE, EXAMPLE),
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas")],
        )
    mlflow.register_model(logged.model_uri, "factor", await_registration_for=0)
    if number == 1:
        client.set_registered_model_alias("factor", "champion", "1")
    print(f"logged version {number} of factor")  # noqa: T201
