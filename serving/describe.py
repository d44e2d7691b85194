"""What GET /metadata says."""

from __future__ import annotations

from typing import Any

from serving.information import ModelInformation
from serving.schemas import plain


def description(information: ModelInformation) -> dict[str, Any]:
    """Everything that is known about the model, as JSON has it."""
    document: dict[str, Any] = plain(
        {
            "name": information.name,
            "model": information.model,
            "version": information.version,
            "aliases": [information.alias] if information.alias else [],
            "run_id": information.run_id,
            "engine": "api",
            "image": information.image,
            "flavor": information.flavor,
            "mlflow_version": information.mlflow_version,
            "metrics": information.metrics,
            "pickle": information.pickle,
            "signature": information.signature_dict,
            # The bodies of /invocations, under the name that both engines use, and of /predict.
            "input_example": information.invocations_example,
            "predict_example": information.predict_example,
            "classes": list(information.classes),
            "labels": information.labels,
            "input_name": information.input_name if information.signature.tensors else None,
            "input_shape": information.input_shape,
            "predictor": {"kind": information.predictor, "reason": information.predictor_reason},
        }
    )
    return document
