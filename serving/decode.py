"""From Python objects to arrays: every value checked, nothing converted that would lose what the client meant."""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from serving import limits
from serving.errors import BadRequest, InvalidInput, Problem
from serving.signature import Batch, Column, Param, Signature, Tensor, largest

Loc = tuple[str | int, ...]

MAX_PROBLEMS = 20
RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
WORDS = {
    "boolean": "true or false",
    "integer": "an integer",
    "long": "an integer",
    "float": "a number",
    "double": "a number",
    "string": "a string",
    "binary": "a string of base64",
    "datetime": "a date and time as a string",
    "any": "a value",
}


class Problems:
    """The offending fields found so far; at the twentieth InvalidInput is raised, so that nobody can make the search last."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, loc: Loc, message: str, kind: str) -> None:
        self.found.append(Problem(loc, message, kind))
        if len(self.found) == MAX_PROBLEMS:
            self.stop()

    def stop(self) -> None:
        """Raise InvalidInput if anything was found."""
        if self.found:
            raise InvalidInput(self.found)


def refuse(loc: Loc, message: str, kind: str) -> InvalidInput:
    """The error with a single problem."""
    return InvalidInput([Problem(loc, message, kind)])


def read_json(body: bytes) -> Any:
    """Decode any JSON document; BadRequest where it is none, InvalidInput for numbers beyond a double."""
    limits.slow(len(body))
    try:
        return _any_decoder.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError):
        # Integers of more than 64 bits may stand for a double: the slower reader takes them.
        return _read_json_slowly(body)
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply") from None


def _read_json_slowly(body: bytes) -> Any:
    try:
        text = body.decode()
        document = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            # A lone surrogate is no text: no client could be answered with it.
            json.dumps(document, ensure_ascii=False).encode()
    except InvalidInput:
        raise
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8") from None
    except UnicodeEncodeError:
        raise BadRequest("The body has half of a surrogate pair") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        raise refuse(("body",), "a number is out of range", "number_out_of_range") from None
    return document


def _no_constant(name: str) -> Any:
    raise BadRequest(f"The body is not JSON: {name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise refuse(("body",), "a number is out of range", "number_out_of_range")
    return value


_any_decoder = msgspec.json.Decoder()


def table(  # noqa: PLR0913 - what a table is made of
    signature: Signature,
    columns: Mapping[str, Sequence[Any]],
    rows: int,
    loc: Callable[[str, int], Loc],
    problems: Problems,
    *,
    strict_null: bool = False,
    base64_binary: bool = True,
) -> Batch:
    """Check the columns, each a sequence of ``rows`` values with UNSET for what is absent, and make arrays of them.

    ``loc`` gives the path of a column's value. ``strict_null`` refuses null in required columns; without it null is
    what MLflow makes of it: NaN for numbers with a fraction, None for text. Raises InvalidInput with all problems.
    """
    data: dict[str | None, NDArray[Any]] = {}
    for column in signature.columns:
        values = columns.get(column.name)
        if values is None:
            if column.required:
                problems.add(loc(column.name, 0), "the field is required", "missing")
            continue
        kinds = set(map(type, values))
        if type(UNSET) in kinds or type(None) in kinds:
            filled = _fill(column, values, loc, problems, strict_null=strict_null)
            if filled is None:
                continue
            values = filled
        checker = Checker(column, loc, problems, base64_binary=base64_binary)
        array = checker.array(values, kinds)
        if array is not None:
            data[column.name] = array
    problems.stop()
    return Batch(data=data, rows=rows)


def _fill(
    column: Column, values: Sequence[Any], loc: Callable[[str, int], Loc], problems: Problems, *, strict_null: bool
) -> Sequence[Any] | None:
    """The values with None for what is missing; None for a column that is absent as a whole."""
    whole = column.type in {"boolean", "integer", "long"}
    if not column.required and all(value is UNSET or (whole and value is None) for value in values):
        return None
    for row, value in enumerate(values):
        if value is UNSET and column.required:
            problems.add(loc(column.name, row), "the field is required", "missing")
        elif (whole and (value is UNSET or value is None)) or (strict_null and column.required and value is None):
            problems.add(loc(column.name, row), f"expected {WORDS[column.type]}", f"{column.type}_type")
    return [None if value is UNSET else value for value in values]


class Checker:
    """Checks the values of one column and makes an array of them."""

    def __init__(
        self, column: Column, loc: Callable[[str, int], Loc], problems: Problems, *, base64_binary: bool
    ) -> None:
        self.column = column
        self.loc = loc
        self.problems = problems
        self.base64_binary = base64_binary

    def array(self, values: Sequence[Any], kinds: set[type]) -> NDArray[Any] | None:  # noqa: PLR0911 - one for each type
        """The array, or None after a problem; ``kinds`` are the types of the values."""
        kind = self.column.type
        if kind == "boolean":
            if kinds == {bool}:
                return np.array(values, dtype=np.bool_)
            self._wrong(values, bool)
            return None
        if kind in RANGES:
            return self._integers(values, kinds)
        if kind in {"float", "double"}:
            return self._floats(values, kinds)
        if kind == "any":
            return _objects(values)
        if not kinds <= {str, type(None), type(UNSET)}:
            self._wrong(values, str)
            return None
        if kind == "binary":
            return self._binary(values)
        if kind == "datetime":
            limits.dates(len(values))
        return self._datetimes(values) if kind == "datetime" else _objects(values)

    def _problem(self, row: int, message: str, kind: str) -> None:
        self.problems.add(self.loc(self.column.name, row), message, kind)

    def _wrong(self, values: Sequence[Any], *right: type) -> None:
        for row, value in enumerate(values):
            if value is not None and type(value) not in right:
                self._problem(row, f"expected {WORDS[self.column.type]}", f"{self.column.type}_type")

    def _integers(self, values: Sequence[Any], kinds: set[type]) -> NDArray[Any] | None:
        if kinds != {int}:
            # JSON has one kind of number: 1.0 is the integer 1.
            values = [int(value) if type(value) is float and value.is_integer() else value for value in values]
            if any(type(value) is not int for value in values):
                self._wrong(values, int)
                return None
        low, high = RANGES[self.column.type]
        if min(values) < low or max(values) > high:
            for row, value in enumerate(values):
                if not low <= value <= high:
                    self._problem(row, f"expected an integer from {low} to {high}", "number_out_of_range")
            return None
        return np.array(values, dtype=self.column.dtype)

    def _floats(self, values: Sequence[Any], kinds: set[type]) -> NDArray[Any] | None:
        if not kinds <= {int, float, type(None), type(UNSET)}:
            self._wrong(values, int, float)
            return None
        limit = largest(self.column.dtype)
        bad = [row for row, value in enumerate(values) if value is not None and not -limit <= value <= limit]
        for row in bad:
            self._problem(row, f"expected a number from {-limit!r} to {limit!r}", "number_out_of_range")
        return None if bad else np.array(values, dtype=self.column.dtype)

    def _binary(self, values: Sequence[str | None]) -> NDArray[Any] | None:
        decoded: list[bytes | None] = []
        for row, value in enumerate(values):
            try:
                decoded.append(None if value is None else self._bytes(value))
            except (binascii.Error, ValueError):
                self._problem(row, "expected a string of base64", "binary_type")
        return _objects(decoded) if len(decoded) == len(values) else None

    def _bytes(self, value: str) -> bytes:
        if not self.base64_binary:
            return value.encode("ascii")
        return base64.b64decode("".join(value.split()), validate=True)

    def _datetimes(self, values: Sequence[str | None]) -> NDArray[Any] | None:
        array = datetimes(values)
        if array is None:
            alone = (row for row, value in enumerate(values) if value is not None and datetimes([value]) is None)
            wrong = list(itertools.islice(alone, MAX_PROBLEMS))
            text = "expected a date and time as ISO 8601" + ("" if wrong else ", all in the same form")
            for row in wrong or range(len(values)):
                self._problem(row, text, "datetime_type")
        return array


def datetimes(values: Sequence[str | None]) -> NDArray[Any] | None:
    """Dates as pandas reads them, in nanoseconds; an offset is taken off; None where one cannot be read."""
    import pandas as pd  # noqa: PLC0415 - not needed by models without dates

    texts = pd.Series(list(values), dtype=object)
    # pandas takes the form of the first for that of all; ISO 8601 has several.
    for form in (None, "ISO8601"):
        with contextlib.suppress(ValueError, TypeError, OverflowError, AttributeError):
            parsed = pd.to_datetime(texts, format=form)
            if parsed.dtype == object:
                parsed = pd.to_datetime(texts, utc=True, format=form)
            if getattr(parsed.dt, "tz", None) is not None:
                parsed = parsed.dt.tz_convert("UTC").dt.tz_localize(None)
            return parsed.dt.as_unit("ns").to_numpy()
    return None


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    return array


def tensor(spec: Tensor, value: Any, loc: Loc, problems: Problems) -> NDArray[Any] | None:
    """Nested lists as an array of the tensor's type and shape; None after a problem."""
    flat: list[Any] = []
    shape = _flatten(value, loc, problems, flat, len(spec.shape))
    if shape is None:
        return None
    if len(shape) != len(spec.shape) or any(
        want not in {-1, have} for want, have in zip(spec.shape, shape, strict=True)
    ):
        expected = ", ".join("any" if size < 0 else str(size) for size in spec.shape)
        problems.add(loc, f"expected shape ({expected}), got ({', '.join(map(str, shape))})", "shape")
        return None
    array = tensor_items(spec, flat, lambda place: (*loc, *map(int, np.unravel_index(place, shape))), problems)
    return None if array is None else array.reshape(shape)


def _flatten(value: Any, loc: Loc, problems: Problems, flat: list[Any], depth: int) -> tuple[int, ...] | None:
    """Append the items in C order to ``flat`` and return the shape; None after a problem."""
    if not isinstance(value, list):
        flat.append(value)
        return ()
    if depth == 0 or not value:
        problems.add(loc, "expected no list here" if depth == 0 else "the list is empty", "shape")
        return None
    if depth == 1 and list not in set(map(type, value)):
        flat.extend(value)
        return (len(value),)
    shape: tuple[int, ...] | None = None
    for place, item in enumerate(value):
        inner = _flatten(item, (*loc, place), problems, flat, depth - 1)
        if inner is None:
            return None
        if shape is not None and inner != shape:
            problems.add((*loc, place), "the lists are not of the same length", "shape")
            return None
        shape = inner
    return (len(value), *(shape or ()))


TENSOR_TYPES: Mapping[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({int, float, type(None)}),
    "U": frozenset({str}),
}
TENSOR_KINDS = {"b": "true or false", "i": "an integer", "u": "an integer", "f": "a number", "U": "a string"}


def tensor_items(  # noqa: C901 - one branch for each kind of number
    spec: Tensor, flat: Sequence[Any], loc: Callable[[int], Loc], problems: Problems
) -> NDArray[Any] | None:
    """A flat array of checked items; None after a problem."""
    dtype = spec.dtype
    kind = "U" if dtype.kind in "OST" else dtype.kind
    allowed = TENSOR_TYPES.get(kind, frozenset())
    if kind in "iu":
        flat = [int(item) if type(item) is float and item.is_integer() else item for item in flat]
    before = len(problems.found)
    if not set(map(type, flat)) <= allowed:
        for place, item in enumerate(flat):
            if type(item) not in allowed:
                problems.add(loc(place), f"expected {TENSOR_KINDS.get(kind, 'no such tensor')}", f"{dtype.name}_type")
        return None
    if kind in "iuf":
        low, high = _limits(dtype)
        for place, item in enumerate(flat):
            if item is not None and not low <= item <= high:
                problems.add(loc(place), f"expected a number from {low!r} to {high!r}", "number_out_of_range")
        if len(problems.found) > before:
            return None
    if dtype.kind in "US" and flat:
        # Every item gets the room of the longest one.
        limits.cells(len(flat), max(map(len, flat)))
    if dtype.kind == "S":
        try:
            return np.array([item.encode("ascii") for item in flat], dtype=dtype)
        except UnicodeEncodeError:
            problems.add(loc(0), "expected ASCII strings", "bytes_type")
            return None
    return np.array(flat, dtype=dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "f":
        limit = largest(dtype)
        return -limit, limit
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def parameters(signature: Signature, value: Any, loc: Loc, *, forbid_extra: bool = False) -> dict[str, Any] | None:
    """The parameters that the model knows, checked; None where it has none or none is given."""
    if value is None or not signature.params:
        return None
    if not isinstance(value, dict):
        raise refuse(loc, "expected an object", "object_type")
    problems = Problems()
    known = {param.name: param for param in signature.params}
    given: dict[str, Any] = {}
    for name, item in value.items():
        param = known.get(name)
        if param is not None:
            given[name] = _parameter(param, item, (*loc, name), problems)
        elif forbid_extra:
            problems.add((*loc, name), "there is no such parameter", "extra_forbidden")
    problems.stop()
    return given


def _parameter(param: Param, value: Any, loc: Loc, problems: Problems) -> Any:
    if value is None:
        return None
    if param.shape:
        if not isinstance(value, list):
            problems.add(loc, "expected a list", "list_type")
            return None
        return [_parameter(Param(param.name, param.type, None), item, (*loc, place), problems)
                for place, item in enumerate(value)]  # fmt: skip
    if param.type == "any":
        return value
    column = Column(param.name, param.type)
    array = Checker(column, lambda _name, _row: loc, problems, base64_binary=False).array([value], {type(value)})
    if array is None or param.type in {"string", "datetime"}:
        return value
    # Plain Python objects: MLflow checks parameters once more, and knows no numpy there.
    return operator.getitem(array.tolist(), 0) if param.type != "binary" else value
