"""Typed JSON decoders for bodies of /invocations: msgspec checks every value in C.

They know the common forms of a dense signature only and give None for everything else, right or wrong; the slower
reader in scoring.py then decides.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple
from numpy.typing import NDArray

from serving.signature import Batch, Signature, largest

# Above this many numbers an array is made at once; below, the batcher joins lists of several requests first.
LIST_NUMBERS = 256
DEPTH = 3
# Dimensions of rows of numbers.
ROWS = 2
# The ``data`` of every batch in a fast form; nobody writes to it.
EMPTY: dict[str | None, Any] = {}
# A matrix of doubles holds integers up to here exactly.
EXACT = 2**53

LEAVES: dict[str, Any] = {
    "bool": bool,
    "float32": Annotated[float, Meta(ge=-largest(np.dtype(np.float32)), le=largest(np.dtype(np.float32)))],
    "float64": float,
    **{
        f"{sign}int{bits}": Annotated[int, Meta(ge=0 if sign else -(2 ** (bits - 1)), le=2 ** (bits - (not sign)) - 1)]
        for sign, bits in itertools.product(("", "u"), (8, 16, 32))
    },
    # msgspec knows limits within 64 bits; what is above them fails at the array and goes the slow way.
    "int64": int,
}


class Table:
    """dataframe_records, dataframe_split, instances and inputs of a model with columns."""

    def __init__(self, signature: Signature) -> None:
        """Make the decoders; raises ValueError or TypeError for names and types that msgspec cannot have."""
        names = [column.name for column in signature.columns]
        leaves = [LEAVES[column.dtype.name] for column in signature.columns]
        if len(set(names)) != len(names) or signature.unnamed:
            raise ValueError("names must be unique")
        fields = [f"c{place}" for place in range(len(names))]
        rename = dict(zip(fields, names, strict=True))
        self.names = names
        # The names as the last client wrote them: most write them alike, and comparing is cheaper than decoding.
        self.header = msgspec.Raw(b"")
        self.width = len(names)
        self.dtype = signature.dense_dtype
        self.int64 = any(column.type == "long" for column in signature.columns)
        self.floats = all(column.type in {"float", "double"} for column in signature.columns)
        self.rounded = signature.rounded
        # Up to so many rows are checked completely by msgspec, and handed on as they are.
        self.plain_rows = 0 if self.int64 else LIST_NUMBERS // self.width
        self.row = msgspec.defstruct("Row", list(zip(fields, leaves, strict=True)), rename=rename, gc=False)
        lists = [(field, _list(leaf)) for field, leaf in zip(fields, leaves, strict=True)]
        columns = msgspec.defstruct("Columns", lists, rename=rename)
        same = len({column.type for column in signature.columns}) == 1
        data = _list(_list(leaves[0]) if same else tuple.__class_getitem__(tuple(leaves)))
        split = msgspec.defstruct(
            "Split",
            [("columns", msgspec.Raw), ("data", data), ("index", list[msgspec.Raw] | None, None)],
            forbid_unknown_fields=True,
        )
        rows = _list(self.row)
        either = rows | columns
        self.body = msgspec.json.Decoder(
            msgspec.defstruct(
                "Body",
                [
                    ("dataframe_split", split | UnsetType, UNSET),
                    ("dataframe_records", rows | UnsetType, UNSET),
                    ("instances", either | UnsetType, UNSET),
                    ("inputs", either | UnsetType, UNSET),
                    ("params", msgspec.Raw | UnsetType, UNSET),
                ],
            )
        )

    def read(self, body: bytes) -> tuple[Batch, msgspec.Raw | UnsetType] | None:  # noqa: C901, PLR0911 - one for each form
        """The batch and its undecoded parameters; None where the slow reader must look."""
        try:
            found: Any = self.body.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        # In the order of their likelihood, and exactly one of them.
        form = found.dataframe_records
        split = found.dataframe_split
        for other in (split, found.inputs, found.instances):
            if other is not UNSET:
                if form is not UNSET:
                    return None
                form = other
        if type(form) is list:
            rows = [astuple(row) for row in form]
        elif form is UNSET:
            return None
        elif form is split:
            rows = form.data
            if form.columns != self.header and not self.has_names(form.columns):
                return None
            if not all([len(row) == self.width for row in rows]):  # noqa: C419 - faster for few rows
                return None
            if form.index is not None and len(form.index) != len(rows):
                return None
        else:
            columns = astuple(form)
            if len(set(map(len, columns))) != 1:
                return None
            rows = list(zip(*columns, strict=True))
        batch = self.batch(rows)
        return None if batch is None else (batch, found.params)

    def has_names(self, header: msgspec.Raw) -> bool:
        """Whether the undecoded list has the columns' names in their order."""
        try:
            found = msgspec.json.decode(header)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        if found != self.names:
            return False
        self.header = header.copy()
        return True

    def batch(self, rows: list[Any]) -> Batch | None:
        """Rows that msgspec has checked, as a batch; None for what the slow reader must look at."""
        if 0 < len(rows) <= self.plain_rows:
            return Batch(EMPTY, len(rows), None, None, rows)
        return dense(rows, self.width, self.dtype, int64=self.int64, floats=self.floats, rounded=self.rounded)


class Single:
    """One tensor of numbers: nested lists under inputs or instances."""

    def __init__(self, signature: Signature) -> None:
        spec = signature.tensors[0]
        self.shape = spec.shape
        self.width = signature.width
        self.dtype = spec.dtype
        if spec.shape[0] != -1 or len(spec.shape) > DEPTH:
            raise ValueError("the slow reader knows such shapes")
        # Wide rows become an array at once, where infinity shows what did not fit: cheaper than a limit for each number.
        late = spec.dtype.name == "float32" and self.width * 2 > LIST_NUMBERS
        self.late = np.zeros(self.width, spec.dtype) if late else None
        self.body = self._decoder(float if late else LEAVES[spec.dtype.name], spec.name)
        self.levels = self._decoder(int, spec.name) if spec.dtype.kind == "f" and len(spec.shape) == ROWS else None

    def _decoder(self, value: Any, name: str | None) -> msgspec.json.Decoder[Any]:
        for _ in self.shape:
            value = _list(value)
        inputs = value
        if name is not None:
            named = msgspec.defstruct("Named", [("value", value)], rename={"value": name})
            inputs = value | named
        return msgspec.json.Decoder(
            msgspec.defstruct(
                "Body",
                [
                    ("inputs", inputs | UnsetType, UNSET),
                    ("instances", inputs | UnsetType, UNSET),
                    ("params", msgspec.Raw | UnsetType, UNSET),
                    ("dataframe_split", msgspec.Raw | UnsetType, UNSET),
                    ("dataframe_records", msgspec.Raw | UnsetType, UNSET),
                ],
            )
        )

    def read(self, body: bytes) -> tuple[Batch, msgspec.Raw | UnsetType] | None:
        """As Table.read."""
        # Integers are decoded in half the time of floats: pictures are often grey levels.
        found = self._read(self.levels, self._bytes, body) if self.levels is not None and b"." not in body else None
        return found or self._read(self.body, self.rows, body)

    @staticmethod
    def _read(
        decoder: msgspec.json.Decoder[Any], rows: Callable[[list[Any]], Batch | None], body: bytes
    ) -> tuple[Batch, msgspec.Raw | UnsetType] | None:
        try:
            found: Any = decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if found.dataframe_split is not UNSET or found.dataframe_records is not UNSET:
            return None
        form = found.inputs if found.instances is UNSET else found.instances
        if form is UNSET or (found.inputs is not UNSET and found.instances is not UNSET):
            return None
        batch = rows(form if type(form) is list else form.value)
        return None if batch is None else (batch, found.params)

    def _bytes(self, value: list[Any]) -> Batch | None:
        """Rows of integers from 0 to 255, which every float holds, as a batch; None for others."""
        if not value or not all([len(row) == self.width for row in value]):  # noqa: C419 - as above
            return None
        try:
            data = b"".join(map(bytes, value))
        except ValueError:
            return None
        return Batch({}, len(value), matrix=np.frombuffer(data, np.uint8).astype(self.dtype).reshape(-1, self.width))

    def rows(self, value: list[Any]) -> Batch | None:
        """Nested lists, typed by msgspec, as a batch."""
        if len(self.shape) == ROWS:
            if not all([len(row) == self.width for row in value]):  # noqa: C419 - as above
                return None
            return dense(
                value,
                self.width,
                self.dtype,
                int64=self.dtype.name == "int64",
                floats=self.dtype.kind == "f",
                late=self.late,
            )
        try:
            with np.errstate(over="ignore"):
                array = np.array(value, dtype=self.dtype)
        except (ValueError, OverflowError):
            return None
        if array.shape[1:] != self.shape[1:] or not len(array):
            return None
        if self.late is not None and not np.isfinite(array).all():
            return None
        return Batch({}, len(array), matrix=array.reshape(len(array), self.width))


def dense(  # noqa: PLR0913 - what a matrix is made of
    rows: list[Any],
    width: int,
    dtype: np.dtype[Any],
    *,
    int64: bool = False,
    floats: bool = False,
    late: NDArray[Any] | None = None,
    rounded: tuple[int, ...] = (),
) -> Batch | None:
    """Rows of checked numbers in the cheapest form for their count; None for no row and for numbers that do not fit."""
    count = len(rows)
    if not count:
        return None
    if count * width <= LIST_NUMBERS and late is None:
        if int64 and not _fits(rows):
            return None
        return Batch({}, count, rows_list=rows)
    array = packed(rows, width, dtype, floats=floats)
    if array is None or (late is not None and not finite(array, late)):
        return None
    if int64 and dtype.kind == "f" and not _fits(rows, EXACT):
        return None
    for position in rounded:
        array[:, position] = array[:, position].astype(np.float32)
    return Batch({}, count, matrix=array)


def packed(rows: list[Any], width: int, dtype: np.dtype[Any], *, floats: bool) -> NDArray[Any] | None:
    """Rows of ``width`` numbers as an array; None where one is out of the range of ``dtype``."""
    if floats:
        # A fifth of the time of np.array: MessagePack writes every float as a tag and a big-endian double, and every row
        # after a head whose size depends on the width. What single precision cannot hold becomes infinity, and would be
        # warned about; np.errstate would cost half as much as all the rest.
        data = _pack(rows)
        head = 1 if width < 16 else 3 if width < 2**16 else 5  # noqa: PLR2004 - of the format
        row = head + 9 * width
        first = len(data) - len(rows) * row + head + 1
        return np.ndarray((len(rows), width), ">f8", data, first, (row, 9)).astype(dtype)
    try:
        return np.array(rows, dtype=dtype)
    except (ValueError, OverflowError):
        return None


def finite(array: NDArray[Any], zeros: NDArray[Any]) -> bool:
    """Whether no number is infinite or NaN; ``zeros`` has the size of a row."""
    if len(array) == 1:
        # A third of the time: 0 times infinity is NaN.
        return not math.isnan(array[0].dot(zeros))
    return bool(np.isfinite(array).all())


def _fits(rows: list[Any], limit: int = 2**63) -> bool:
    return all(-limit <= value < limit for row in rows for value in row if type(value) is int)


def _list(item: Any) -> Any:
    """``list[item]`` for a type that is known only when the program runs."""
    return list.__class_getitem__(item)


_pack = msgspec.msgpack.Encoder().encode


def reader(signature: Signature) -> Table | Single | None:
    """The fast reader for this signature, if there can be one."""
    if not signature.dense:
        return None
    try:
        return Table(signature) if signature.columns else Single(signature)
    except (ValueError, TypeError, KeyError, NotImplementedError):
        # A quote in a name, a type that msgspec does not have, too many names: the slow reader takes all.
        return None


def raw_params(params: msgspec.Raw | UnsetType) -> Any:
    """Decode the parameters that stood beside the rows."""
    return None if isinstance(params, UnsetType) else msgspec.json.decode(params)
