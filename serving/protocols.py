"""Schemas and examples of MLflow's scoring protocol and of the Open Inference Protocol for one model."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from serving.information import ModelInformation
from serving.schemas import (
    Schema,
    array_schema,
    column_schema,
    number_schema,
    params_schema,
    plain,
    tensor_key,
)

# Datatypes of the Open Inference Protocol for MLflow's column types; others are sent as JSON in BYTES.
V2_TYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}


def invocations_schema(information: ModelInformation) -> Schema:
    """A body of /invocations: exactly one of the protocol's forms."""
    signature = information.signature
    rows = _list_of({"type": "object"})
    anything: Schema = {"anyOf": [{"type": "array", "items": {}}, {"type": "object"}]}
    forms: dict[str, Schema] = {
        "dataframe_split": _split_schema(),
        "dataframe_records": rows,
        "instances": anything,
        "inputs": anything,
    }
    if signature.columns:
        required = [column.name for column in signature.columns if column.required]
        needed: Schema = {"type": "object", **({"required": required} if required else {})}
        columns = {column.name: column_schema(column, strict=False) for column in signature.columns}
        by_column = {name: {"anyOf": [schema, _list_of(schema)]} for name, schema in columns.items()}
        rows = _list_of({**needed, "properties": columns})
        forms["dataframe_records"] = rows
        forms["inputs"] = forms["instances"] = {"anyOf": [{**needed, "properties": by_column}, rows]}
    elif signature.tensors:
        whole = {tensor.name: array_schema(tensor.shape, number_schema(tensor.dtype)) for tensor in signature.tensors}
        if None in whole:
            forms["inputs"] = forms["instances"] = whole[None]
        else:
            single = {str(name): schema.get("items", schema) for name, schema in whole.items()}
            by_name = {
                "type": "object",
                "properties": {str(name): schema for name, schema in whole.items()},
                "required": list(single),
            }
            row = {"type": "object", "properties": single, "required": list(single)}
            forms["inputs"] = forms["instances"] = {"anyOf": [by_name, _list_of(row)]}
    extra = {"params": params_schema(signature)} if signature.params else {}
    found = []
    for form, schema in forms.items():
        others = [{"required": [other]} for other in forms if other != form]
        found.append({"type": "object", "title": f"By {form}", "required": [form], "properties": {form: schema, **extra},
                      "not": {"anyOf": others}})  # fmt: skip
    return {"oneOf": found}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1}


def _split_schema() -> Schema:
    """A table as pandas writes it with orient="split"."""
    return {
        "type": "object",
        "required": ["data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": ["string", "integer"]}},
            "index": {"type": "array", "items": {}},
            "data": _list_of({"type": "array", "items": {}}),
        },
        "additionalProperties": False,
    }


def csv_example(information: ModelInformation) -> str | None:
    """The input example as CSV; None where there is none or it is no table of single values."""
    record, columns = first_record(information), information.signature.columns
    if record is None or not columns or any(column.type == "any" for column in columns):
        return None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [column.name for column in columns if record.get(column.name) is not None]
    writer.writerows([names, [plain(record[name]) for name in names]])
    return text.getvalue()


def v2_datatype(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a numpy type."""
    if dtype.kind == "b":
        return "BOOL"
    kinds = {"i": "INT", "u": "UINT", "f": "FP"}
    return f"{kinds[dtype.kind]}{8 * dtype.itemsize}" if dtype.kind in kinds else "BYTES"


def v2_example(information: ModelInformation) -> dict[str, Any] | None:
    """The input example as the tensors of one row; None where there is none or its types have no tensor."""
    record, signature = first_record(information), information.signature
    if record is None:
        return None
    if signature.tensors:
        inputs = []
        for tensor in signature.tensors:
            values = np.asarray(record[tensor_key(tensor, information)]).ravel()
            shape = [1, *(tensor.shape[1:] if -1 not in tensor.shape[1:] else [values.size])]
            inputs.append({"name": tensor_key(tensor, information), "shape": shape, "datatype": v2_datatype(tensor.dtype),
                           "data": plain(values)})  # fmt: skip
        return {"inputs": inputs}
    if not signature.columns or any(column.type == "any" for column in signature.columns):
        return None
    present = [column for column in signature.columns if record.get(column.name) is not None]
    return {"inputs": [{"name": column.name, "shape": [1], "datatype": V2_TYPES.get(column.type, "BYTES"),
                        "data": [plain(record[column.name])]} for column in present]}  # fmt: skip


def first_record(information: ModelInformation) -> dict[str, Any] | None:
    """The first record of the example of /predict, whichever of its forms it has."""
    example = information.predict_example
    if isinstance(example, dict) and "records" in example and information.signature.params:
        example = example["records"]
    if isinstance(example, list):
        example = example[0] if example else None
    return example if isinstance(example, dict) else None
