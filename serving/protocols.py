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
    plain,
    ref,
    tensor_key,
)

# Datatypes of the Open Inference Protocol for MLflow's column types; others are sent as JSON in BYTES.
V2_TYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}


FORMS = {"dataframe_split": "Split", "dataframe_records": "Records", "inputs": "Inputs", "instances": "Instances"}


def invocations_schemas(information: ModelInformation) -> dict[str, Schema]:
    """Components for a body of /invocations: exactly one of the protocol's forms."""
    schemas = {"Table": _split_schema(information), **_row_schemas(information)}
    anything: Schema = {"anyOf": [{"type": "array", "items": {}}, {"type": "object"}]}
    columns_or_rows: Schema = {"anyOf": [ref("Columns"), _list_of(ref("Row"))]} if "Columns" in schemas else anything
    whole = ref("Tensor") if "Tensor" in schemas else columns_or_rows
    records = _list_of(ref("Row")) if information.signature.columns else _list_of({"type": "object"})
    values = {"dataframe_split": ref("Table"), "dataframe_records": records, "inputs": whole, "instances": whole}
    extra = {"params": ref("Params")} if information.signature.params else {}
    for form, name in FORMS.items():
        others = [{"required": [other]} for other in FORMS if other != form]
        schemas[name] = {"type": "object", "required": [form], "properties": {form: values[form], **extra},
                         "not": {"anyOf": others}}  # fmt: skip
    return schemas | {"InvocationsRequest": {"oneOf": [ref(name) for name in FORMS.values()]}}


def _row_schemas(information: ModelInformation) -> dict[str, Schema]:
    """A row and a table by column, or the one tensor that has no name; nothing without a signature."""
    signature = information.signature
    if any(tensor.name is None for tensor in signature.tensors):
        tensor = signature.tensors[0]
        return {"Tensor": array_schema(tensor.shape, number_schema(tensor.dtype))}
    if signature.tensors:
        columns = {
            str(tensor.name): array_schema(tensor.shape, number_schema(tensor.dtype)) for tensor in signature.tensors
        }
        row = {name: schema.get("items", schema) for name, schema in columns.items()}
        required = list(row)
    elif signature.columns:
        row = {column.name: column_schema(column, strict=False) for column in signature.columns}
        columns = {name: {"anyOf": [schema, _list_of(schema)]} for name, schema in row.items()}
        required = [column.name for column in signature.columns if column.required]
    else:
        return {}
    needed: Schema = {"type": "object", **({"required": required} if required else {})}
    return {"Row": {**needed, "properties": row}, "Columns": {**needed, "properties": columns}}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "minItems": 1}


def _split_schema(information: ModelInformation) -> Schema:
    """A table as pandas writes it with orient="split"."""
    signature = information.signature
    least = sum(column.required for column in signature.columns)
    enough = {"minItems": least} if least else {}
    return {
        "type": "object",
        "required": ["columns", "data"] if least and not signature.unnamed else ["data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": ["string", "integer"]}, **enough},
            "index": {"anyOf": [{"type": "array", "items": {}}, {"type": "null"}]},
            "data": _list_of({"type": "array", "items": {}, **(enough or {"minItems": 1})}),
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
