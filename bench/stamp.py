"""A model whose answers tell its version: it multiplies by a number that every version has of its own. Logged by LOG in rollouts.py."""

from __future__ import annotations

from typing import Any

import mlflow


class Stamp(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Multiplies a tensor."""

    def load_context(self, context: Any) -> None:
        """Learn the version's number."""
        self.factor = context.model_config["factor"]

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002
        """Return the product."""
        return model_input * self.factor


mlflow.models.set_model(Stamp())
