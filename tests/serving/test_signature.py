"""Signatures as MLmodel files of several MLflow versions have them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from serving.signature import NUMPY_TYPES, Column, Param, Signature, Tensor


def parsed(inputs: Any = None, outputs: Any = None, params: Any = None) -> Signature:
    parts = {"inputs": inputs, "outputs": outputs, "params": params}
    strings = {key: None if value is None else json.dumps(value) for key, value in parts.items()}
    return Signature.from_mlmodel({"signature": strings})


@pytest.mark.parametrize("kind", [kind for kind in NUMPY_TYPES if kind != "any"])
@pytest.mark.parametrize("required", [True, False])
def test_columns(kind: str, required: bool) -> None:
    signature = parsed([{"type": kind, "name": "a b", "required": required}])
    assert signature.columns == (Column("a b", kind, required),)  # type: ignore[arg-type]
    assert not signature.unnamed
    assert signature.dense == (required and kind in {"boolean", "integer", "long", "float", "double"})


def test_older_spellings() -> None:
    signature = parsed([{"type": "long", "name": "a"}, {"type": "double", "name": "b", "optional": True}])
    assert signature.columns == (Column("a", "long"), Column("b", "double", required=False))


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "array", "items": {"type": "double"}},
        {"type": "object", "properties": {"x": {"type": "long", "required": True}}},
        {"type": "map", "values": {"type": "string"}},
        {"type": "sparkml_vector"},
        {"type": "of the future", "more": [1]},
    ],
)
def test_nested_and_unknown_types_are_any(spec: dict[str, Any]) -> None:
    signature = parsed([{**spec, "name": "x", "required": True}])
    assert signature.columns == (Column("x", "any", spec=spec),)
    assert not signature.dense


def test_columns_without_names_are_numbered() -> None:
    signature = parsed([{"type": "double"}, {"type": "double"}])
    assert [column.name for column in signature.columns] == ["0", "1"]
    assert signature.unnamed
    assert signature.dense


def test_tensors() -> None:
    signature = parsed([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 28, 28]}}])
    assert signature.tensors == (Tensor(None, np.dtype("float32"), (-1, 28, 28)),)
    assert signature.dense
    assert signature.width == 784
    assert signature.dense_dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float32", [-1]), ("float32", [-1, -1]), ("str", [-1, 3]), ("object", [-1])]
)
def test_tensors_that_are_not_dense(dtype: str, shape: list[int]) -> None:
    assert not parsed([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}]).dense


def test_params_and_outputs() -> None:
    params = [
        {"name": "p", "default": 1.5, "shape": None, "type": "double"},
        {"name": "l", "default": [1], "shape": [-1], "dtype": "long"},
    ]
    outputs = [
        {"type": "double", "required": True},
        {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}},
    ]
    signature = parsed([{"type": "double", "name": "x"}], outputs, params)
    assert signature.params == (Param("p", "double", 1.5), Param("l", "long", [1], (-1,)))
    assert signature.outputs == (Column("0", "double"), Tensor(None, np.dtype("int64"), (-1,)))


@pytest.mark.parametrize("mlmodel", [{}, {"signature": None}, {"signature": {"inputs": None, "outputs": None}}])
def test_no_signature(mlmodel: dict[str, Any]) -> None:
    assert Signature.from_mlmodel(mlmodel) == Signature()
    assert not Signature().dense


@pytest.mark.parametrize(
    ("types", "dtype", "rounded"),
    [
        (["double", "double"], "float64", ()),
        (["float", "float"], "float32", ()),
        (["float", "double"], "float64", (0,)),
        (["integer", "long"], "int64", ()),
        (["integer", "float"], "float64", (1,)),
        (["long", "double"], "float64", ()),
        (["boolean", "boolean"], "bool", ()),
        (["boolean", "integer"], "float64", ()),
    ],
)
def test_one_dtype_for_all_columns(types: list[str], dtype: str, rounded: tuple[int, ...]) -> None:
    signature = parsed([{"type": kind, "name": str(place)} for place, kind in enumerate(types)])
    assert signature.dense_dtype == np.dtype(dtype)
    assert signature.rounded == rounded
