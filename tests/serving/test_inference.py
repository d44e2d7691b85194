import json
from typing import Any

import numpy as np
import pytest

from serving.errors import BadRequest, InvalidInput, TooLarge
from serving.frames import matrix
from serving.inference import Inference, Request
from serving.signature import Column, Signature, Tensor
from tests.serving.transport import DENSE, IMAGE, MIXED, NAMES, ROW, information


def no_raw() -> Any:
    raise AssertionError("MLflow's parser is not needed here")


def made(signature: Signature, max_rows: int = 0, **more: Any) -> Inference:
    return Inference(information(signature, **more), no_raw, max_rows)


def read(signature: Signature, document: Any, **more: Any) -> Request:
    return made(signature, **more).read(document if isinstance(document, bytes) else json.dumps(document).encode())


def problems(signature: Signature, document: Any, **more: Any) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(InvalidInput) as caught:
        read(signature, document, **more)
    return {item.loc: item.type for item in caught.value.problems}


def tensor(name: str, shape: list[int], datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


ROWS = [float(value) for value in range(128)]


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 64], ROWS),
        ([2, 64], [ROWS[:64], ROWS[64:]]),
        ([2, 8, 8], ROWS),
        ([2, 8, 8], np.array(ROWS).reshape(2, 8, 8).tolist()),
    ],
)
def test_tensors_flat_and_nested(shape: list[int], data: Any) -> None:
    for name in ("image", "predict", "input-0"):
        request = read(IMAGE, {"inputs": [tensor(name, shape, "FP32", data)]}, input_name="image")
        assert matrix(IMAGE, request.batch).tolist() == [ROWS[:64], ROWS[64:]]
        assert (request.ident, request.outputs) == (None, ("predict",))


def test_integers_for_a_tensor_of_floats() -> None:
    request = read(IMAGE, {"inputs": [tensor("inputs", [1, 64], "UINT8", list(range(64)))]})
    assert matrix(IMAGE, request.batch).dtype == np.float32


def test_columns_one_input_each() -> None:
    for shape in ([2], [2, 1]):
        inputs = [tensor(name, shape, "FP64", [1.5, 2]) for name in NAMES]
        assert matrix(DENSE, read(DENSE, {"inputs": inputs}).batch).tolist() == [[1.5, 1.5], [2.0, 2.0]]


def test_columns_as_one_table() -> None:
    request = read(DENSE, {"inputs": [tensor("predict", [2, 2], "FP32", [[1, 2], [3, 4]])]})
    assert matrix(DENSE, request.batch).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_columns_of_every_type() -> None:
    types = {"flag": "BOOL", "small": "INT32", "big": "INT64", "share": "FP32", "size": "FP64"}
    inputs = [tensor(name, [1], types.get(name, "BYTES"), [value]) for name, value in ROW.items()]
    inputs[5]["parameters"] = {"content_type": "str"}
    document = {"inputs": inputs, "id": "a-1", "parameters": {"content_type": "pd", "limit": 5}}
    request = read(MIXED, document)
    assert request.ident == "a-1"
    assert request.batch.params == {"limit": 5}
    assert request.batch.data["blob"].tolist() == [b"abc"]
    assert request.batch.data["word"].tolist() == ["a"]


def test_problems() -> None:
    good = tensor("inputs", [1, 64], "FP32", ROWS[:64])
    assert problems(IMAGE, {}) == {("body", "inputs"): "missing"}
    assert problems(IMAGE, {"inputs": [5]}) == {("body", "inputs", 0): "object_type"}
    assert problems(IMAGE, {"inputs": [{"name": "a"}]}) == {
        ("body", "inputs", 0, key): "missing" for key in ("data", "datatype", "shape")
    }
    assert problems(IMAGE, {"inputs": [{**good, "parameters": 5, "data": 5}]}) == {
        ("body", "inputs", 0, "data"): "list_type"
    }
    assert problems(IMAGE, {"inputs": [good, good]}) == {("body", "inputs", 1, "name"): "value_error"}
    assert problems(IMAGE, {"inputs": [{**good, "shape": [1, 63]}]}) == {("body", "inputs", 0, "data"): "shape"}
    assert problems(IMAGE, {"inputs": [{**good, "shape": [64]}]}) == {("body", "inputs", 0, "shape"): "shape"}
    assert problems(IMAGE, {"inputs": [{**good, "datatype": "FLOAT"}]}) == {
        ("body", "inputs", 0, "datatype"): "datatype"
    }
    assert problems(IMAGE, {"inputs": [{**good, "shape": [1, "a"]}]}) == {("body", "inputs", 0, "shape"): "list_type"}
    assert problems(IMAGE, {"inputs": [{**good, "shape": [0, 64], "data": []}]}) == {
        ("body", "inputs", 0, "shape"): "too_short"
    }
    assert problems(IMAGE, {"inputs": [{**good, "data": [*ROWS[:63], "x"]}]}) == {
        ("body", "inputs", 0, "data", 63): "float32_type"
    }
    assert problems(IMAGE, {"inputs": [good], "id": 5}) == {("body", "id"): "string_type"}
    assert problems(IMAGE, {"inputs": [good], "outputs": [{"name": "nope"}]}) == {
        ("body", "outputs", 0, "name"): "output"
    }
    assert problems(IMAGE, {"inputs": [good], "outputs": [{"name": {}}]}) == {("body", "outputs", 0, "name"): "output"}
    wrong: list[Any] = [{}, "", 0]
    for outputs in wrong:
        assert problems(IMAGE, {"inputs": [good], "outputs": outputs}) == {("body", "outputs", 0, "name"): "output"}
    assert problems(DENSE, {"inputs": [tensor(NAMES[0], [1], "FP64", [1])]}) == {
        ("body", "inputs", NAMES[1]): "missing"
    }
    assert problems(DENSE, {"inputs": [tensor(name, [1], "BYTES", ["x"]) for name in NAMES]}) == {
        ("body", "inputs", 0, "data", 0): "double_type",
        ("body", "inputs", 1, "data", 0): "double_type",
    }
    assert problems(DENSE, {"inputs": [tensor(NAMES[0], [1], "FP64", [1]), tensor(NAMES[1], [2], "FP64", [1, 2])]}) == {
        ("body", "inputs", 1, "shape"): "shape"
    }


def test_deep_lists_end_quickly() -> None:
    body = b'{"inputs": [{"name": "a", "shape": [1, 64], "datatype": "FP32", "data": %b}]}' % (b"[" * 500 + b"]" * 500)
    with pytest.raises(InvalidInput):
        read(IMAGE, body)
    with pytest.raises(BadRequest):
        read(IMAGE, body.replace(b"[" * 500, b"[" * 100_000))


def binary(signature: Signature, inputs: list[dict[str, Any]], *tensors: bytes) -> Request:
    head = json.dumps({"inputs": inputs}).encode()
    return made(signature).read(head + b"".join(tensors), len(head))


def behind(name: str, shape: list[int], datatype: str, size: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("FP16", "<f2"),
        ("FP32", "<f4"),
        ("FP64", "<f8"),
        ("UINT8", "u1"),
        ("INT16", "<i2"),
        ("INT64", "<i8"),
        ("UINT64", "<u8"),
    ],
)
def test_binary_tensors_of_numbers(datatype: str, dtype: str) -> None:
    data = np.arange(128).astype(dtype).tobytes()
    request = binary(IMAGE, [behind("a", [2, 64], datatype, len(data))], data)
    assert matrix(IMAGE, request.batch).tolist() == [ROWS[:64], ROWS[64:]]


def test_binary_tensors_one_after_the_other_and_beside_json() -> None:
    inputs = [behind("flag", [2], "BOOL", 2), behind("word", [2], "BYTES", 11), tensor("small", [2], "INT32", [1, 2]),
              behind("big", [2], "INT64", 16), behind("share", [2, 1], "FP32", 8)]  # fmt: skip
    texts = b"\x01\0\0\0a\x02\0\0\0\xc3\xa4"
    tensors = (b"\x01\x00", texts, np.array([2**53 + 1, -1], "<i8").tobytes(), np.array([0.5, 1], "<f4").tobytes())
    data = binary(MIXED, inputs, *tensors).batch.data
    assert {str(name): values.tolist() for name, values in data.items()} == {
        "flag": [True, False], "word": ["a", "\u00e4"], "small": [1, 2], "big": [2**53 + 1, -1], "share": [0.5, 1.0]}  # fmt: skip


@pytest.mark.parametrize(
    ("datatype", "size", "data"),
    [("FP32", 256, bytes(255)), ("FP32", -4, b""), ("FP32", "256", bytes(256)), ("FP32", True, b"a"), ("FP64", 4, bytes(4)),
     ("BYTES", 3, bytes(3)), ("BYTES", 5, b"\x02\0\0\0a"), ("BYTES", 5, b"\x01\0\0\0\xff")],
)  # fmt: skip
def test_binary_tensors_that_are_none(datatype: str, size: Any, data: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        binary(IMAGE, [behind("a", [1, 64], datatype, size)], data)
    assert caught.value.problems[0].loc == ("body", "inputs", 0, "parameters", "binary_data_size")


def test_binary_tensors_are_checked_as_others() -> None:
    """NaN is what null is in JSON; what is left over belongs to no tensor."""
    rows = np.zeros(64, "<f4")
    rows[3] = np.nan
    assert np.isnan(matrix(IMAGE, binary(IMAGE, [behind("a", [1, 64], "FP32", 256)], rows.tobytes()).batch)[0, 3])
    for value, inputs in ((np.nan, [behind("a", [1, 2], "FP32", 8)]), (np.inf, [behind("a", [1, 2], "FP32", 8)])):
        with pytest.raises(InvalidInput):
            binary(DENSE, inputs, np.array([1, value], "<f4").tobytes())
    with pytest.raises(BadRequest, match="longer"):
        binary(IMAGE, [behind("a", [1, 64], "FP32", 256)], bytes(257))
    with pytest.raises(BadRequest, match="header"):
        read(IMAGE, {"inputs": [behind("a", [1], "FP32", 4)]})


def test_limit_of_rows() -> None:
    with pytest.raises(TooLarge):
        read(IMAGE, {"inputs": [tensor("a", [2, 64], "FP32", ROWS)]}, max_rows=1)


def test_metadata() -> None:
    signature = Signature(IMAGE.columns, IMAGE.tensors, outputs=(Tensor(None, np.dtype("int64"), (-1,)),))
    assert made(signature, input_name="image", classes=(0, 1)).metadata() == {
        "name": "flowers",
        "versions": ["3"],
        "platform": "mlflow_sklearn",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "predict", "datatype": "INT64", "shape": [-1]},
            {"name": "predict_proba", "datatype": "FP64", "shape": [-1, 2]},
        ],
    }
    columns = made(MIXED).metadata()["inputs"]
    assert [item["datatype"] for item in columns] == [
        "BOOL",
        "INT32",
        "INT64",
        "FP32",
        "FP64",
        "BYTES",
        "BYTES",
        "BYTES",
    ]


def test_answers() -> None:
    inference = made(IMAGE, classes=("a", "b"))
    document = {"id": "x", "inputs": [tensor("a", [1, 64], "FP32", ROWS[:64])],
                "outputs": [{"name": "predict"}, {"name": "predict_proba"}]}  # fmt: skip
    request = inference.read(json.dumps(document).encode())
    assert json.loads(inference.answer(request, [1], [[0.25, 0.75]], "made")) == {
        "model_name": "flowers",
        "model_version": "3",
        "id": "x",
        "outputs": [
            {"name": "predict", "shape": [1], "datatype": "INT64", "data": [1]},
            {"name": "predict_proba", "shape": [1, 2], "datatype": "FP64", "data": [0.25, 0.75]},
        ],
    }
    request.ident = None
    request.outputs = ("predict",)
    text = json.loads(inference.answer(request, ["a", None], None, "made"))
    assert text["id"] == "made"
    assert text["outputs"] == [
        {
            "name": "predict",
            "shape": [2],
            "datatype": "BYTES",
            "parameters": {"content_type": "str"},
            "data": ["a", "null"],
        }
    ]


def test_answers_of_tables() -> None:
    import pandas as pd

    inference = made(IMAGE)
    request = inference.read(json.dumps({"inputs": [tensor("a", [1, 64], "FP32", ROWS[:64])]}).encode())
    outputs = json.loads(inference.answer(request, pd.DataFrame({"low": [0.5], "high": [True]}), None, "r"))["outputs"]
    assert [(item["name"], item["datatype"], item["data"]) for item in outputs] == [
        ("low", "FP64", [0.5]),
        ("high", "BOOL", [True]),
    ]


def test_nested_columns_come_as_json_text() -> None:
    seen = []

    class Raw:
        def parse(self, document: Any, form: str) -> Any:
            seen.append(document[form])
            return read(DENSE, {"inputs": [tensor(name, [1], "FP64", [1]) for name in NAMES]}).batch

    signature = Signature(
        columns=(Column("list", "any", spec={"type": "array", "items": {"type": "long"}}), Column("x", "long"))
    )
    inputs = [tensor("list", [1], "BYTES", ["[1, 2]"]), tensor("x", [1], "INT64", [3])]
    Inference(information(signature), Raw).read(json.dumps({"inputs": inputs}).encode())
    assert seen == [[{"list": [1, 2], "x": 3}]]
