"""What is known about the model that is served; GET /metadata and every page and document are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from serving.signature import Signature


@dataclass(frozen=True)
class ModelInformation:
    """The served model: where it comes from, what it takes, how it predicts."""

    name: str  # in URLs
    model: str  # registered name
    alias: str
    version: str
    run_id: str
    image: str
    flavor: str  # sklearn, python_function, ...
    signature: Signature
    metrics: dict[str, float] = field(default_factory=dict)
    # The input example as a body of /invocations and as a body of /predict; None where none was logged.
    invocations_example: Any = None
    predict_example: Any = None
    # Classes of a classifier in the order of its probabilities; empty where the model has none.
    classes: tuple[Any, ...] = ()
    # Name and shape of an unnamed tensor's rows, from the MLmodel's metadata (digits: image, (28, 28)).
    input_name: str = "inputs"
    input_shape: tuple[int, ...] | None = None
    # "compiled" or "original", and the reason for the choice.
    predictor: str = "original"
    predictor_reason: str = ""
    mlflow_version: str = ""
    # Dictionary form of the signature for programs (MLflow's own spelling).
    signature_dict: dict[str, Any] | None = None
