"""Batches joined, and in the form that a model takes: a matrix, a DataFrame, an array or a dictionary of arrays."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.signature import Batch, Signature


def kind(batch: Batch) -> Hashable | None:
    """What two batches must have in common to be joined; None for one that stays alone."""
    if batch.params is not None or batch.raw is not None:
        return None
    if batch.rows_list is not None or batch.matrix is not None:
        return "dense"
    return tuple((name, values.dtype, values.shape[1:]) for name, values in batch.data.items())


def join(signature: Signature, batches: Sequence[Batch]) -> Batch:
    """One batch with the rows of all ``batches``, which are of the same kind."""
    if len(batches) == 1:
        return batches[0]
    rows = sum([batch.rows for batch in batches])
    first = batches[0]
    if first.rows_list is None and first.matrix is None:
        columns = {name: np.concatenate([batch.data[name] for batch in batches]) for name in first.data}
        return Batch(columns, rows)
    if None in [batch.rows_list for batch in batches]:
        return Batch({}, rows, matrix=np.concatenate([matrix(signature, batch) for batch in batches]))
    return Batch({}, rows, rows_list=list(chain.from_iterable([batch.rows_list or () for batch in batches])))


def matrix(signature: Signature, batch: Batch) -> NDArray[Any]:
    """The batch of a dense signature as an array (rows, width), with the values that a DataFrame would hold."""
    if batch.matrix is not None:
        return _rounded(signature, batch.matrix.copy()) if signature.rounded else batch.matrix
    dtype = signature.dense_dtype
    if batch.rows_list is not None:
        width = signature.width
        # One pass over all numbers: a third faster than np.array over the nested lists.
        values = np.fromiter(chain.from_iterable(batch.rows_list), dtype, batch.rows * width)
        result = values.reshape(batch.rows, width)
        return _rounded(signature, result) if signature.rounded else result
    if signature.columns:
        columns = [batch.data[column.name] for column in signature.columns]
        return np.stack([values.astype(dtype, copy=False) for values in columns], axis=1)
    return batch.data[signature.tensors[0].name].reshape(batch.rows, signature.width)


def joined_matrix(signature: Signature, batches: Sequence[Batch]) -> NDArray[Any]:
    """The rows of several batches of one kind as one matrix."""
    lists = [batch.rows_list for batch in batches]
    if None in lists:
        return np.concatenate([matrix(signature, batch) for batch in batches])
    rows = list(chain.from_iterable(lists))  # type: ignore[arg-type]
    return matrix(signature, Batch({}, len(rows), rows_list=rows))


def _rounded(signature: Signature, rows: NDArray[Any]) -> NDArray[Any]:
    for position in signature.rounded:
        rows[:, position] = rows[:, position].astype(np.float32)
    return rows


def original_input(signature: Signature, batch: Batch) -> Any:
    """What ``PyFuncModel.predict`` takes: the DataFrame, array or dictionary that MLflow's own server would make."""
    if batch.raw is not None:
        return batch.raw
    if signature.columns:
        return _frame(signature, batch)
    if batch.rows_list is not None or batch.matrix is not None:
        tensor = signature.tensors[0]
        values = matrix(signature, batch).reshape(batch.rows, *tensor.shape[1:])
        return values if tensor.name is None else {tensor.name: values}
    return batch.data.get(None, batch.data)


def _frame(signature: Signature, batch: Batch) -> Any:
    # Only models that are not compiled need pandas on the way of a request.
    import pandas as pd  # noqa: PLC0415

    present = [(position, column) for position, column in enumerate(signature.columns)]
    values: dict[Any, NDArray[Any]]
    if batch.rows_list is not None:
        # Column by column, because integers above 2**53 would not survive a matrix of doubles.
        columns = list(zip(*batch.rows_list, strict=True)) or [()] * len(present)
        values = {position: np.fromiter(columns[position], column.dtype, batch.rows) for position, column in present}
    elif batch.matrix is not None:
        values = {position: batch.matrix[:, position].astype(column.dtype) for position, column in present}
    else:
        present = [(position, column) for position, column in present if column.name in batch.data]
        values = {position: batch.data[column.name] for position, column in present}
    frame = pd.DataFrame(values)
    if not signature.unnamed:
        frame.columns = [column.name for _, column in present]
    return frame
