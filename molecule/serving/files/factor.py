"""A model that multiplies what it gets; its configuration says what goes wrong when it is loaded."""

from __future__ import annotations

import os
import time
from typing import Any

import mlflow


class Factor(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Multiplies a tensor."""

    def load_context(self, context: Any) -> None:
        """Load, or do what a broken model does."""
        self.factor = context.model_config["factor"]
        print(f"the weights of factor {self.factor}", flush=True)  # noqa: T201
        if "LOGGING" in os.environ:
            # MLflow loads what it logs.
            return
        if context.model_config["load"] == "raise":
            raise RuntimeError("the weights are torn")
        if context.model_config["load"] == "hang":
            time.sleep(3600)

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        """Return the product."""
        return model_input * self.factor


mlflow.models.set_model(Factor())
