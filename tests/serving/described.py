"""Models as documents and pages know them, one of each kind of signature."""

from __future__ import annotations

from typing import Any

import numpy as np

from serving.information import ModelInformation
from serving.signature import Column, Param, Signature, Tensor

HOSTILE = """</script><img src=x onerror=alert(1)>"'&"""
IRIS_COLUMNS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
IRIS_RECORD = dict(zip(IRIS_COLUMNS, (5.1, 3.5, 1.4, 0.2), strict=True))
CLASS_NUMBER = Tensor(None, np.dtype("int64"), (-1,))


def described(name: str, signature: Signature, **more: Any) -> ModelInformation:
    facts = {
        "model": f"prod.{name}",
        "alias": "champion",
        "version": "3",
        "run_id": "abc",
        "image": "",
        "flavor": "sklearn",
    }
    return ModelInformation(name=name, signature=signature, **{**facts, **more})


IRIS = described(
    "iris",
    Signature(columns=tuple(Column(name, "double") for name in IRIS_COLUMNS), outputs=(CLASS_NUMBER,)),
    metrics={"accuracy": 0.96667},
    classes=(0, 1, 2),
    predict_example=IRIS_RECORD,
    invocations_example={"dataframe_split": {"columns": list(IRIS_COLUMNS), "data": [list(IRIS_RECORD.values())]}},
    predictor="compiled",
    predictor_reason="equal answers on 256 rows",
)
DIGITS = described(
    "digits",
    Signature(tensors=(Tensor(None, np.dtype("float32"), (-1, 784)),), outputs=(CLASS_NUMBER,)),
    classes=tuple(range(10)),
    input_name="image",
    input_shape=(28, 28),
    predict_example=[{"image": [float(place % 256) for place in range(784)]}] * 2,
    invocations_example={"inputs": [[0.0] * 784]},
)
# Every type, required and optional, and a name that would be markup.
MIXED_RECORD = {
    "flag": True,
    "n": 3,
    "big": 2**62,
    "x": 1.5,
    HOSTILE: HOSTILE,
    "when": "2024-01-31T12:30:00",
    "tags": ["a"],
}
MIXED = described(
    "mixed",
    Signature(
        columns=(
            Column("flag", "boolean"),
            Column("maybe", "boolean", required=False),
            Column("n", "integer"),
            Column("big", "long"),
            Column("x", "float"),
            Column("opt", "double", required=False),
            Column(HOSTILE, "string"),
            Column("when", "datetime"),
            Column("blob", "binary", required=False),
            Column("tags", "any", spec={"type": "array", "items": {"type": "string"}}),
        ),
        params=(
            Param("threshold", "double", 0.5),
            Param("names", "string", ["a"], (-1,)),
            Param("loud", "boolean", default=False),
        ),
        outputs=(Column("price", "double"),),
    ),
    predict_example=MIXED_RECORD,
    flavor="python_function",
    predictor_reason=HOSTILE,
)
TWO_TENSORS = described(
    "pair",
    Signature(
        tensors=(Tensor("left", np.dtype("uint8"), (-1, 2, 3)), Tensor("right", np.dtype("float64"), (-1, -1))),
        outputs=(Tensor("sum", np.dtype("float64"), (-1, 3)),),
    ),
    predict_example={"left": [[1, 2, 3], [4, 5, 6]], "right": [0.5]},
)
BARE = described("bare", Signature())
ALL = (IRIS, DIGITS, MIXED, TWO_TENSORS, BARE)
