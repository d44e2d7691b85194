"""The OpenAPI document: whole, valid, and with schemas that take what the model takes and nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from serving.information import ModelInformation
from serving.openapi import ERRORS, document

from .described import ALL, BARE, DIGITS, IRIS, IRIS_RECORD, MIXED, MIXED_RECORD, TWO_TENSORS

BOTH = pytest.mark.parametrize("information", ALL, ids=lambda information: information.name)


def validator(information: ModelInformation, schema: str) -> jsonschema.Draft202012Validator:
    components = document(information)["components"]
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": components})


def takes(information: ModelInformation, body: Any, schema: str = "PredictRequest") -> bool:
    return bool(validator(information, schema).is_valid(body))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


@BOTH
def test_every_reference_leads_somewhere(information: ModelInformation) -> None:
    description = document(information)
    references = {node["$ref"] for node in nodes(description) if isinstance(node.get("$ref"), str)}
    assert references
    for reference in references:
        target = description
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target


@BOTH
def test_every_schema_is_one(information: ModelInformation) -> None:
    for schema in document(information)["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@BOTH
def test_every_example_fits_its_schema(information: ModelInformation) -> None:
    description = document(information)
    assert json.loads(json.dumps(description, allow_nan=False)) == description
    for _, _, operation in operations(description):
        for media in operation.get("requestBody", {"content": {}})["content"].values():
            if "example" in media:
                schema = {**media["schema"], "components": description["components"]}
                jsonschema.validate(media["example"], schema, jsonschema.Draft202012Validator)


def test_every_path_is_described_once() -> None:
    description = document(IRIS, "/models/iris")
    model = "/v2/models/iris"
    assert set(description["paths"]) == {
        "/", "/predict", "/invocations", "/metadata", "/ping", "/health", "/version", "/metrics", "/openapi.json", "/docs",
        "/v2", "/v2/health/live", "/v2/health/ready",
        *(base + end for base in (model, f"{model}/versions/3") for end in ("", "/ready", "/infer")),
    }  # fmt: skip
    names = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(names) == len(set(names))
    assert description["servers"] == [{"url": "/models/iris"}]
    assert document(IRIS)["servers"] == [{"url": "/"}]


def test_all_errors_are_described_where_a_body_is_taken() -> None:
    description = document(IRIS)
    for _, method, operation in operations(description):
        if method == "post":
            assert set(ERRORS) - {"404", "405"} <= set(operation["responses"])
    described = {reference["$ref"] for node in description["paths"]["/predict"]["post"]["responses"].values()
                 for reference in nodes(node) if "$ref" in reference}  # fmt: skip
    assert "#/components/responses/InvalidInput" in described
    assert {name for name, _ in ERRORS.values()} == set(description["components"]["responses"])
    assert "Retry-After" in description["components"]["responses"]["QueueFull"]["headers"]


@pytest.mark.parametrize(
    "wrong",
    [
        {**IRIS_RECORD, "sepal length (cm)": "5.1"},
        {**IRIS_RECORD, "more": 1},
        {name: value for name, value in IRIS_RECORD.items() if name != "petal width (cm)"},
        [],
        [IRIS_RECORD, 1],
        {"records": [IRIS_RECORD]},
        None,
    ],
)
def test_columns_refuse_what_does_not_fit(wrong: Any) -> None:
    assert takes(IRIS, IRIS_RECORD)
    assert takes(IRIS, [IRIS_RECORD, IRIS_RECORD])
    assert not takes(IRIS, wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2**31},
        {"n": -(2**31) - 1},
        {"n": 1.5},
        {"n": None},
        {"big": 2**63},
        {"x": 1e39},
        {"flag": "yes"},
        {"flag": 1},
        {"when": 5},
        {"tags": [1]},
        {"tags": "a"},
        {"maybe": "true"},
    ],
    ids=str,
)
def test_every_type_has_its_limits(change: dict[str, Any]) -> None:
    assert takes(MIXED, {**MIXED_RECORD, "n": -(2**31), "big": 2**63 - 1, "maybe": None, "opt": 2.5, "blob": "aGk="})
    assert not takes(MIXED, {**MIXED_RECORD, **change})


def test_parameters_have_their_types_and_defaults() -> None:
    records = [MIXED_RECORD]
    assert takes(MIXED, {"records": records, "params": {"threshold": 1, "names": ["b"], "loud": True}})
    assert takes(MIXED, {"records": records})
    for params in ({"threshold": "1"}, {"names": "b"}, {"loud": 1}, {"other": 1}):
        assert not takes(MIXED, {"records": records, "params": params})
    fields = document(MIXED)["components"]["schemas"]["Params"]["properties"]
    assert {name: field["default"] for name, field in fields.items()} == {
        "threshold": 0.5,
        "names": ["a"],
        "loud": False,
    }


def test_a_picture_is_flat_nested_or_a_png() -> None:
    right: tuple[Any, ...] = ([0] * 784, [[255.0] * 28] * 28, "iVBORw0KGgo=")
    wrong: tuple[Any, ...] = ([0] * 783, [[0] * 28] * 27, [[0] * 27] * 28, [["0"] * 28] * 28, 5)
    assert all(takes(DIGITS, {"image": image}) for image in right)
    for image in wrong:
        assert not takes(DIGITS, {"image": image})
    assert not takes(DIGITS, {"inputs": [0] * 784})


def test_named_tensors_have_their_shapes_and_ranges() -> None:
    left, right = [[1, 2, 3], [4, 5, 255]], [0.5, 1e300]
    assert takes(TWO_TENSORS, {"left": left, "right": right})
    assert takes(TWO_TENSORS, {"left": left, "right": [None]})
    assert not takes(TWO_TENSORS, {"left": left, "right": []})
    assert not takes(TWO_TENSORS, {"left": [[1, 2, 3], [4, 5, 256]], "right": right})
    assert not takes(TWO_TENSORS, {"left": [[1, 2], [4, 5]], "right": right})
    assert not takes(TWO_TENSORS, {"left": left})


def test_a_model_without_a_signature_takes_any_record() -> None:
    assert takes(BARE, {"anything": [1, {}]})
    assert not takes(BARE, 5)


@pytest.mark.parametrize(
    ("information", "body"),
    [
        (IRIS, IRIS.invocations_example),
        (IRIS, {"dataframe_records": [IRIS_RECORD]}),
        (IRIS, {"inputs": {name: [value] for name, value in IRIS_RECORD.items()}}),
        (DIGITS, {"inputs": [[0] * 784] * 3}),
        (DIGITS, {"instances": [[0] * 784]}),
        (TWO_TENSORS, {"inputs": {"left": [[[1, 2, 3], [4, 5, 6]]], "right": [[1.0]]}}),
        (TWO_TENSORS, {"instances": [{"left": [[1, 2, 3], [4, 5, 6]], "right": [1.0]}]}),
        (MIXED, {"dataframe_records": [MIXED_RECORD], "params": {"threshold": 0.1}}),
        (BARE, {"inputs": [1, 2]}),
    ],
)
def test_forms_of_the_scoring_protocol(information: ModelInformation, body: dict[str, Any]) -> None:
    assert takes(information, body, "InvocationsRequest")
    other = "instances" if "inputs" in body else "inputs"
    assert not takes(information, {**body, other: next(iter(body.values()))}, "InvocationsRequest")
    assert not takes(information, {}, "InvocationsRequest")


@pytest.mark.parametrize(
    "wrong", [{"inputs": [[0] * 783]}, {"inputs": []}, {"inputs": ["a"]}, {"instances": [[[0] * 28] * 28]}]
)
def test_tensors_of_the_scoring_protocol_have_the_signature_s_shape(wrong: Any) -> None:
    assert not takes(DIGITS, wrong, "InvocationsRequest")


def test_the_scoring_protocol_takes_null_for_numbers_with_a_fraction_only() -> None:
    def record(**changes: Any) -> dict[str, Any]:
        return {"dataframe_records": [{**MIXED_RECORD, **changes}]}

    assert takes(MIXED, record(x=None, when=None, extra=1), "InvocationsRequest")
    assert not takes(MIXED, record(n=None), "InvocationsRequest")
    assert not takes(MIXED, record(flag=None), "InvocationsRequest")


def test_the_table_has_an_example_too() -> None:
    def example(information: ModelInformation) -> Any:
        return document(information)["paths"]["/invocations"]["post"]["requestBody"]["content"]["text/csv"].get(
            "example"
        )

    names, values = csv.reader(example(IRIS).splitlines())
    assert dict(zip(names, map(float, values), strict=True)) == IRIS_RECORD
    assert example(DIGITS) is None


def test_answers_are_typed_from_the_outputs() -> None:
    origin = {"model": "iris", "version": "3"}
    probabilities = {"0": 0.9, "1": 0.1, "2": 0}
    assert takes(IRIS, {"prediction": 0, "probabilities": probabilities, **origin}, "PredictResponse")
    assert takes(
        IRIS, {"predictions": [{"prediction": 0, "probabilities": probabilities}], **origin}, "PredictResponse"
    )
    assert not takes(IRIS, {"prediction": 0.5, **origin}, "PredictResponse")
    assert not takes(IRIS, {"prediction": 0}, "PredictResponse")
    assert takes(MIXED, {"prediction": 0.5, **origin}, "PredictResponse")
    assert takes(TWO_TENSORS, {"prediction": [1.0, 2.0, 3.0], **origin}, "PredictResponse")
    assert not takes(TWO_TENSORS, {"prediction": [1.0], **origin}, "PredictResponse")


def test_the_example_of_the_open_inference_protocol_is_one_row() -> None:
    def example(information: ModelInformation) -> Any:
        path = f"/v2/models/{information.name}/infer"
        return document(information)["paths"][path]["post"]["requestBody"]["content"]["application/json"].get("example")

    assert example(IRIS)["inputs"][0] == {"name": "sepal length (cm)", "shape": [1], "datatype": "FP64", "data": [5.1]}
    (image,) = example(DIGITS)["inputs"]
    assert (image["name"], image["shape"], image["datatype"], len(image["data"])) == ("image", [1, 784], "FP32", 784)
    assert [tensor["shape"] for tensor in example(TWO_TENSORS)["inputs"]] == [[1, 2, 3], [1, 1]]
    assert example(MIXED) is None
