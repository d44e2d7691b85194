"""MLflow's scoring protocol: bodies of /invocations and their answers."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from serving import decode, fast, limits
from serving.decode import Loc, Problems, refuse
from serving.errors import BadRequest, ServingError, TooLarge, UnsupportedMediaType
from serving.signature import Batch, Signature, Tensor

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
# Chats, completions and embeddings have one of these instead (mlflow.pyfunc.utils.serving_data_parser).
CHAT_KEYS = frozenset({"messages", "prompt", "input"})
CSV, JSON, PARQUET = "text/csv", "application/json", "application/vnd.apache.parquet"
# Columns that a CSV may have besides the model's; rows of Parquet that are unpacked at once.
MORE_COLUMNS = 1000
PARQUET_ROWS = 1024
CSV_TYPES = {"integer": "int64", "long": "int64", "boolean": "bool", "float": "float32", "double": "float64"}
# Predictions that are written in one go.
PIECE = 20_000
ONE_FORM = (
    "The body must be a JSON object with exactly one of the keys dataframe_split, dataframe_records, instances, inputs"
)


class Chat(Batch):
    """A body in the form of chats, completions and embeddings: its answer has no key ``predictions`` either."""


def media_type(content_type: str | None) -> str:
    """The media type of the header, if /invocations takes it with its parameters."""
    if not content_type:
        raise UnsupportedMediaType(f"The header Content-Type is missing; send {JSON} or {CSV}")
    name, *parameters = (part.strip() for part in content_type.split(";"))
    for parameter in filter(None, parameters):
        key, _, value = parameter.partition("=")
        if key.strip().lower() != "charset":
            raise UnsupportedMediaType("The only parameter of Content-Type that is known is charset")
        if value.strip().strip('"').lower() not in {"utf-8", "utf8"}:
            raise UnsupportedMediaType("Only UTF-8 is supported")
    name = name.lower()
    if name not in {CSV, JSON, PARQUET}:
        raise UnsupportedMediaType(f"The content type is not one of {JSON}, {CSV}")
    return name


class Scoring:
    """Reads bodies for one model."""

    def __init__(self, signature: Signature, raw: Callable[[], Any], max_rows: int = 0) -> None:
        """``raw`` gives the RawParser when it is needed; ``max_rows`` 0 means no limit."""
        self.signature = signature
        self.max_rows = max_rows
        self.fast = fast.reader(signature)
        self._raw = raw
        typed = not signature.columns and not signature.tensors
        self.needs_raw = typed or any(column.type == "any" for column in signature.columns) or any(
            tensor.dtype.kind not in "biufUS" for tensor in signature.tensors
        )  # fmt: skip

    def read(self, body: bytes, content_type: str | None) -> Batch:
        """The batch in the body. Raises ServingError."""
        if content_type != JSON:
            kind = media_type(content_type)
            if kind != JSON:
                return self.limited(self.read_frame(body, kind))
        found = None if self.fast is None else self.fast.read(body)
        if found is not None:
            batch, params = found
            if params is not UNSET:
                value = fast.raw_params(params)
                batch.params = decode.parameters(self.signature, value, ("body", "params"))
            return self.limited(batch) if batch.rows > 1 else batch
        return self.limited(self.read_slowly(decode.read_json(body)))

    def limited(self, batch: Batch) -> Batch:
        """The batch, if it has no more rows than allowed."""
        if self.max_rows and batch.rows > self.max_rows:
            raise TooLarge(f"The body has {batch.rows} rows, the limit is {self.max_rows}")
        return batch

    def read_slowly(self, document: Any) -> Batch:
        """Any form, value by value, with a path to each problem."""
        if not isinstance(document, dict):
            raise BadRequest(ONE_FORM)
        forms = [form for form in FORMS if form in document]
        if not forms and not CHAT_KEYS.isdisjoint(document):
            return self._chat(document)
        if len(forms) != 1:
            raise BadRequest(ONE_FORM)
        form = forms[0]
        params = decode.parameters(self.signature, document.get("params"), ("body", "params"))
        value = document[form]
        if self.signature.columns:
            columns, rows, loc = self._columns(form, value)
            batch = decode.table(
                self.signature, columns, rows, loc, Problems(), base64_binary=form.startswith("dataframe")
            )
        elif self.signature.tensors and not self.needs_raw:
            batch = self._tensors(form, value)
        else:
            batch = Batch({}, 0)
        if self.needs_raw:
            batch = self._raw().parse(document, form)
        batch.params = params
        return batch

    def _chat(self, document: dict[str, Any]) -> Chat:
        """A chat, a completion or an embedding: one record, its parameters beside the columns."""
        if self.needs_raw:
            batch: Batch = self._raw().chat(document)
            return Chat(batch.data, batch.rows, batch.params, batch.raw)
        if not self.signature.columns:
            raise BadRequest(ONE_FORM)
        names = {param.name for param in self.signature.params}
        params = {key: value for key, value in document.items() if key in names}
        record = {key: value for key, value in document.items() if key not in names}
        keys = {column.name: column.name for column in self.signature.columns}
        columns, rows, _ = records([record], keys, ("body",))
        batch = decode.table(
            self.signature, columns, rows, lambda name, _row: ("body", name), Problems(), base64_binary=False
        )
        return Chat(batch.data, batch.rows, decode.parameters(self.signature, params, ("body",)))

    def _columns(  # noqa: C901 - one branch for each form
        self, form: str, value: Any
    ) -> tuple[Mapping[str, list[Any]], int, Callable[[str, int], Loc]]:
        """The values by column, their count and the way to their paths."""
        names = [column.name for column in self.signature.columns]
        base: Loc = ("body", form)
        if form == "dataframe_split":
            found, rows = split(value, names, positional=self.signature.unnamed)
            columns = {name: [row[place] for row in rows] for name, place in found.items() if name in names}
            return columns, len(rows), lambda name, row: (*base, "data", row, found.get(name, name))
        if form == "dataframe_records" and not isinstance(value, list):
            raise BadRequest("dataframe_records must be a list of records")
        if isinstance(value, dict) and not self.signature.unnamed:
            columns, count = by_column(value, names, base)
            limits.cells(count, len(columns))
            return columns, count, lambda name, row: (*base, name, row) if name in value else (*base, name)
        if not isinstance(value, list):
            raise refuse(base, "expected a list of rows", "list_type")
        if not value:
            raise refuse(base, "there is no row", "too_short")
        if all(isinstance(row, dict) for row in value):
            limits.cells(len(value), len(names))
            if self.signature.unnamed:
                keys = dict(zip(names, value[0], strict=False))
                return records(value, keys, base)
            return records(value, {name: name for name in names}, base)
        if form != "dataframe_records" and not any(isinstance(row, dict) for row in value):
            if len(names) == 1 and not any(isinstance(row, list) for row in value):
                return {names[0]: value}, len(value), lambda _name, row: (*base, row)
            if self.signature.unnamed:
                found, rows = split({"data": value}, names, positional=True)
                columns = {name: [row[place] for row in rows] for name, place in found.items()}
                return columns, len(rows), lambda name, row: (*base, row, found[name])
        problems = Problems()
        for row, item in enumerate(value):
            if not isinstance(item, dict):
                problems.add((*base, row), "expected a record with the names of the columns", "object_type")
        problems.stop()
        raise refuse(base, "expected a list of records", "list_type")

    def _tensors(self, form: str, value: Any) -> Batch:
        tensors, base = self.signature.tensors, ("body", form)
        values: dict[str | None, tuple[Any, Loc]] = {}
        if form.startswith("dataframe"):
            values = self._tensor_frame(form, value)
        elif tensors[0].name is None:
            values[None] = (value, base)
        elif isinstance(value, dict):
            values = {name: (item, (*base, name)) for name, item in value.items()}
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            limits.cells(len(value), len(tensors))
            values = {tensor.name: ([row.get(tensor.name) for row in value], (*base, str(tensor.name)))
                      for tensor in tensors}  # fmt: skip
        elif len(tensors) == 1:
            values[tensors[0].name] = (value, base)
        return tensor_batch(tensors, values, base)

    def _tensor_frame(self, form: str, value: Any) -> dict[str | None, tuple[Any, Loc]]:
        """A table as tensors: one column for each named tensor, or one number a column for the unnamed one."""
        if form == "dataframe_split":
            found, rows = split(value, [], positional=False)
        elif not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
            raise BadRequest("dataframe_records must be a list of records")
        else:
            found = {str(name): place for place, name in enumerate(value[0])}
            limits.cells(len(value), len(found))
            rows = [[row.get(name) for name in value[0]] for row in value]
        base: Loc = ("body", form)
        if self.signature.tensors[0].name is None:
            only = len(found) == 1 or (rows and len(rows[0]) == 1)
            inner = [row[0] if only and isinstance(row[0], list) else row for row in rows]
            return {None: (shaped(inner, self.signature.tensors[0]), base)}
        return {
            tensor.name: (shaped([row[found[str(tensor.name)]] for row in rows], tensor), (*base, str(tensor.name)))
            for tensor in self.signature.tensors
            if tensor.name in found
        }

    def read_frame(self, body: bytes, kind: str) -> Batch:
        """A table as CSV or Parquet."""
        limits.not_in_loop()
        limits.table_bytes(len(body), kind)
        try:
            # Numbers that are too large are found as infinity; numpy need not warn of them.
            with np.errstate(all="ignore"):
                frame = read_parquet(body) if kind == PARQUET else self._csv(body)
        except (ServingError, MemoryError):
            raise
        except UnicodeDecodeError:
            raise BadRequest("The body is not UTF-8") from None
        except ImportError:
            raise UnsupportedMediaType(f"Parquet cannot be read by this model's environment; send {JSON}") from None
        except Exception:  # noqa: BLE001 - pandas and its readers raise nearly anything for what is no table
            raise BadRequest(f"The body is no table as {kind} of the model's columns") from None
        if not len(frame):
            raise refuse(("body",), "there is no row", "too_short")
        if self.needs_raw:
            return frame_batch(self._raw(), frame)
        names = [str(name) for name in frame.columns]
        if not self.signature.columns:
            return self._tensors("dataframe_split", {"columns": names, "data": plain_rows(frame)})
        known = [column.name for column in self.signature.columns]
        found, _ = split({"columns": names, "data": [[None] * len(names)]}, known, positional=self.signature.unnamed)
        columns = {name: plain_column(frame.iloc[:, place]) for name, place in found.items() if name in known}
        return decode.table(
            self.signature, columns, len(frame), lambda name, row: ("body", row, name), Problems(), base64_binary=False
        )

    def _csv(self, body: bytes) -> Any:
        import pandas as pd  # noqa: PLC0415 - JSON needs no pandas

        text = body.decode()
        # pandas skips lines of blanks.
        lines = (
            line for line in csv.reader(io.StringIO(text, newline=None)) if len(line) > 1 or (line and line[0].strip())
        )
        names = next(lines, [])
        most = MORE_COLUMNS + 2 * (len(self.signature.columns) or (self.signature.width if self.signature.dense else 0))
        if len(names) > most:
            # pandas takes a tenth of a millisecond for a column, and more than its square for equal names.
            raise TooLarge(f"The table has {len(names)} columns, the limit is {most}")
        # Line ends in quotes count too: there may be fewer rows, never more.
        limits.cells(text.count("\n") + text.count("\r"), max(len(names), 1), limits.TABLE_CELLS)
        columns = () if self.signature.unnamed else self.signature.columns
        try:
            return pd.read_csv(
                io.StringIO(text), dtype={column.name: CSV_TYPES.get(column.type, object) for column in columns} or None
            )
        except (ValueError, OverflowError):
            # Some cell is not of its column's type: as text, the check of each value finds it.
            frame = pd.read_csv(io.StringIO(text), dtype=object)
            for column in columns:
                if column.type in CSV_TYPES and column.name in frame:
                    frame[column.name] = [cell_value(cell, column.type) for cell in frame[column.name]]
            return frame


def cell_value(cell: Any, kind: str) -> Any:
    """A cell of a CSV as the number or truth value that stands there, else as it is."""
    if kind == "boolean":
        return {"true": True, "false": False}.get(str(cell).lower(), cell)
    plain = str(cell)
    for read in (int, float) if plain.isascii() and "_" not in plain else ():
        with contextlib.suppress(ValueError):
            return read(plain)
    return cell


def read_parquet(body: bytes) -> Any:
    """A DataFrame. What the file says of its size is good for a refusal only; what comes is counted."""
    import pyarrow as pa  # noqa: PLC0415 - as pandas
    from pyarrow import parquet  # noqa: PLC0415

    # Threads, and pools of memory, would reserve what is never used.
    pa.set_memory_pool(pa.system_memory_pool())
    file = parquet.ParquetFile(io.BytesIO(body), pre_buffer=False)
    head = file.metadata
    limits.cells(head.num_rows, max(head.num_columns, 1), limits.TABLE_CELLS)
    packed = {
        head.row_group(group).column(place).compression
        for group in range(head.num_row_groups)
        for place in range(head.num_columns)
    }
    if packed - {"UNCOMPRESSED", "SNAPPY"}:
        raise UnsupportedMediaType("Parquet is read as it is or compressed with snappy")
    batches, rows = [], 0
    for batch in file.iter_batches(PARQUET_ROWS, use_threads=False):
        rows += batch.num_rows
        limits.cells(rows, max(batch.num_columns, 1), limits.TABLE_CELLS)
        batches.append(batch)
    return pa.Table.from_batches(batches, file.schema_arrow).to_pandas(use_threads=False)


def plain_column(values: Any) -> list[Any]:
    """The values of a column of a DataFrame as JSON would have them."""
    return [_plain(value) for value in values.astype(object).where(values.notna(), None).tolist()]


def plain_rows(frame: Any) -> list[list[Any]]:
    """The rows of a DataFrame as JSON would have them."""
    objects = frame.astype(object).where(frame.notna(), None)
    return [[_plain(value) for value in row] for row in objects.to_numpy(dtype=object).tolist()]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return value.isoformat() if hasattr(value, "isoformat") else value


def frame_batch(raw: Any, frame: Any) -> Batch:
    """A DataFrame for MLflow's own checks."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as pandas

    try:
        raw.check(frame)
    except (MlflowException, ValueError, TypeError):
        raise refuse(("body",), "the input does not fit the model's signature", "signature") from None
    return Batch({}, len(frame), raw=frame)


def split(  # noqa: C901 - one branch for each mistake
    value: Any, names: list[str], *, positional: bool
) -> tuple[dict[str, int], list[list[Any]]]:
    """The place of each column in the rows of a dataframe_split, and the rows."""
    base = ("body", "dataframe_split")
    if not isinstance(value, dict) or "data" not in value or set(value) - {"columns", "data", "index"}:
        raise BadRequest("dataframe_split must be an object with data and, if wanted, columns and index")
    rows = value["data"]
    if not isinstance(rows, list):
        raise refuse((*base, "data"), "expected a list of rows", "list_type")
    if not rows:
        raise refuse((*base, "data"), "there is no row", "too_short")
    columns = value.get("columns")
    if columns is None:
        columns = list(range(len(rows[0]) if isinstance(rows[0], list) else 0))
    if not isinstance(columns, list) or not all(isinstance(name, str | int) for name in columns):
        raise refuse((*base, "columns"), "expected a list of names", "list_type")
    index = value.get("index")
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        raise refuse((*base, "index"), "expected a list with one item for each row", "list_type")
    if positional:
        found = dict(zip(names, range(len(columns)), strict=False))
    else:
        found = {str(name): place for place, name in enumerate(columns)}
        if len(found) != len(columns):
            raise refuse((*base, "columns"), "a column stands there twice", "value_error")
    problems = Problems()
    for row, item in enumerate(rows):
        if not isinstance(item, list):
            problems.add((*base, "data", row), "expected a list", "list_type")
        elif len(item) != len(columns):
            text = f"expected {len(columns)} values, got {len(item)}"
            problems.add((*base, "data", row), text, "length")
    problems.stop()
    return found, rows


def records(
    rows: list[dict[str, Any]], keys: Mapping[str, str], base: Loc
) -> tuple[dict[str, list[Any]], int, Callable[[str, int], Loc]]:
    """Records by column; ``keys`` gives the key of each column in the records."""
    columns = {name: [row.get(key, UNSET) for row in rows] for name, key in keys.items()}
    return columns, len(rows), lambda name, row: (*base, row, keys.get(name, name))


def by_column(value: dict[str, Any], names: list[str], base: Loc) -> tuple[dict[str, list[Any]], int]:
    """Lists by column, all of one length; a single value stands for every row, as in pandas."""
    lengths = {name: len(value[name]) for name in names if isinstance(value.get(name), list)}
    count = max(lengths.values(), default=1)
    problems = Problems()
    for name, length in lengths.items():
        if length != count:
            problems.add((*base, name), f"expected {count} values as in the other columns, got {length}", "length")
    problems.stop()
    if not count:
        raise refuse(base, "there is no row", "too_short")
    return {name: value[name] if name in lengths else [value[name]] * count for name in names if name in value}, count


def shaped(rows: list[Any], spec: Tensor) -> Any:
    """Rows that came flat in a cell of a table, nested as the tensor wants them; untouched where that cannot be."""
    inner = spec.shape[1:]
    if len(inner) < 2 or -1 in inner or not all(isinstance(row, list) for row in rows):  # noqa: PLR2004 - flat already
        return [[row] for row in rows] if inner == (1,) and not any(isinstance(row, list) for row in rows) else rows
    objects = np.empty((len(rows), int(np.prod(inner))), dtype=object)
    for place, row in enumerate(rows):
        if len(row) != objects.shape[1] or any(isinstance(item, list) for item in row):
            return rows
        objects[place] = row
    return objects.reshape(len(rows), *inner).tolist()


def tensor_batch(tensors: tuple[Tensor, ...], values: Mapping[str | None, tuple[Any, Loc]], base: Loc) -> Batch:
    """Check every tensor and that all have the same number of rows."""
    problems = Problems()
    arrays: dict[str | None, NDArray[Any]] = {}
    for spec in tensors:
        if spec.name not in values:
            problems.add((*base, str(spec.name)), "the field is required", "missing")
            continue
        value, loc = values[spec.name]
        array = decode.tensor(spec, value, loc, problems)
        if array is not None:
            arrays[spec.name] = array
    problems.stop()
    counts = {len(array) if array.ndim else 1 for array in arrays.values()}
    if len(counts) != 1:
        raise refuse(base, "the tensors have different numbers of rows", "length")
    return Batch(data=arrays, rows=counts.pop())


def answer(predictions: Any, *, wrapped: bool = True) -> bytes:
    """The body of a 200, byte for byte that of MLflow's own server."""
    if wrapped and type(predictions) is list and predictions:
        first = type(predictions[0])
        if first is int and len(predictions) == 1:
            return b'{"predictions": [%d]}' % predictions[0]
        if first is int or first is float or first is list:
            # The text of a list of numbers is its JSON. Letters besides the e of an exponent are nan, True, None, a string.
            if len(predictions) <= PIECE:
                text = repr(predictions)
            else:
                # In one go it would hold up the event loop, although this runs beside it.
                pieces = (predictions[place : place + PIECE] for place in range(0, len(predictions), PIECE))
                text = f"[{', '.join([repr(piece)[1:-1] for piece in pieces])}]"
            if not _letters(text):
                return b'{"predictions": %b}' % text.encode()
    from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj  # noqa: PLC0415 - as pandas

    plain = _get_jsonable_obj(predictions, pandas_orient="records")
    return json.dumps({"predictions": plain} if wrapped else plain, cls=NumpyEncoder).encode()


_letters = re.compile(r"[^-+.0-9e, \[\]]").search
