"""What is known about the model that is served; GET /metadata and every page and document are made from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from serving.signature import Signature, signature_dict

# An example longer than this is no use in a document.
EXAMPLE_BYTES = 4 * 1024 * 1024


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
    # Whether loading it unpickles something or runs code of its own.
    pickle: bool = True
    # The input example as a body of /invocations and as a body of /predict; None where none was logged.
    invocations_example: Any = None
    predict_example: Any = None
    # Classes of a classifier in the order of its probabilities; empty where the model has none.
    classes: tuple[Any, ...] = ()
    # What people call the classes, by the class as text: from the inventory, else from the MLmodel's metadata.
    labels: dict[str, str] = field(default_factory=dict)
    # Name and shape of an unnamed tensor's rows, from the MLmodel's metadata (digits: image, (28, 28)).
    input_name: str = "inputs"
    input_shape: tuple[int, ...] | None = None
    # "compiled" or "original", and the reason for the choice.
    predictor: str = "original"
    predictor_reason: str = ""
    mlflow_version: str = ""
    # Dictionary form of the signature for programs (MLflow's own spelling).
    signature_dict: dict[str, Any] | None = None


def read(  # noqa: PLR0913 - one keyword per setting that names the model
    path: str | Path,
    *,
    name: str = "",
    model: str = "",
    alias: str = "",
    version: str = "",
    run_id: str = "",
    image: str = "",
    metrics: Mapping[str, float] | None = None,
    pickle: bool = True,
    labels: Mapping[str, str] | None = None,
) -> ModelInformation:
    """Read the MLmodel file and the input example of the model directory ``path``; no MLflow needed.

    What the keywords leave empty is taken from the MLmodel file where it says so.
    """
    directory = Path(path)
    mlmodel: dict[str, Any] = yaml.safe_load((directory / "MLmodel").read_text(encoding="utf-8"))
    signature = Signature.from_mlmodel(mlmodel)
    metadata = mlmodel.get("metadata") or {}
    flavors = [flavor for flavor in mlmodel.get("flavors", {}) if flavor != "python_function"]
    input_name = _input_name(signature, metadata)
    input_shape = _input_shape(signature, metadata)
    example = _example(directory, mlmodel)
    return ModelInformation(
        name=name or directory.resolve().name,
        model=model or name or directory.resolve().name,
        alias=alias,
        version=version,
        run_id=run_id or str(mlmodel.get("run_id") or ""),
        image=image,
        flavor=flavors[0] if flavors else "python_function",
        signature=signature,
        metrics=dict(metrics or {}),
        pickle=pickle,
        labels=dict(labels or _labels(metadata)),
        invocations_example=example,
        predict_example=predict_example(signature, example, input_name, input_shape),
        input_name=input_name,
        input_shape=input_shape,
        mlflow_version=str(mlmodel.get("mlflow_version") or ""),
        signature_dict=signature_dict(mlmodel),
    )


def predict_example(
    signature: Signature, example: Any, input_name: str, input_shape: tuple[int, ...] | None
) -> dict[str, Any] | None:
    """The first row of a body of /invocations as a body of /predict; None where it cannot be told."""
    if not isinstance(example, dict):
        return None
    try:
        if signature.columns:
            return _record(signature, example)
        if signature.tensors:
            return _tensors(signature, example, input_name, input_shape)
    except (KeyError, IndexError, TypeError, ValueError):
        # An example of a form that this program does not know is no reason not to serve the model.
        return None
    return None


def _record(signature: Signature, example: dict[str, Any]) -> dict[str, Any] | None:
    if signature.hinted:
        # Whatever its form: the first value is what the type hint says.
        return {signature.columns[0].name: example["inputs"][0]}
    if "dataframe_split" in example:
        split = example["dataframe_split"]
        names = split.get("columns") or [column.name for column in signature.columns]
        record = dict(zip(map(str, names), split["data"][0], strict=True))
    elif "dataframe_records" in example:
        record = example["dataframe_records"][0]
    else:
        record = _first_record(signature, example.get("inputs", example.get("instances")))
    known = {column.name: record.get(column.name) for column in signature.columns}
    required = {column.name for column in signature.columns if column.required}
    return {key: value for key, value in known.items() if value is not None or key in required}


def _first_record(signature: Signature, inputs: Any) -> dict[str, Any]:
    """The first row of ``inputs``: a list of rows, a list of records, or a record of lists or of single values."""
    if isinstance(inputs, dict):
        simple = {column.name for column in signature.columns if column.type != "any"}
        lists = {key for key, value in inputs.items() if key in simple and isinstance(value, list)}
        return {key: value[0] if key in lists else value for key, value in inputs.items()}
    row = inputs[0]
    if isinstance(row, dict):
        return row
    values = row if isinstance(row, list) else [row]
    return {column.name: value for column, value in zip(signature.columns, values, strict=True)}


def _tensors(
    signature: Signature, example: dict[str, Any], input_name: str, input_shape: tuple[int, ...] | None
) -> dict[str, Any]:
    inputs: Any = example.get("inputs", example.get("instances"))
    if isinstance(inputs, dict):
        return {str(tensor.name): inputs[tensor.name][0] for tensor in signature.tensors}
    if "dataframe_split" in example:
        inputs = example["dataframe_split"]["data"]
    row = np.asarray(inputs[0])
    return {input_name: (row if input_shape is None else row.reshape(input_shape)).tolist()}


def _labels(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The labels by class: ``labels`` of the metadata is a mapping, or a list for the classes 0, 1 and so on."""
    found = metadata.get("labels")
    named = dict(enumerate(found)) if isinstance(found, list) else found if isinstance(found, dict) else {}
    return {str(key): value for key, value in named.items() if isinstance(value, str)}


def _input_name(signature: Signature, metadata: Mapping[str, Any]) -> str:
    if len(signature.tensors) == 1 and signature.tensors[0].name is not None:
        return signature.tensors[0].name
    return str(metadata.get("input_name") or "inputs")


def _input_shape(signature: Signature, metadata: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The shape in which people write a row; None where it does not have as many values as the tensor's row."""
    shape = metadata.get("input_shape")
    if len(signature.tensors) != 1 or not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        return None
    fixed = signature.dense and math.prod(shape) == signature.width
    return tuple(shape) if fixed else None


def _example(directory: Path, mlmodel: Mapping[str, Any]) -> Any:
    info = mlmodel.get("saved_input_example_info") or {}
    serving = _json(directory / str(info.get("serving_input_path") or "serving_input_example.json"))
    if serving is not None:
        return serving
    example = _json(directory / str(info.get("artifact_path") or "input_example.json"))
    if example is None:
        return None
    # MLflow before 2.16 logs no example for serving.
    if info.get("type") == "dataframe":
        return {"dataframe_split": example} if isinstance(example, dict) else {"dataframe_records": example}
    inputs = example["inputs"] if isinstance(example, dict) and "inputs" in example else example
    return {"inputs": inputs}


def _json(path: Path) -> Any:
    if not path.is_file() or path.stat().st_size > EXAMPLE_BYTES:
        return None
    # NaN is not JSON, and MLflow writes it: a missing value is null.
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
