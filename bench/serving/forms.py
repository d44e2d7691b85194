"""How each server wants to be asked, and where its answer holds the classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Form:
    """A protocol: a body from the rows of one request, and the classes from an answer; None where an answer has none."""

    body: Callable[[list[str], NDArray[Any]], Any]
    classes: Callable[[Any], list[int]] | None


def scoring(names: list[str], rows: NDArray[Any]) -> Any:
    """MLflow's scoring protocol: a table where columns have names, else a tensor."""
    if names:
        return {"dataframe_split": {"columns": names, "data": rows.tolist()}}
    return {"inputs": rows.tolist()}


def inference(_: list[str], rows: NDArray[Any]) -> Any:
    """The Open Inference Protocol."""
    data = rows.ravel().tolist()
    return {"inputs": [{"name": "predict", "shape": list(rows.shape), "datatype": "FP32", "data": data}]}


def arrays(_: list[str], rows: NDArray[Any]) -> Any:
    """Rows of numbers under one name."""
    return {"inputs": rows.tolist()}


def records(names: list[str], rows: NDArray[Any]) -> Any:
    """Objects with a field for each column, as people name them in Python; an image is a list of numbers."""
    if names:
        fields = [field(name) for name in names]
        return {"rows": [dict(zip(fields, row, strict=True)) for row in rows.tolist()]}
    return {"rows": [{"image": row} for row in rows.tolist()]}


def field(name: str) -> str:
    """The name of a column as an identifier: `sepal length (cm)` is `sepal_length`."""
    return name.removesuffix(" (cm)").replace(" ", "_")


def mlflow_records(names: list[str], rows: NDArray[Any]) -> Any:
    """Objects with a field for each column, as the signature names them."""
    return {"data": [dict(zip(names, row, strict=True)) for row in rows.tolist()]}


FORMS = {
    "scoring": Form(scoring, lambda answer: answer["predictions"]),
    "inference": Form(inference, lambda answer: answer["outputs"][0]["data"]),
    "array": Form(arrays, lambda answer: answer),
    "arrays": Form(arrays, lambda answer: answer["predictions"]),
    "records": Form(records, lambda answer: answer["predictions"]),
    "mlflow_records": Form(mlflow_records, lambda answer: [row["prediction"] for row in answer["data"]]),
    "anything": Form(scoring, None),
}


def encode(form: Form, names: list[str], batches: NDArray[Any]) -> list[bytes]:
    """A body for each batch, without spaces, as programs write JSON."""
    return [json.dumps(form.body(names, rows), separators=(",", ":")).encode() for rows in batches]


def mistake(form: Form, expected: list[int], status: int, answer: bytes) -> str | None:
    """What is wrong with an answer, None if nothing is."""
    if status != 200:  # noqa: PLR2004
        return f"status {status}: {answer[:300].decode(errors='replace')}"
    if form.classes is None:
        return None
    try:
        found = [int(value) for value in form.classes(json.loads(answer))]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return f"{type(error).__name__}: {error} in {answer[:300].decode(errors='replace')}"
    return None if found == expected else f"predicted {found[:10]}, the model itself {expected[:10]}"
