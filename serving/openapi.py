"""The OpenAPI 3.1 description of a served model: every path, typed from the model's signature."""

from __future__ import annotations

from typing import Any

from serving.inference import DATATYPES
from serving.information import ModelInformation
from serving.protocols import csv_example, invocations_schemas, v2_example
from serving.schemas import Schema, image_shape, output_schema, params_schema, plain, record_schema, ref
from serving.typed import label

ERRORS = {
    "400": ("BadRequest", "The body cannot be read: not JSON or CSV, or none of the protocol's forms."),
    "404": ("NotFound", "There is no such path, or no such model or version."),
    "405": ("MethodNotAllowed", "The path has other methods; the header Allow lists them."),
    "408": ("RequestTimeout", "The body came in too slowly."),
    "413": ("TooLarge", "The body, or its number of rows, is over the limit."),
    "415": ("UnsupportedMediaType", "The content type or encoding is missing or not one that is read."),
    "422": ("InvalidInput", "The body does not fit the model's signature; detail lists each offending field."),
    "429": ("QueueFull", "More requests wait than the queue holds. Try again after Retry-After seconds."),
    "500": ("ModelFailed", "The model failed on input that fits its signature; the log has the reason under X-Request-Id."),
    "503": ("NotReady", "The model hangs. Try again after Retry-After seconds."),
    "504": ("DeadlineExceeded", "The model did not answer in time."),
}  # fmt: skip
RETRY = ("429", "503")
ON_BODY = tuple(status for status in ERRORS if status not in {"404", "405"})
HEADERS: dict[str, tuple[str, Schema]] = {
    "X-Model-Name": ("The model that answered.", {"type": "string"}),
    "X-Model-Version": ("Its version in the registry.", {"type": "string"}),
    "X-Request-Id": ("The request's own id, if it has one of at most 64 letters, digits, dots, dashes and underscores; else a new one.",
                     {"type": "string"}),
}  # fmt: skip
# What GET /metadata says (serving.describe).
METADATA: Schema = {
    "type": "object",
    "required": ["name", "model", "version", "aliases", "run_id", "engine", "image", "metrics", "predictor"],
    "properties": {
        **{
            name: {"type": "string"}
            for name in ("name", "model", "version", "run_id", "engine", "image", "flavor", "mlflow_version")
        },
        "aliases": {"type": "array", "items": {"type": "string"}},
        "metrics": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
        "signature": {},
        "input_example": {},
        "predict_example": {},
        "classes": {"type": "array", "items": {}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "predictor": {
            "type": "object",
            "required": ["kind", "reason"],
            "properties": {"kind": {"type": "string"}, "reason": {"type": "string"}},
        },
    },
}
TEXT = {"text/plain": {"schema": {"type": "string"}}}
JSON_OBJECT = {"application/json": {"schema": {"type": "object"}}}


def json_content(name: str) -> dict[str, Any]:
    """A JSON body with the schema of that name."""
    return {"application/json": {"schema": ref(name)}}


def headers() -> dict[str, Any]:
    """The headers of every answer."""
    return {name: ref(name, "headers") for name in HEADERS}


def answer(description: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
    """A response that is no error."""
    return {"description": description, "headers": headers(), **({"content": content} if content else {})}


def operation(name: str, tag: str, summary: str, ok: dict[str, Any], *errors: str, **more: Any) -> dict[str, Any]:
    """One operation with its good answer and its errors."""
    responses = {"200": ok, **{status: ref(ERRORS[status][0], "responses") for status in errors}}
    return {"operationId": name, "tags": [tag], "summary": summary, **more, "responses": responses}


def body(content: dict[str, Any]) -> dict[str, Any]:
    """A request body that must be there."""
    return {"required": True, "content": content}


def with_example(content: dict[str, Any], example: Any) -> dict[str, Any]:
    """The content with its example, if there is one."""
    return {
        kind: {**media, "example": plain(example)} if example is not None else media for kind, media in content.items()
    }


def document(information: ModelInformation, root_path: str = "") -> dict[str, Any]:
    """The OpenAPI document of this model as a client sees it below ``root_path``."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": information.name,
            "version": information.version or "none",
            "summary": f"Predictions of the MLflow model {information.model or information.name}",
            "description": describe(information),
        },
        "servers": [{"url": root_path or "/"}],
        "tags": [
            {"name": "predict", "description": "Predictions, typed from the model's signature, and MLflow's scoring protocol"},
            {"name": "model", "description": "What is served, and whether it is ready"},
            {"name": "v2", "description": "Open Inference Protocol v2"},
        ],
        "paths": {**prediction_paths(information), **model_paths(), **v2_paths(information)},
        "components": {"schemas": component_schemas(information), "responses": error_responses(),
                       "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in HEADERS.items()}},
    }  # fmt: skip


def describe(information: ModelInformation) -> str:
    """Which model this is, in a sentence or two."""
    registered = f"{information.model or information.name}, version {information.version or 'none'}"
    alias = f" @ {information.alias}" if information.alias else ""
    reason = f" ({information.predictor_reason})" if information.predictor_reason else ""
    return f"{registered}{alias}, flavor {information.flavor}. Predicts with the {information.predictor} model{reason}."


def prediction_paths(information: ModelInformation) -> dict[str, Any]:
    """The paths that take rows in JSON or CSV."""
    predict = operation(
        "predict", "predict", "Predict one record or a list of records", answer("The prediction", json_content("PredictResponse")), *ON_BODY,
        requestBody=body(with_example(json_content("PredictRequest"), information.predict_example)),
    )  # fmt: skip
    forms = with_example(json_content("InvocationsRequest"), information.invocations_example)
    table = {
        "text/csv": {
            "schema": {"type": "string", "minLength": 1, "description": "a line of column names, then a line per row"}
        }
    }
    forms |= with_example(table, csv_example(information))
    invocations = operation(
        "invocations", "predict", "MLflow's scoring protocol", answer("One prediction per row", json_content("InvocationsResponse")), *ON_BODY,
        requestBody=body(forms),
    )  # fmt: skip
    return {"/predict": {"post": predict}, "/invocations": {"post": invocations}}


def model_paths() -> dict[str, Any]:
    """The paths that say what is served."""
    ready = answer("Ready: predictions are answered")
    page = {"text/html": {"schema": {"type": "string"}}}
    found: dict[str, tuple[str, str, dict[str, Any], tuple[str, ...]]] = {
        "/": (
            "root",
            "A page for people; the metadata for programs",
            answer("Page or metadata", {**json_content("Metadata"), **page}),
            (),
        ),
        "/metadata": (
            "metadata",
            "What is served: version, run, signature, metrics",
            answer("The model", json_content("Metadata")),
            (),
        ),
        "/ping": ("ping", "Whether predictions are answered", ready, ("503",)),
        "/health": ("health", "The same as /ping", ready, ("503",)),
        "/version": (
            "version",
            "The version of MLflow in the model's environment",
            answer("A version number as text"),
            (),
        ),
        "/metrics": ("metrics", "Metrics for Prometheus", answer("Prometheus text format", TEXT), ()),
        "/openapi.json": ("openapi", "This document", answer("OpenAPI 3.1", JSON_OBJECT), ()),
        "/docs": ("docs", "This document as a page to try it on", answer("A page", page), ()),
    }
    return {
        path: {"get": operation(name, "model", summary, ok, *errors)}
        for path, (name, summary, ok, errors) in found.items()
    }


def v2_paths(information: ModelInformation) -> dict[str, Any]:
    """The Open Inference Protocol, with the model's name in its paths, without and with its version."""
    paths: dict[str, Any] = {
        "/v2": {
            "get": operation(
                "serverMetadata", "v2", "The server and its extensions", answer("The server", json_content("V2Server"))
            )
        },
        "/v2/health/live": {
            "get": operation("serverLive", "v2", "Whether the server runs", answer("It runs", json_content("V2Live")))
        },
        "/v2/health/ready": {
            "get": operation(
                "serverReady",
                "v2",
                "Whether predictions are answered",
                answer("They are", json_content("V2Ready")),
                "503",
            )
        },
    }
    model = f"/v2/models/{information.name}"
    request = body(with_example(json_content("V2Request"), v2_example(information)))
    bases = {"": model, **({"Version": f"{model}/versions/{information.version}"} if information.version else {})}
    for suffix, base in bases.items():
        paths[base] = {"get": operation(f"modelMetadata{suffix}", "v2", "Names, types and shapes of inputs and outputs",
                                        answer("The model", json_content("V2Model")))}  # fmt: skip
        paths[f"{base}/ready"] = {
            "get": operation(
                f"modelReady{suffix}",
                "v2",
                "Whether this model answers",
                answer("It does", json_content("V2Ready")),
                "503",
            )
        }
        paths[f"{base}/infer"] = {"post": operation(f"modelInfer{suffix}", "v2", "Predict tensors", answer("Outputs", json_content("V2Response")),
                                                    *ON_BODY, requestBody=request)}  # fmt: skip
    return paths


def error_responses() -> dict[str, Any]:
    """All errors that any path answers."""
    found = {}
    for status, (name, text) in ERRORS.items():
        more = headers()
        if status in RETRY:
            more["Retry-After"] = {"description": "Seconds to wait", "schema": {"type": "integer"}}
        if status == "405":
            more["Allow"] = {"description": "The methods of this path", "schema": {"type": "string"}}
        found[name] = {
            "description": text,
            "headers": more,
            "content": json_content("ValidationError" if status == "422" else "Error"),
        }
    return found


def component_schemas(information: ModelInformation) -> dict[str, Schema]:
    """The schemas that the paths refer to."""
    record, signature = ref("Record"), information.signature
    records = {"type": "array", "items": record, "minItems": 1}
    forms: list[Schema] = [record, records]
    schemas: dict[str, Schema] = {"Record": record_schema(information)}
    if signature.params:
        forms.append(ref("RecordsWithParams"))
        schemas["Params"] = params_schema(signature)
        schemas["RecordsWithParams"] = {"type": "object", "required": ["records"], "additionalProperties": False,
                                        "properties": {"records": records, "params": ref("Params")}}  # fmt: skip
    prediction: dict[str, Schema] = {"prediction": output_schema(information)}
    if information.classes:
        names = [label(name) for name in information.classes]
        # Rows whose numbers are too large for the model's arithmetic have none.
        prediction["probabilities"] = {
            "type": "object",
            "properties": {name: {"type": ["number", "null"]} for name in names},
        }
    if information.labels:
        prediction["label"] = {
            "type": "string",
            "enum": sorted(set(information.labels.values())),
            "description": "what people call the class",
        }
    if image_shape(information):
        prediction["picture"] = {"type": "string", "description": "what was done to the PNG before the model saw it"}
    origin: dict[str, Schema] = {"model": {"type": "string"}, "version": {"type": "string"}}
    text = {"type": "string"}
    schemas |= {
        "PredictRequest": {"anyOf": forms},
        "Prediction": {"type": "object", "required": ["prediction"], "properties": prediction},
        "PredictedRecord": {
            "type": "object",
            "required": ["prediction", "model", "version"],
            "properties": {**prediction, **origin},
        },
        "PredictedRecords": {
            "type": "object",
            "required": ["predictions", "model", "version"],
            "properties": {"predictions": {"type": "array", "items": ref("Prediction")}, **origin},
        },
        "PredictResponse": {"anyOf": [ref("PredictedRecord"), ref("PredictedRecords")]},
        "InvocationsResponse": {"type": "object", "required": ["predictions"], "properties": {"predictions": {}}},
        "Error": {
            "type": "object",
            "required": ["error_code", "message"],
            "properties": {"error_code": text, "message": text},
        },
        "ValidationError": {
            "type": "object",
            "required": ["error_code", "message", "detail"],
            "properties": {
                "error_code": text,
                "message": text,
                "detail": {"type": "array", "items": ref("Problem")},
            },
        },
        "Problem": {
            "type": "object",
            "required": ["loc", "msg", "type"],
            "properties": {
                "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                "msg": text,
                "type": text,
            },
        },
        "Metadata": METADATA,
    }
    return schemas | invocations_schemas(information) | v2_schemas()


def v2_schemas() -> dict[str, Schema]:
    """Requests and answers of the Open Inference Protocol."""
    text: Schema = {"type": "string"}
    shape: Schema = {"type": "array", "items": {"type": "integer"}}
    sizes: Schema = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
    values: Schema = {"type": "array", "items": {}}
    typed: Schema = {"type": "string", "enum": sorted(DATATYPES)}
    tensor = {"name": text, "shape": sizes, "datatype": text}
    described = {"type": "array", "items": {"type": "object", "required": ["name", "datatype", "shape"],
                                            "properties": {**tensor, "shape": shape}}}  # fmt: skip
    parameters: Schema = {"type": "object"}
    asked = {"type": "object", "required": ["name"], "properties": {"name": text, "parameters": parameters}}
    return {
        "V2Live": {"type": "object", "required": ["live"], "properties": {"live": {"type": "boolean"}}},
        "V2Ready": {"type": "object", "required": ["name", "ready"], "properties": {"name": text, "ready": {"type": "boolean"}}},
        "V2Server": {"type": "object", "required": ["name", "version", "extensions"],
                     "properties": {"name": text, "version": text, "extensions": {"type": "array", "items": text}}},
        "V2Model": {"type": "object", "required": ["name", "platform", "inputs", "outputs"],
                    "properties": {"name": text, "versions": {"type": "array", "items": text}, "platform": text,
                                   "inputs": described, "outputs": described}},
        "V2Tensor": {"type": "object", "required": ["name", "shape", "datatype", "data"],
                     "properties": {**tensor, "datatype": typed, "parameters": parameters, "data": values}},
        "V2Output": {"type": "object", "required": ["name", "shape", "datatype", "data"],
                     "properties": {**tensor, "shape": shape, "parameters": parameters, "data": values}},
        "V2Request": {"type": "object", "required": ["inputs"],
                      "properties": {"id": text, "parameters": parameters, "outputs": {"type": "array", "items": asked},
                                     "inputs": {"type": "array", "items": ref("V2Tensor"), "minItems": 1}}},
        "V2Response": {"type": "object", "required": ["model_name", "outputs"],
                       "properties": {"model_name": text, "model_version": text, "id": text,
                                      "outputs": {"type": "array", "items": ref("V2Output")}}},
    }  # fmt: skip
