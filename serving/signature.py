"""The signature of an MLflow model, as the prediction API reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ColumnType = Literal["boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "any"]


@dataclass(frozen=True)
class Column:
    """One column of a tabular signature; ``any`` stands for arrays, objects and maps, which MLflow itself checks."""

    name: str
    type: ColumnType
    required: bool = True
    # The type as the MLmodel file spells it, for nested types.
    spec: Any = None


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


@dataclass(frozen=True)
class Batch:
    """Rows to predict, decoded and checked.

    Columns: ``data`` maps each present column to an array of shape (rows,) with the column's numpy dtype (object for string, binary, datetime
    as datetime64[ns], any). Tensors: maps each tensor's name (None for the unnamed one) to an array whose first axis is the rows.
    """

    data: dict[str | None, NDArray[Any]]
    rows: int
    params: dict[str, Any] | None = None
    # A body that only MLflow's own parser understands (no signature, nested types): the object it made.
    raw: Any = None
