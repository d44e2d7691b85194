"""What the model directory says about a model, and examples of bodies made from the one that was logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LinearRegression

from serving.information import read

from .trained import columns, save, tensor

DOUBLES = [{"type": "double", "name": "a", "required": True}, {"type": "string", "name": "b", "required": False}]
TENSOR = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}]
NAMED = [{**TENSOR[0], "name": "x"}, {**TENSOR[0], "name": "y"}]


def write(path: Path, inputs: Any, example: Any = None, **more: Any) -> Path:
    mlmodel = {
        "flavors": {"python_function": {"loader_module": "x"}, "lightgbm": {}},
        "run_id": "run",
        "mlflow_version": "2.9.2",
        "signature": {"inputs": json.dumps(inputs), "outputs": None, "params": None},
        **more,
    }
    (path / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    if example is not None:
        (path / "serving_input_example.json").write_text(json.dumps(example))
    return path


def test_a_saved_model_with_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c0": [1.5, 2.5], "c1": [3.5, 4.5]})
    estimator = LinearRegression().fit(frame, [1.0, 2.0])
    path = save(tmp_path / "model", estimator, columns(["double", "double"]), input_example=frame)
    information = read(path, name="line", alias="champion", version="3", metrics={"r2": 1.0})
    assert information.flavor == "sklearn"
    assert (information.name, information.model, information.alias, information.version) == (
        "line", "line", "champion", "3",
    )  # fmt: skip
    assert information.metrics == {"r2": 1.0}
    assert information.predict_example == {"c0": 1.5, "c1": 3.5}
    assert information.invocations_example == {
        "dataframe_split": {"columns": ["c0", "c1"], "data": [[1.5, 3.5], [2.5, 4.5]]}
    }
    assert information.signature_dict is not None
    assert information.signature_dict["inputs"][0] == {"type": "double", "name": "c0", "required": True}


def test_a_saved_model_with_a_tensor(tmp_path: Path) -> None:
    rows = np.arange(8.0).reshape(2, 4)
    estimator = LinearRegression().fit(rows, [1.0, 2.0])
    metadata = {"input_name": "image", "input_shape": [2, 2]}
    path = save(tmp_path / "model", estimator, tensor("float64", 4), input_example=rows, metadata=metadata)
    information = read(path)
    assert (information.input_name, information.input_shape) == ("image", (2, 2))
    assert information.invocations_example == {"inputs": rows.tolist()}
    assert information.predict_example == {"image": [[0.0, 1.0], [2.0, 3.0]]}


@pytest.mark.parametrize(
    ("inputs", "example", "expected"),
    [
        (DOUBLES, {"dataframe_split": {"columns": ["b", "a"], "data": [["x", 1.0]]}}, {"a": 1.0, "b": "x"}),
        (DOUBLES, {"dataframe_split": {"columns": ["a", "b"], "data": [[1.0, None]]}}, {"a": 1.0}),
        (DOUBLES, {"dataframe_records": [{"a": 1.0}]}, {"a": 1.0}),
        (DOUBLES, {"inputs": [{"a": 1.0, "b": "x"}]}, {"a": 1.0, "b": "x"}),
        (DOUBLES, {"inputs": {"a": [1.0, 2.0], "b": ["x", "y"]}}, {"a": 1.0, "b": "x"}),
        (DOUBLES, {"inputs": {"a": 1.0}}, {"a": 1.0}),
        (DOUBLES, {"inputs": [[1.0, "x"]]}, {"a": 1.0, "b": "x"}),
        (DOUBLES[:1], {"inputs": [1.0, 2.0]}, {"a": 1.0}),
        (DOUBLES, {"something": "else"}, None),
        (DOUBLES, None, None),
        (TENSOR, {"inputs": [[1, 2, 3, 4]]}, {"inputs": [1, 2, 3, 4]}),
        (TENSOR, {"instances": [[1, 2, 3, 4]]}, {"inputs": [1, 2, 3, 4]}),
        (NAMED, {"inputs": {"x": [[1, 2, 3, 4]], "y": [[5, 6, 7, 8]]}}, {"x": [1, 2, 3, 4], "y": [5, 6, 7, 8]}),
    ],
)
def test_forms_of_the_example(tmp_path: Path, inputs: Any, example: Any, expected: Any) -> None:
    information = read(write(tmp_path, inputs, example))
    assert information.predict_example == expected
    assert information.invocations_example == example
    assert (information.flavor, information.run_id, information.mlflow_version) == ("lightgbm", "run", "2.9.2")


def test_the_example_of_an_older_mlflow(tmp_path: Path) -> None:
    split = {"columns": ["a"], "data": [[1.0]]}
    (tmp_path / "input_example.json").write_text(json.dumps(split))
    info = {"artifact_path": "input_example.json", "type": "dataframe", "pandas_orient": "split"}
    information = read(write(tmp_path, DOUBLES[:1], saved_input_example_info=info))
    assert information.invocations_example == {"dataframe_split": split}
    assert information.predict_example == {"a": 1.0}


def test_nan_in_the_example_is_null(tmp_path: Path) -> None:
    (tmp_path / "serving_input_example.json").write_text('{"dataframe_split": {"columns": ["a"], "data": [[NaN]]}}')
    information = read(write(tmp_path, DOUBLES))
    assert information.invocations_example == {"dataframe_split": {"columns": ["a"], "data": [[None]]}}


LABELS = [
    (["no", "yes"], {"0": "no", "1": "yes"}),
    ({0: "no", "b": "yes"}, {"0": "no", "b": "yes"}),
    ("no", {}),
    (None, {}),
    ([1, "yes"], {"1": "yes"}),
]


@pytest.mark.parametrize(("said", "expected"), LABELS)
def test_labels_of_the_metadata(tmp_path: Path, said: Any, expected: dict[str, str]) -> None:
    path = write(tmp_path, DOUBLES, metadata={"labels": said})
    assert read(path).labels == expected
    assert read(path, labels={"0": "never"}).labels == {"0": "never"}


@pytest.mark.parametrize("shape", [[3, 3], "2x2", [2.0, 2], None])
def test_a_shape_that_does_not_fit_is_left_out(tmp_path: Path, shape: Any) -> None:
    metadata = {"input_name": "image", "input_shape": shape}
    information = read(write(tmp_path, TENSOR, {"inputs": [[1, 2, 3, 4]]}, metadata=metadata))
    assert information.input_shape is None
    assert information.predict_example == {"image": [1, 2, 3, 4]}


def test_a_name_in_the_signature_goes_first(tmp_path: Path) -> None:
    information = read(write(tmp_path, NAMED[:1], metadata={"input_name": "image"}))
    assert information.input_name == "x"
