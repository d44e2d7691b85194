"""The signature of an MLflow model, as the prediction API reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

ColumnType = Literal["boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "any"]

# The numpy dtype of each column type; what has no number form is a column of Python objects.
NUMPY_TYPES: Mapping[ColumnType, np.dtype[Any]] = {
    "boolean": np.dtype(np.bool_),
    "integer": np.dtype(np.int32),
    "long": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "string": np.dtype(object),
    "binary": np.dtype(object),
    "datetime": np.dtype("datetime64[ns]"),
    "any": np.dtype(object),
}


def largest(dtype: np.dtype[Any]) -> float:
    """The largest double that is a finite number of this type of floating point.

    It is above the type's own largest number, because what is nearer to that than to the next is rounded down: numpy writes the largest
    float32 as 3.4028235e38, which is larger than it.
    """
    info = np.finfo(dtype)
    if dtype.itemsize >= np.dtype(float).itemsize:
        return float(info.max)
    return math.nextafter(float(info.max) + 2.0 ** (info.maxexp - info.nmant - 2), 0.0)


NUMBERS: frozenset[ColumnType] = frozenset({"boolean", "integer", "long", "float", "double"})


@dataclass(frozen=True)
class Column:
    """One column of a tabular signature; ``any`` stands for arrays, objects and maps, which MLflow itself checks."""

    name: str
    type: ColumnType
    required: bool = True
    # The type as the MLmodel file spells it, for nested types.
    spec: Any = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of the column's values."""
        return NUMPY_TYPES[self.type]


@dataclass(frozen=True)
class Tensor:
    """One tensor: ``name`` is None where the signature has a single unnamed one; -1 in ``shape`` is any length."""

    name: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Param:
    """One parameter of the model with its default; ``shape`` (-1,) is a list, None a single value."""

    name: str
    type: ColumnType
    default: Any
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Signature:
    """What goes in and comes out: either columns or tensors, or neither where the model has no signature."""

    columns: tuple[Column, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    params: tuple[Param, ...] = ()
    # Outputs as the MLmodel file has them, for documents.
    outputs: tuple[Column | Tensor, ...] = ()
    # The MLmodel file gives the columns no names: they are called "0", "1", ... here.
    unnamed: bool = False
    # Made of the type hint of the model's own predict, which takes a list of values: the one column stands for such a value.
    hinted: bool = False

    @classmethod
    def from_mlmodel(cls, mlmodel: Mapping[str, Any]) -> Signature:
        """Read the signature of a parsed MLmodel file; types of other MLflow versions become ``any``."""
        parts = signature_dict(mlmodel) or {}
        inputs = _specs(parts.get("inputs"))
        columns = tuple(item for item in inputs if isinstance(item, Column))
        named = [isinstance(item, Mapping) and item.get("name") is not None for item in parts.get("inputs") or ()]
        return cls(
            columns=columns,
            tensors=tuple(item for item in inputs if isinstance(item, Tensor)),
            params=tuple(_param(item) for item in parts.get("params") or ()),
            outputs=_specs(parts.get("outputs")),
            unnamed=bool(columns) and not any(named),
            hinted=bool(mlmodel.get("is_signature_from_type_hint")) and len(columns) == 1 and not any(named),
        )

    @cached_property
    def dense(self) -> bool:
        """Whether a row is always the same count of numbers: then a batch may carry ``rows_list`` or ``matrix``."""
        if self.columns:
            return all(column.required and column.type in NUMBERS for column in self.columns)
        if len(self.tensors) != 1:
            return False
        tensor = self.tensors[0]
        return tensor.dtype.kind in "biuf" and len(tensor.shape) > 1 and all(size > 0 for size in tensor.shape[1:])

    @cached_property
    def width(self) -> int:
        """Numbers in one row of a dense signature."""
        return len(self.columns) if self.columns else math.prod(self.tensors[0].shape[1:])

    @cached_property
    def dense_dtype(self) -> np.dtype[Any]:
        """The dtype of a dense matrix: of the tensor, or the one all columns fit in, as a DataFrame's values have."""
        if not self.columns:
            return self.tensors[0].dtype
        dtypes = {column.dtype for column in self.columns}
        if len(dtypes) == 1:
            return dtypes.pop()
        # Booleans among numbers make a DataFrame's values objects, which scikit-learn reads as doubles.
        return np.dtype(np.float64) if np.dtype(np.bool_) in dtypes else np.result_type(*dtypes)

    @cached_property
    def rounded(self) -> tuple[int, ...]:
        """Positions of the float columns of a dense matrix of doubles: their values have single precision."""
        if self.columns and self.dense_dtype == np.float64:
            return tuple(position for position, column in enumerate(self.columns) if column.type == "float")
        return ()


@dataclass(slots=True)
class Batch:
    """Rows to predict, decoded and checked.

    Columns: ``data`` maps each present column to an array of shape (rows,) with the column's numpy dtype (object for
    string, binary and any, where None is a missing value; datetime64[ns] for datetime). Tensors: ``data`` maps each
    tensor's name (None for the unnamed one) to an array whose first axis is the rows.

    Where ``signature.dense`` (all columns are required numbers, or one tensor of numbers with a fixed row), the fast
    form is ``rows_list`` or ``matrix`` with an empty ``data``: ``rows_list`` is a list of ``rows`` lists of plain Python
    numbers in the order of the signature's columns (a tensor's row flat in C order), values and ranges checked,
    nothing converted; ``matrix`` is an array (rows, signature.width) of ``signature.dense_dtype``. One of them is set,
    not both; many small requests are joined into one array per tick, so ``rows_list`` is best for few rows. ``matrix``
    must not stand for integers that it cannot hold: long columns among doubles with values above 2**53.
    """

    data: dict[str | None, NDArray[Any]]
    rows: int
    params: dict[str, Any] | None = None
    # A body that only MLflow's own parser understands (no signature, nested types): the object it made.
    raw: Any = None
    rows_list: Sequence[Sequence[float]] | None = None
    matrix: NDArray[Any] | None = field(default=None)


def signature_dict(mlmodel: Mapping[str, Any]) -> dict[str, Any] | None:
    """The signature with the JSON strings of the MLmodel file parsed; None where the model has none."""
    signature = mlmodel.get("signature")
    if not isinstance(signature, Mapping):
        return None
    return {key: json.loads(value) if isinstance(value, str) else value for key, value in signature.items()}


def _specs(items: Any) -> tuple[Column | Tensor, ...]:
    if not isinstance(items, list):
        return ()
    return tuple(_spec(item, str(position)) for position, item in enumerate(items))


def _spec(item: Any, position: str) -> Column | Tensor:
    if not isinstance(item, Mapping):
        return Column(position, "any", spec=item)
    name = item.get("name")
    kind = item.get("type")
    if kind == "tensor":
        spec = item.get("tensor-spec") or item
        dtype = np.dtype(str(spec["dtype"]))
        return Tensor(name, dtype, tuple(int(size) for size in spec["shape"]))
    # MLflow before 2.10 wrote `optional: true`, later ones write `required`.
    required = bool(item.get("required", not item.get("optional", False)))
    known = _column_type(kind)
    spec = {key: value for key, value in item.items() if key not in {"name", "required"}} if known == "any" else None
    return Column(position if name is None else str(name), known, required, spec)


def _param(item: Mapping[str, Any]) -> Param:
    shape = item.get("shape")
    kind = _column_type(item.get("type", item.get("dtype")))
    return Param(str(item["name"]), kind, item.get("default"), None if shape is None else tuple(shape))


def _column_type(kind: Any) -> ColumnType:
    for known in get_args(ColumnType):
        if kind == known:
            return known  # type: ignore[no-any-return]
    return "any"
