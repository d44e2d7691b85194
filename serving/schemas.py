"""JSON schemas of what a model takes and gives, made from its signature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from serving.information import ModelInformation
from serving.signature import Column, Param, Signature, Tensor, largest

Schema = dict[str, Any]

FLOAT32 = largest(np.dtype(np.float32))
TYPES: dict[str, Schema] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float": {"type": "number", "minimum": -FLOAT32, "maximum": FLOAT32},
    "double": {"type": "number"},
    "string": {"type": "string"},
    "binary": {"type": "string", "contentEncoding": "base64", "description": "bytes as base64"},
    "datetime": {"type": "string", "format": "date-time", "description": "ISO 8601"},
}
# Smallest side of a tensor that people see as a picture.
IMAGE_SIDE = 8
WHITE = 255
# How the eight bytes that every PNG begins with look in base64.
PNG = "^(data:image/png;base64,)?iVBORw0KGgo"


def ref(name: str, kind: str = "schemas") -> Schema:
    """Point at a component of the document."""
    return {"$ref": f"#/components/{kind}/{name}"}


def tensor_key(tensor: Tensor, information: ModelInformation) -> str:
    """The field of /predict that holds this tensor."""
    return tensor.name if tensor.name is not None else information.input_name


def row_shape(tensor: Tensor, information: ModelInformation) -> tuple[int, ...]:
    """The shape of one row as a person thinks of it: from the MLmodel's metadata where it fits, else from the signature."""
    flat = tensor.shape[1:]
    nested = information.input_shape
    if len(information.signature.tensors) == 1 and nested and -1 not in flat and math.prod(nested) == math.prod(flat):
        return nested
    return flat


def image_shape(information: ModelInformation) -> tuple[int, int] | None:
    """Height and width, if what the model takes can be drawn."""
    tensors, shape = information.signature.tensors, information.input_shape
    if len(tensors) != 1 or shape is None or len(shape) != 2 or min(shape) < IMAGE_SIDE:  # noqa: PLR2004 - height and width
        return None
    dtype = tensors[0].dtype
    holds_white = dtype.kind == "f" or (dtype.kind in "iu" and np.iinfo(dtype).max >= WHITE)
    return (shape[0], shape[1]) if holds_white and row_shape(tensors[0], information) == shape else None


def number_schema(dtype: np.dtype[Any]) -> Schema:
    """One number (or text) of a tensor."""
    if dtype.kind == "b":
        return {"type": "boolean"}
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}
    if dtype.kind == "f":
        limit = largest(dtype)
        limits_of = {} if dtype.itemsize >= np.dtype(float).itemsize else {"minimum": -limit, "maximum": limit}
        # JSON has no NaN: null stands for it, in and out.
        return {"type": ["number", "null"], **limits_of}
    return {"type": "string"} if dtype.kind in "SUO" else {}


def array_schema(shape: tuple[int, ...], item: Schema) -> Schema:
    """Nested lists of this shape; -1 is any length but none."""
    for size in reversed(shape):
        item = {
            "type": "array",
            "items": item,
            **({"minItems": size, "maxItems": size} if size >= 0 else {"minItems": 1}),
        }
    return item


def type_schema(spec: Any) -> Schema:
    """A type as an MLmodel file spells it: a name, or a mapping for arrays, objects and maps; {} where anything may stand."""
    if isinstance(spec, str):
        return dict(TYPES.get(spec, {}))
    if not isinstance(spec, dict):
        return {}
    kind = spec.get("type")
    if kind == "array":
        return {"type": "array", "items": type_schema(spec.get("items"))}
    if kind == "map":
        return {"type": "object", "additionalProperties": type_schema(spec.get("values"))}
    if kind == "object":
        properties = spec.get("properties") or {}
        required = [name for name, inner in properties.items() if inner.get("required", True)]
        fields = {name: optional(type_schema(inner), name in required) for name, inner in properties.items()}
        return {"type": "object", "properties": fields, **({"required": required} if required else {})}
    return dict(TYPES.get(str(kind), {}))


def optional(schema: Schema, required: bool) -> Schema:  # noqa: FBT001 - read as the second half of a sentence
    """The schema, or null where the value may be missing."""
    kind = schema.get("type")
    if required or not isinstance(kind, str):
        return schema
    # A list of types beside items or properties is more than some generators of clients read.
    simple = kind not in {"array", "object"}
    return {**schema, "type": [kind, "null"]} if simple else {"anyOf": [schema, {"type": "null"}]}


def column_schema(column: Column, *, strict: bool = True) -> Schema:
    """One value of a column; unless ``strict``, null stands for NaN or no text even where the column is required."""
    nullable = not column.required or (not strict and column.type not in {"boolean", "integer", "long"})
    return optional(type_schema(column.spec if column.type == "any" else column.type), not nullable)


def tensor_schema(tensor: Tensor, information: ModelInformation) -> Schema:
    """One row of a tensor: nested, flat, or a picture."""
    item, inner, nested = number_schema(tensor.dtype), tensor.shape[1:], information.input_shape
    shapes: list[tuple[int, ...]] = [(information.signature.width,)] if information.signature.dense else []
    shapes += [shape for shape in (inner, nested) if shape is not None and shape not in shapes]
    forms = [array_schema(shape, item) for shape in shapes]
    if nested and len(nested) == 2 and tensor.dtype.kind in "iuf":  # noqa: PLR2004 - height and width
        forms.append({"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png", "pattern": PNG,
                      "description": "a PNG as base64; it becomes grey, white on black, of the right size"})  # fmt: skip
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def record_schema(information: ModelInformation) -> Schema:
    """One row as /predict takes it."""
    signature = information.signature
    if signature.tensors:
        fields = {tensor_key(tensor, information): tensor_schema(tensor, information) for tensor in signature.tensors}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    if signature.columns:
        required = [column.name for column in signature.columns if column.required]
        return {
            "type": "object",
            "properties": {column.name: column_schema(column) for column in signature.columns},
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }
    return {"type": "object", "description": "The model was logged without a signature: any columns."}


def param_schema(param: Param) -> Schema:
    """One parameter with its default."""
    schema = type_schema(param.type)
    for _ in param.shape or ():
        schema = {"type": "array", "items": schema}
    return schema if param.default is None else {**schema, "default": plain(param.default)}


def params_schema(signature: Signature) -> Schema:
    """All parameters; each may be left out."""
    fields = {param.name: param_schema(param) for param in signature.params}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def output_schema(information: ModelInformation) -> Schema:
    """The prediction for one row, as far as the signature says."""
    outputs = information.signature.outputs
    schemas = {}
    for place, output in enumerate(outputs):
        if isinstance(output, Tensor):
            schemas[output.name or str(place)] = array_schema(output.shape[1:], number_schema(output.dtype))
        else:
            schemas[output.name or str(place)] = column_schema(output, strict=False)
    if len(schemas) == 1:
        return next(iter(schemas.values()))
    return {"type": "object", "properties": schemas} if schemas else {}


def plain(value: Any) -> Any:
    """The value as JSON has it: no numpy, no NaN, dates as text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
