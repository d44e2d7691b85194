"""The Open Inference Protocol, version 2: requests, answers and metadata."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from serving import decode, limits
from serving.decode import Loc, Problems, refuse
from serving.errors import BadRequest, TooLarge
from serving.information import ModelInformation
from serving.protocols import V2_TYPES, v2_datatype
from serving.schemas import tensor_key
from serving.signature import Batch, Column, Tensor
from serving.typed import plain

BYTES = "BYTES"
# How numbers of each datatype look in binary.
BINARY = {"BOOL": "?"} | {f"{kind}{8 * size}": f"<{letter}{size}" for kind, letter, sizes in (
    ("FP", "f", (2, 4, 8)), ("INT", "i", (1, 2, 4, 8)), ("UINT", "u", (1, 2, 4, 8))) for size in sizes}  # fmt: skip
DATATYPES = sorted({BYTES, *BINARY})
# Lists that are nested deeper stay lists, and fail as values.
MAX_DEPTH = 8
# Dimensions of a shape, as numpy has them, and the largest of them: their product is never more than a short number.
MAX_DIMENSIONS, MAX_SIZE = 32, 2**31
PREDICT, PROBABILITIES = "predict", "predict_proba"


@dataclass(slots=True)
class Request:
    """The rows of an infer request and what it wants of the answer."""

    batch: Batch
    ident: str | None
    outputs: tuple[str, ...]


@dataclass(slots=True)
class _Input:
    """One input with its values flat and its place in the body."""

    name: str
    shape: tuple[int, ...]
    values: list[Any]
    loc: Loc

    @property
    def rows(self) -> int:
        return self.shape[0] if self.shape else 1

    def at(self, place: int) -> Loc:
        """The path to a value by its place in the flat data."""
        return (*self.loc, "data", place)


class Inference:
    """Reads infer requests for one model and writes their answers."""

    def __init__(self, information: ModelInformation, raw: Callable[[], Any], max_rows: int = 0) -> None:
        """``raw`` gives the RawParser when it is needed; ``max_rows`` 0 means no limit."""
        self.information = information
        self.signature = information.signature
        self.max_rows = max_rows
        self._raw = raw
        self.classes = bool(information.classes)

    def server(self) -> dict[str, Any]:
        """GET /v2."""
        return {"name": "mlflow-anywhere", "version": self.information.mlflow_version, "extensions": []}

    def metadata(self) -> dict[str, Any]:
        """GET /v2/models/NAME."""
        inputs = [
            {"name": tensor_key(item, self.information), "datatype": v2_datatype(item.dtype), "shape": list(item.shape)}
            for item in self.signature.tensors
        ] or [{"name": item.name, "datatype": V2_TYPES.get(item.type, "BYTES"), "shape": [-1]}
              for item in self.signature.columns]  # fmt: skip
        outputs = [_described(item, len(self.signature.outputs) == 1) for item in self.signature.outputs]
        outputs = outputs or [{"name": PREDICT, "datatype": "BYTES", "shape": [-1]}]
        if self.classes:
            outputs.append({"name": PROBABILITIES, "datatype": "FP64", "shape": [-1, len(self.information.classes)]})
        versions = [self.information.version] if self.information.version else []
        name, platform = self.information.name, f"mlflow_{self.information.flavor}"
        return {"name": name, "versions": versions, "platform": platform, "inputs": inputs, "outputs": outputs}

    def read(self, body: bytes, size: int | None = None) -> Request:
        """The rows of a request, whose JSON has ``size`` bytes where binary tensors follow it. Raises ServingError."""
        # The values of binary tensors are looked at one by one, as those of JSON.
        limits.slow(len(body))
        document = decode.read_json(body if size is None else body[:size])
        if not isinstance(document, dict):
            raise BadRequest("The body must be a JSON object with the key inputs")
        ident = document.get("id")
        if ident is not None and not isinstance(ident, str):
            raise refuse(("body", "id"), "expected a string", "string_type")
        inputs = self._inputs(document.get("inputs"), None if size is None else Binary(memoryview(body)[size:]))
        parameters = document.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise refuse(("body", "parameters"), "expected an object", "object_type")
        outputs = self._outputs(document.get("outputs"))
        rows = inputs[0].rows
        if self.max_rows and rows > self.max_rows:
            raise TooLarge(f"The body has {rows} rows, the limit is {self.max_rows}")
        batch = self._batch(inputs)
        batch.params = decode.parameters(self.signature, parameters, ("body", "parameters")) or None
        return Request(batch, ident, outputs)

    def _outputs(self, value: Any) -> tuple[str, ...]:
        if value is None or value == []:
            return (PREDICT,)
        names = (
            [item.get("name") if isinstance(item, dict) else None for item in value]
            if isinstance(value, list)
            else [None]
        )
        described = {item["name"] for item in self.metadata()["outputs"]} | {PREDICT}
        problems = Problems()
        for place, name in enumerate(names):
            if not isinstance(name, str) or name not in described:
                problems.add(
                    ("body", "outputs", place, "name"), f"expected one of {', '.join(sorted(described))}", "output"
                )
        problems.stop()
        return tuple(dict.fromkeys(PROBABILITIES if name == PROBABILITIES else PREDICT for name in names))

    def _inputs(self, value: Any, binary: Binary | None) -> list[_Input]:
        base: Loc = ("body", "inputs")
        if not isinstance(value, list) or not value:
            raise refuse(base, "expected a list of at least one input", "list_type" if value else "missing")
        problems = Problems()
        found = [_read_input(item, (*base, place), binary, problems) for place, item in enumerate(value)]
        problems.stop()
        if binary is not None and binary.rest:
            raise BadRequest("The body is longer than its JSON and its binary tensors")
        inputs = [item for item in found if item is not None]
        for item in inputs:
            if item.rows != inputs[0].rows:
                problems.add((*item.loc, "shape"), f"expected {inputs[0].rows} rows as in the first input", "shape")
        seen: set[str] = set()
        for place, item in enumerate(inputs):
            if item.name in seen:
                problems.add((*base, place, "name"), "an input of this name stands before", "value_error")
            seen.add(item.name)
        problems.stop()
        if not inputs[0].rows:
            raise refuse((*base, 0, "shape"), "there is no row", "too_short")
        return inputs

    def _batch(self, inputs: list[_Input]) -> Batch:
        by_name = {item.name: item for item in inputs}
        if self.signature.tensors:
            return self._tensors(inputs, by_name)
        if self.signature.columns:
            return self._columns(inputs, by_name)
        return self._anything(inputs)

    def _tensors(self, inputs: list[_Input], by_name: dict[str, _Input]) -> Batch:
        data: dict[str | None, Any] = {}
        problems = Problems()
        for spec in self.signature.tensors:
            key = tensor_key(spec, self.information)
            # The name of an unnamed tensor is ours, so clients may use one of theirs.
            only = inputs[0] if len(self.signature.tensors) == len(inputs) == 1 else None
            item = by_name.get(key, only if spec.name is None else None)
            if item is None:
                problems.add(("body", "inputs"), f"the input {key} is required", "missing")
                continue
            array = decode.tensor_items(spec, item.values, item.at, problems)
            if array is not None:
                shaped = _shaped(array, item, spec)
                if shaped is None:
                    expected = ", ".join(map(str, spec.shape))
                    problems.add((*item.loc, "shape"), f"expected [{expected}] with any number for -1", "shape")
                else:
                    data[spec.name] = shaped
        problems.stop()
        return Batch(data, inputs[0].rows)

    def _columns(self, inputs: list[_Input], by_name: dict[str, _Input]) -> Batch:
        names = [column.name for column in self.signature.columns]
        known = set(names)
        rows = inputs[0].rows
        problems = Problems()
        if len(inputs) == 1 and inputs[0].name not in known and inputs[0].shape[1:] == (len(names),):
            # The whole table as one tensor, as scikit-learn's servers have it.
            item, width = inputs[0], len(names)
            columns = {name: item.values[place::width] for place, name in enumerate(names)}
            return decode.table(self.signature, columns, rows, lambda name, row: item.at(row * width + names.index(name)),
                                problems, strict_null=True)  # fmt: skip
        for item in inputs:
            if item.name in known and item.shape not in {(rows,), (rows, 1)}:
                problems.add((*item.loc, "shape"), f"expected [{rows}] or [{rows}, 1]", "shape")
        problems.stop()
        columns = {name: by_name[name].values for name in names if name in by_name}
        limits.cells(rows, len(columns))

        def loc(name: str, row: int) -> Loc:
            return by_name[name].at(row) if name in by_name else ("body", "inputs", name)

        nested = [column for column in self.signature.columns if column.type == "any" and column.name in columns]
        for column in nested:
            columns[column.name] = [
                _nested(column, value, loc(column.name, row)) for row, value in enumerate(columns[column.name])
            ]
        batch = decode.table(self.signature, columns, rows, loc, problems, strict_null=True)
        if not any(column.type == "any" for column in self.signature.columns):
            return batch
        records = [{name: values[row] for name, values in columns.items()} for row in range(rows)]
        return self._raw().parse({"dataframe_records": records}, "dataframe_records")  # type: ignore[no-any-return]

    def _anything(self, inputs: list[_Input]) -> Batch:
        """No signature: one input is an array, several are columns."""
        if len(inputs) == 1 and len(inputs[0].shape) > 1:
            try:
                array = np.array(inputs[0].values).reshape(inputs[0].shape)
            except (ValueError, OverflowError):
                raise refuse((*inputs[0].loc, "data"), "the values are not of one type", "value_error") from None
            return Batch({}, inputs[0].rows, raw=array)
        rows = inputs[0].rows
        records = [{item.name: item.values[row] for item in inputs} for row in range(rows)]
        return self._raw().parse({"dataframe_records": records}, "dataframe_records")  # type: ignore[no-any-return]

    def answer(self, request: Request, predictions: Any, probabilities: Any, request_id: str) -> bytes:
        """The body of a 200."""
        outputs: list[dict[str, Any]] = []
        for name in request.outputs:
            if name == PROBABILITIES and probabilities is not None:
                outputs.append(_tensor_output(PROBABILITIES, np.asarray(probabilities, dtype=np.float64)))
            elif name == PREDICT:
                outputs += _prediction_outputs(predictions)
        document: dict[str, Any] = {"model_name": self.information.name, "id": request.ident or request_id}
        if self.information.version:
            document["model_version"] = self.information.version
        return _encoder.encode({**document, "outputs": outputs})


class Binary:
    """The tensors behind the JSON of a request, in the order of their inputs."""

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def values(self, datatype: str, size: Any) -> list[Any] | None:
        """The next tensor, of so many bytes; None where they are not whole values of this type."""
        if type(size) is not int or not 0 <= size <= len(self.rest):
            return None
        data, self.rest = self.rest[:size], self.rest[size:]
        if datatype == BYTES:
            return _texts(data)
        dtype = np.dtype(BINARY[datatype])
        if size % dtype.itemsize:
            return None
        values: list[Any] = np.frombuffer(data, dtype).tolist()
        # As JSON has it, which knows no NaN.
        return values if dtype.kind != "f" else [None if math.isnan(value) else value for value in values]


def _texts(data: memoryview) -> list[str] | None:
    """Texts, each behind its length in four bytes; None where they are none."""
    found = []
    place = 0
    while place < len(data):
        begin = place + 4
        place = begin + int.from_bytes(data[place:begin], "little")
        if begin > len(data) or place > len(data):
            return None
        try:
            found.append(str(data[begin:place], "utf-8"))
        except UnicodeDecodeError:
            return None
    return found


def _read_input(item: Any, loc: Loc, binary: Binary | None, problems: Problems) -> _Input | None:
    """One input, its values flat in C order."""
    if not isinstance(item, dict):
        problems.add(loc, "expected an object", "object_type")
        return None
    parameters = item.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    missing = {"name", "shape", "datatype", *(["data"] if size is None else [])} - item.keys()
    for key in sorted(missing):
        problems.add((*loc, key), "the field is required", "missing")
    if missing:
        return None
    name, shape, datatype = item["name"], item["shape"], item["datatype"]
    sizes = isinstance(shape, list) and 0 < len(shape) <= MAX_DIMENSIONS and all(map(_is_size, shape))
    wrong = [
        problem
        for good, *problem in (
            (isinstance(name, str), "name", "expected a string", "string_type"),
            (sizes, "shape", f"expected a list of 1 to {MAX_DIMENSIONS} sizes", "list_type"),
            (datatype in DATATYPES, "datatype", f"expected one of {', '.join(DATATYPES)}", "datatype"),
        )
        if not good
    ]
    for key, message, kind in wrong:
        problems.add((*loc, key), message, kind)
    if wrong:
        return None
    values = (
        _values(item["data"], datatype, loc, problems)
        if size is None
        else _behind(binary, datatype, size, loc, problems)
    )
    if values is None:
        return None
    if datatype == BYTES and len(values) in {1, shape[0]} and len(values) != math.prod(shape):
        # Some clients have the length of the texts as one more dimension.
        shape = [len(values)]
    if len(values) != math.prod(shape):
        problems.add((*loc, "data"), f"expected {math.prod(shape)} values for this shape, got {len(values)}", "shape")
        return None
    return _Input(name, tuple(shape), values, loc)


def _is_size(size: Any) -> bool:
    """Whether it can be one side of a tensor; the product of such sizes is compared with the values that came."""
    return type(size) is int and 0 <= size <= MAX_SIZE


def _values(data: Any, datatype: str, loc: Loc, problems: Problems) -> list[Any] | None:
    """What stands under ``data``: a list, nested or not, or a single text; None after a problem."""
    if datatype == BYTES and isinstance(data, str):
        return [data]
    if isinstance(data, list):
        return _flat(data)
    problems.add((*loc, "data"), "expected a list", "list_type")
    return None


def _behind(binary: Binary | None, datatype: str, size: Any, loc: Loc, problems: Problems) -> list[Any] | None:
    """What stands behind the JSON; None after a problem."""
    if binary is None:
        raise BadRequest("binary_data_size needs the header Inference-Header-Content-Length")
    values = binary.values(datatype, size)
    if values is None:
        problems.add((*loc, "parameters", "binary_data_size"), "expected the size of such values in the body", "binary")
    return values


def _flat(data: list[Any]) -> list[Any]:
    """All items of nested lists in order."""
    for _ in range(MAX_DEPTH):
        if not any(isinstance(item, list) for item in data):
            break
        data = [inner for item in data for inner in (item if isinstance(item, list) else (item,))]
    return data


def _shaped(array: Any, item: _Input, spec: Tensor) -> Any:
    """The values in the tensor's own shape, if its rows have as many; None if not."""
    want = spec.shape
    fixed = want[1:]
    if want and want[0] not in {-1, item.rows}:
        return None
    if len(item.shape) == len(want) and all(size in {-1, have} for size, have in zip(want, item.shape, strict=True)):
        return array.reshape(item.shape)
    return (
        array.reshape(item.rows, *fixed) if -1 not in fixed and math.prod(fixed) == math.prod(item.shape[1:]) else None
    )


def _nested(column: Column, value: Any, loc: Loc) -> Any:
    """A nested value, which stands in BYTES as JSON text."""
    if not isinstance(value, str) or (column.spec or {}).get("type") == "string":
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise refuse(loc, "expected JSON text", "json_invalid") from None


def _described(item: Column | Tensor, alone: bool) -> dict[str, Any]:  # noqa: FBT001 - read beside its call
    """An output of the signature."""
    name = item.name if item.name and not (alone and item.name.isdigit()) else PREDICT
    if isinstance(item, Tensor):
        return {"name": name, "datatype": v2_datatype(item.dtype), "shape": list(item.shape)}
    return {"name": name, "datatype": V2_TYPES.get(item.type, "BYTES"), "shape": [-1]}


def _prediction_outputs(predictions: Any) -> list[dict[str, Any]]:
    """One output, or one for each column of a table of predictions."""
    if hasattr(predictions, "to_dict") and hasattr(predictions, "columns"):
        return [_tensor_output(str(name), predictions[name].to_numpy()) for name in predictions.columns]
    if isinstance(predictions, list) and predictions and all(isinstance(row, dict) for row in predictions):
        return [_tensor_output(str(name), _array([row.get(name) for row in predictions])) for name in predictions[0]]
    return [_tensor_output(PREDICT, _array(predictions))]


def _array(values: Any) -> np.ndarray[Any, Any]:
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "to_numpy"):
        return np.asarray(values.to_numpy())
    try:
        return np.asarray(values)
    except ValueError:
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array


def _tensor_output(name: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    datatype = v2_datatype(array.dtype)
    output: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype}
    data: Sequence[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        data = [item if isinstance(item, str) else _text(item) for item in data]
        output["parameters"] = {"content_type": "str"}
    output["data"] = data
    return output


def _text(item: Any) -> str:
    return item.decode("latin-1") if isinstance(item, bytes) else _encoder.encode(item).decode()


_encoder = msgspec.json.Encoder(enc_hook=plain)
