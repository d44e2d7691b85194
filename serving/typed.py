"""Bodies of /predict, typed from the signature, and their answers."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from serving import decode, fast, images, limits
from serving.decode import Loc, Problems, refuse
from serving.errors import TooLarge
from serving.information import ModelInformation
from serving.signature import Batch, Tensor


@dataclass(slots=True)
class Request:
    """The rows of a body, whether it was one record or a list, and what was done to the pictures of each row."""

    batch: Batch
    single: bool
    pictures: Sequence[str] = ()


class Typed:
    """Reads bodies of /predict for one model."""

    def __init__(self, information: ModelInformation, raw: Callable[[], Any], max_rows: int = 0) -> None:
        """``raw`` gives the RawParser when it is needed; ``max_rows`` 0 means no limit."""
        self.signature = information.signature
        self.shape = information.input_shape
        self.max_rows = max_rows
        self._raw = raw
        tensors = self.signature.tensors
        self.keys = {item.name if item.name is not None else information.input_name: item for item in tensors}
        self.needs_raw = (
            not (self.signature.columns or tensors)
            or self.signature.hinted
            or any(column.type == "any" for column in self.signature.columns)
        )
        self._fast = fast.reader(self.signature)
        self._decoders = list(self._make_decoders())

    def _make_decoders(self) -> list[msgspec.json.Decoder[Any]]:
        """Decoders for the common forms of a dense signature: records, or one tensor flat or nested."""
        if isinstance(self._fast, fast.Table):
            fields = [(field.name, field.type) for field in msgspec.structs.fields(self._fast.row)]
            rename = {field.name: field.encode_name for field in msgspec.structs.fields(self._fast.row)}
            row = msgspec.defstruct("Record", fields, rename=rename, gc=False, forbid_unknown_fields=True)
            return [msgspec.json.Decoder(row | list[row])]  # type: ignore[valid-type]
        if isinstance(self._fast, fast.Single):
            item = fast.LEAVES[self._fast.dtype.name]
            shapes = {1, len(self.shape or (0,)), len(self._fast.shape) - 1}
            found = []
            for depth in sorted(shapes):
                value: Any = item
                for _ in range(depth):
                    value = list[value]
                record = msgspec.defstruct("Record", [("value", value)], rename={"value": next(iter(self.keys))},
                                           forbid_unknown_fields=True)  # fmt: skip
                found.append(msgspec.json.Decoder(record | list[record]))  # type: ignore[valid-type]
            return found
        return []

    def read(self, body: bytes) -> Request:
        """The rows in the body. Raises ServingError."""
        request = self._read_fast(body) or self._read_slowly(decode.read_json(body))
        if self.max_rows and request.batch.rows > self.max_rows:
            raise TooLarge(f"The body has {request.batch.rows} rows, the limit is {self.max_rows}")
        return request

    def _read_fast(self, body: bytes) -> Request | None:
        for decoder in self._decoders:
            try:
                found = decoder.decode(body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            single = type(found) is not list
            rows: list[Any] = [found] if single else found
            if isinstance(self._fast, fast.Table):
                batch = self._fast.batch(list(map(msgspec.structs.astuple, rows)))
            else:
                batch = self._dense_tensor([row.value for row in rows])
            if batch is not None:
                return Request(batch, single)
        return None

    def _dense_tensor(self, values: list[Any]) -> Batch | None:
        spec = next(iter(self.keys.values()))
        width = self.signature.width
        try:
            array = np.array(values, dtype=spec.dtype)
        except (ValueError, OverflowError):
            return None
        if not values or array.shape[1:] not in {(width,), self.shape, spec.shape[1:]}:
            return None
        return Batch({}, len(values), matrix=array.reshape(len(values), width))

    def _read_slowly(self, document: Any) -> Request:
        params = None
        base: Loc = ("body",)
        if self._wrapped(document):
            for key in document:
                if key not in {"records", "params"}:
                    raise refuse(("body", str(key)), "there is no such field", "extra_forbidden")
            params = decode.parameters(self.signature, document.get("params"), ("body", "params"), forbid_extra=True)
            document, base = document["records"], ("body", "records")
        single = isinstance(document, dict)
        if not single and not isinstance(document, list):
            raise refuse(base, "expected a record or a list of records", "object_type")
        records: list[Any] = [document] if single else document
        if not records:
            raise refuse(base, "there is no record", "too_short")
        problems = Problems()
        for row, record in enumerate(records):
            if not isinstance(record, dict):
                problems.add((*base, row), "expected a record: an object with the model's fields", "object_type")
        problems.stop()
        loc: Callable[[int], Loc] = (lambda _row: base) if single else (lambda row: (*base, row))
        pictures: dict[int, str] = {}
        batch = self._batch(records, loc, pictures)
        batch.params = params
        return Request(batch, single, [pictures.get(row, "") for row in range(batch.rows)] if pictures else ())

    def _wrapped(self, document: Any) -> bool:
        names = {column.name for column in self.signature.columns} | set(self.keys)
        return bool(
            self.signature.params and isinstance(document, dict) and "records" in document and "records" not in names
        )

    def _batch(self, records: list[dict[str, Any]], loc: Callable[[int], Loc], pictures: dict[int, str]) -> Batch:
        if self.keys:
            return self._tensors(records, loc, pictures)
        problems = Problems()
        if self.signature.columns:
            names = [column.name for column in self.signature.columns]
            limits.cells(len(records), len(names))
            self._forbid(records, names, loc, problems)
            columns = {name: [record.get(name, UNSET) for record in records] for name in names}
            try:
                batch = decode.table(self.signature, columns, len(records), lambda name, row: (*loc(row), name), problems,
                                     strict_null=True)  # fmt: skip
            finally:
                problems.found.sort(key=lambda problem: tuple(map(str, problem.loc)))
            if not self.needs_raw:
                return batch
            if self.signature.hinted:
                # As under the key inputs of /invocations: the model itself checks them.
                return self._raw().parse({"inputs": columns[names[0]]}, "inputs")  # type: ignore[no-any-return]
        return self._raw().parse({"dataframe_records": records}, "dataframe_records")  # type: ignore[no-any-return]

    @staticmethod
    def _forbid(
        records: list[dict[str, Any]], names: Sequence[str], loc: Callable[[int], Loc], problems: Problems
    ) -> None:
        known = set(names)
        for row, record in enumerate(records):
            for key in record.keys() - known if not record.keys() <= known else ():
                problems.add((*loc(row), key), "there is no such field", "extra_forbidden")

    def _tensors(self, records: list[dict[str, Any]], loc: Callable[[int], Loc], pictures: dict[int, str]) -> Batch:
        problems = Problems()
        self._forbid(records, list(self.keys), loc, problems)
        data: dict[str | None, Any] = {}
        pixels = images.Pixels()
        if self.shape is not None:
            limits.pictures(
                sum(isinstance(record.get(key), str) for record in records for key in self.keys), math.prod(self.shape)
            )
        for key, spec in self.keys.items():
            rows: list[Any] = []
            for row, record in enumerate(records):
                if key not in record:
                    problems.add((*loc(row), key), "the field is required", "missing")
                    continue
                place = (*loc(row), key)
                value, done = self._seen(spec, record[key], place, problems, pixels)
                if done:
                    pictures[row] = done
                refused = value is None and record[key] is not None
                rows.append(None if refused else self._tensor_row(spec, value, place, problems))
            if not problems.found:
                if len({row.shape for row in rows if row is not None}) > 1:
                    raise refuse((*loc(0), key), "the records have different shapes", "shape")
                data[spec.name] = np.stack(rows)
                if spec.shape and spec.shape[0] not in {-1, len(rows)}:
                    raise refuse(loc(0), f"the model takes exactly {spec.shape[0]} records", "shape")
        problems.stop()
        return Batch(data, len(records))

    def _seen(self, spec: Tensor, value: Any, loc: Loc, problems: Problems, pixels: images.Pixels) -> tuple[Any, str]:
        """The value, a picture as its numbers and what was done to it; None after a problem with a picture."""
        if not isinstance(value, str) or self.shape is None or len(self.shape) != 2 or spec.dtype.kind not in "iuf":  # noqa: PLR2004 - height and width
            return value, ""
        picture = images.png_picture(value, (self.shape[0], self.shape[1]), loc, problems, pixels)
        return (None, "") if picture is None else (picture.levels.tolist(), picture.done)

    def _tensor_row(self, spec: Tensor, value: Any, loc: Loc, problems: Problems) -> Any:
        """One row, flat or nested."""
        inner = spec.shape[1:]
        width = self.signature.width if self.signature.dense else -1
        shapes = list(dict.fromkeys([inner, *([self.shape] if self.shape else []), *([(width,)] if width > 0 else [])]))
        return self._shaped_row(spec, value, shapes, loc, problems)

    @staticmethod
    def _shaped_row(spec: Tensor, value: Any, shapes: Sequence[tuple[int, ...]], loc: Loc, problems: Problems) -> Any:
        """Lists in the first of these shapes that fits, in the tensor's own."""
        inner = spec.shape[1:]
        attempts = []
        for shape in shapes:
            tried = Problems()
            array = decode.tensor(Tensor(spec.name, spec.dtype, shape), value, loc, tried)
            if array is not None:
                return array if -1 in inner else array.reshape(inner)
            attempts.append(tried)
        # The form that came nearest has a problem with a value, not with the shape.
        best = next((tried for tried in attempts if any(item.type != "shape" for item in tried.found)), attempts[0])
        for item in best.found:
            problems.add(item.loc, item.msg, item.type)
        return None


def answer(  # noqa: PLR0913 - what an answer is made of
    predictions: Sequence[Any],
    probabilities: Sequence[Sequence[float]] | None,
    *,
    single: bool,
    names: Sequence[str],
    origin: Mapping[str, str],
    pictures: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> bytes:
    """The body of a 200; ``names`` are the classes as text, ``origin`` the model and its version, ``pictures`` what was done to each.

    ``labels`` are what people call the classes, by the class as text; a prediction without one has none.
    """
    if probabilities is None:
        items: list[dict[str, Any]] = [{"prediction": value} for value in predictions]
    else:
        items = [
            {"prediction": value, "probabilities": dict(zip(names, row, strict=True))}
            for value, row in zip(predictions, probabilities, strict=True)
        ]
    for item in items if labels else ():
        value = item["prediction"]
        named = labels.get(label(value)) if labels and isinstance(value, str | int | float | np.generic) else None
        if named is not None:
            item["label"] = named
    for item, done in zip(items, pictures, strict=False):
        if done:
            item["picture"] = done
    document = {**items[0], **origin} if single else {"predictions": items, **origin}
    return _encoder.encode(document)


def label(value: Any) -> str:
    """A class as the key of its probability."""
    value = value.item() if isinstance(value, np.generic) else value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def rows_of(predictions: Any, rows: int) -> Sequence[Any]:
    """One prediction for each row, whatever the model returned."""
    if hasattr(predictions, "to_dict") and hasattr(predictions, "columns"):
        found: Any = predictions.to_dict(orient="records")
    elif hasattr(predictions, "tolist"):
        found = predictions.tolist()
    else:
        found = predictions
    if isinstance(found, list | tuple) and len(found) == rows:
        return found
    if isinstance(found, dict) and found and all(hasattr(item, "__len__") and not isinstance(item, str) and len(item) == rows
                                                 for item in found.values()):  # fmt: skip
        return [{name: item[row] for name, item in found.items()} for row in range(rows)]
    # Not one answer per row: every row gets the whole.
    return [found] * rows


def plain(value: Any) -> Any:
    """What msgspec does not know, as something that it does."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.datetime64):
        return str(np.datetime_as_string(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


_encoder = msgspec.json.Encoder(enc_hook=plain)
