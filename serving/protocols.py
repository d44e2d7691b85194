"""Schemas and examples of MLflow's scoring protocol and of the Open Inference Protocol for one model."""

from __future__ import annotations

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
    record_schema,
    tensor_key,
)

# Datatypes of the Open Inference Protocol for MLflow's column types; others are sent as JSON in BYTES.
V2_TYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}


def invocations_schema(information: ModelInformation) -> Schema:
    """A body of /invocations: exactly one of the protocol's forms that fit the signature."""
    signature = information.signature
    forms: dict[str, Schema] = {}
    if signature.columns:
        columns = {column.name: column_schema(column) for column in signature.columns}
        by_column = {name: {"anyOf": [schema, {"type": "array", "items": schema}]} for name, schema in columns.items()}
        required = [column.name for column in signature.columns if column.required]
        forms["dataframe_split"] = split_schema()
        forms["dataframe_records"] = {
            "type": "array",
            "items": {**record_schema(information), "additionalProperties": True},
        }
        forms["inputs"] = {"type": "object", "properties": by_column, **({"required": required} if required else {})}
        forms["instances"] = forms["dataframe_records"]
    elif signature.tensors:
        rows = {tensor.name: array_schema(tensor.shape, number_schema(tensor.dtype)) for tensor in signature.tensors}
        if None in rows:
            forms["inputs"] = forms["instances"] = rows[None]
        else:
            whole = {str(name): schema for name, schema in rows.items()}
            single = {name: schema["items"] for name, schema in whole.items() if "items" in schema}
            row = {"type": "object", "properties": single, "required": list(single)}
            forms["inputs"] = {"type": "object", "properties": whole, "required": list(whole)}
            forms["instances"] = {"type": "array", "items": row, "minItems": 1}
    else:
        anything: Schema = {"type": ["array", "object"]}
        forms = {"dataframe_split": split_schema(), "dataframe_records": {"type": "array", "items": {"type": "object"}},
                 "inputs": anything, "instances": anything}  # fmt: skip
    extra = {"params": params_schema(signature)} if signature.params else {}
    return {"oneOf": [{"type": "object", "title": f"By {name}", "required": [name], "additionalProperties": False,
                       "properties": {name: schema, **extra}} for name, schema in forms.items()]}  # fmt: skip


def split_schema() -> Schema:
    """A table as pandas writes it with orient="split"."""
    return {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "index": {"type": "array", "items": {}},
            "data": {"type": "array", "items": {"type": "array", "items": {}}},
        },
    }


def v2_datatype(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a numpy type."""
    if dtype.kind == "b":
        return "BOOL"
    kinds = {"i": "INT", "u": "UINT", "f": "FP"}
    return f"{kinds[dtype.kind]}{8 * dtype.itemsize}" if dtype.kind in kinds else "BYTES"


def v2_data_schema(information: ModelInformation) -> Schema:
    """The values of a tensor in a request: flat or nested lists."""
    tensors = information.signature.tensors
    kinds = {"string" if tensor.dtype.kind in "SUO" else "number" for tensor in tensors} or {"number", "string"}
    return {"type": "array", "items": {"type": ["array", "boolean", *sorted(kinds)]}}


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
