"""Models of every sort, loaded and asked: arrays and frames as pyfunc takes them, errors that tell nothing internal."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import SVC

from serving.errors import InvalidInput, ModelFailed, ServingError
from serving.model import FAILED, Answer, ServedModel, load
from serving.signature import Batch

from .trained import WIDTH, columns, data, save, save_function, served, tensor

pytestmark = [
    pytest.mark.filterwarnings("ignore:X has feature names"),
    pytest.mark.filterwarnings("ignore:.*(type hint|input example|Type hint)"),
]

SECRET = "the password is swordfish"


class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Says what it was given."""

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        if isinstance(model_input, dict):
            return {name: (values.dtype.str, values.shape) for name, values in model_input.items()}
        dtypes = {name: str(dtype) for name, dtype in model_input.dtypes.items()}
        return {"rows": len(model_input), "dtypes": dtypes, "params": params}


class Failing(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Raises on a number below zero, and counts the rows that came together."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        if (model_input["c0"] < 0).any():
            raise ValueError(SECRET)
        return pd.Series([len(model_input)] * len(model_input))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def failing(directory: Path) -> ServedModel:
    return load(save_function(directory / "failing", Failing(), columns(["double"])))


def frame(rows: int) -> dict[str | None, Any]:
    return {"c0": np.arange(float(rows))}


def test_a_classifier_has_classes_and_probabilities(tmp_path: Path) -> None:
    features, labels = data(3)
    model = served(tmp_path / "m", LogisticRegression().fit(features, labels), columns(["double"] * WIDTH))
    assert model.information.predictor == "compiled"
    assert model.information.predictor_reason.startswith("LogisticRegression in numpy")
    assert model.classes == model.information.classes == (0, 1, 2)
    assert model.rowwise
    batches = [Batch({}, 2, rows_list=features[:2].tolist()), Batch({}, 1, matrix=features[2:3])]
    first, second = model.answer(batches, probabilities=True)
    assert [*first.predictions, *second.predictions] == model.predict(Batch({}, 3, matrix=features[:3])).tolist()
    assert all(type(label) is int for label in first.predictions)
    assert first.probabilities is not None
    assert second.probabilities is not None
    assert [sum(row) for row in [*first.probabilities, *second.probabilities]] == pytest.approx([1, 1, 1])


def test_compilation_can_be_switched_off(tmp_path: Path) -> None:
    features, labels = data(3)
    path = save(tmp_path / "m", LogisticRegression().fit(features, labels), columns(["double"] * WIDTH))
    model = load(path, compiled=False)
    assert (model.compiled, model.information.predictor) == (None, "original")
    assert model.rowwise
    batches = [Batch({}, 2, rows_list=features[:2].tolist()), Batch({}, 1, matrix=features[2:3])]
    answers = model.answer(batches, probabilities=True)
    faster = load(path).answer(batches, probabilities=True)
    assert [answer.predictions for answer in answers] == [answer.predictions for answer in faster]
    assert answers[1].probabilities is not None
    assert faster[1].probabilities is not None
    assert np.allclose(answers[1].probabilities, faster[1].probabilities, rtol=1e-12)


def test_an_estimator_without_kernel_is_batched_all_the_same(tmp_path: Path) -> None:
    features, labels = data(3)
    model = served(tmp_path / "m", SVC().fit(features, labels), tensor("float64", WIDTH))
    assert model.compiled is None
    assert (model.rowwise, model.has_probabilities) == (True, False)
    assert model.predict_proba(Batch({}, 1, matrix=features[:1])) is None
    answers = model.answer([Batch({}, 1, matrix=features[:1]), Batch({}, 2, matrix=features[1:3])], probabilities=True)
    assert [len(answer.predictions) for answer in answers] == [1, 2]
    assert [answer.probabilities for answer in answers] == [None, None]


def test_a_model_that_is_saved_for_probabilities(tmp_path: Path) -> None:
    features, labels = data(3)
    estimator = LogisticRegression().fit(features, labels)
    model = served(tmp_path / "m", estimator, tensor("float64", WIDTH), pyfunc_predict_fn="predict_proba")
    assert model.information.predictor == "original"
    assert "`predict`" in model.information.predictor_reason
    assert (model.classes, model.has_probabilities) == ((), False)
    expected = estimator.predict_proba(features[:2])
    assert (model.predict(Batch({}, 2, matrix=features[:2])) == expected).all()


def test_optional_columns_are_not_compiled(tmp_path: Path) -> None:
    signature = ModelSignature(Schema([ColSpec("double", "c0"), ColSpec("double", "c1", required=False)]))
    estimator = LinearRegression().fit(data(2)[0][:, :2], data(2)[1])
    model = served(tmp_path / "m", estimator, signature)
    assert model.information.predictor_reason.startswith("the signature has optional columns")
    values: dict[str | None, Any] = {"c0": np.array([1.0]), "c1": np.array([2.0])}
    assert model.predict(Batch(values, 1)) == estimator.predict([[1.0, 2.0]])


def test_a_function_gets_a_frame_with_the_types_of_the_signature(directory: Path) -> None:
    types = ["string", "datetime", "boolean", "binary", "integer", "long", "float", "double"]
    params = ParamSchema([ParamSpec("p", "double", 1.5), ParamSpec("l", "long", [1], (-1,))])
    model = load(save_function(directory / "echo", Echo(), columns(types, params)))
    assert model.information.predictor == "original"
    assert not model.rowwise
    values: dict[str | None, Any] = {
        "c0": np.array(["a", None], dtype=object),
        "c1": np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]"),
        "c2": np.array([True, False]),
        "c3": np.array([b"a", b""], dtype=object),
        "c4": np.array([1, 2], dtype=np.int32),
        "c5": np.array([1, 2**60]),
        "c6": np.array([1, 2], dtype=np.float32),
        "c7": np.array([1.0, np.nan]),
    }
    answer = model.predict(Batch(values, 2, params={"p": 2.5, "l": [1, 2]}))
    assert answer["rows"] == 2
    assert list(answer["dtypes"].values())[1:] == [
        "datetime64[ns]", "bool", "object", "int32", "int64", "float32", "float64",
    ]  # fmt: skip
    assert answer["params"] == {"p": 2.5, "l": [1, 2]}
    assert model.predict(Batch(values, 2))["params"] == {"p": 1.5, "l": [1]}
    with pytest.raises(InvalidInput):
        model.predict(Batch({"c0": values["c0"]}, 2))


def test_integers_keep_every_digit_beside_doubles(directory: Path) -> None:
    class Same(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame) -> Any:  # noqa: ARG002
            return model_input["c0"].tolist()

    model = load(save_function(directory / "same", Same(), columns(["long", "double"])))
    assert model.signature.dense
    assert model.predict(Batch({}, 1, rows_list=[[2**53 + 1, 0.5]])) == [2**53 + 1]


def test_named_tensors(directory: Path) -> None:
    inputs = [TensorSpec(np.dtype("float32"), (-1, 2), "x"), TensorSpec(np.dtype("int64"), (-1,), "y")]
    model = load(save_function(directory / "tensors", Echo(), ModelSignature(Schema(inputs))))
    values: dict[str | None, Any] = {"x": np.zeros((3, 2), np.float32), "y": np.zeros(3, np.int64)}
    assert model.predict(Batch(values, 3)) == {"x": ("<f4", (3, 2)), "y": ("<i8", (3,))}
    single = load(save_function(directory / "one", Echo(), ModelSignature(Schema(inputs[:1]))))
    assert single.predict(Batch({}, 1, rows_list=[[1, 2]])) == {"x": ("<f4", (1, 2))}


def test_columns_without_names(tmp_path: Path) -> None:
    features, labels = data(2)
    signature = ModelSignature(Schema([ColSpec("double")] * WIDTH))
    model = served(tmp_path / "m", LogisticRegression().fit(features, labels), signature)
    assert model.compiled is not None, model.information.predictor_reason
    assert (
        model.predict(Batch({}, 9, matrix=features[:9])) == model.original.predict(Batch({}, 9, matrix=features[:9]))
    ).all()


def test_no_signature_takes_what_comes(tmp_path: Path) -> None:
    features, labels = data(2)
    estimator = LogisticRegression().fit(features, labels)
    model = served(tmp_path / "m", estimator, None)
    assert model.compiled is None
    assert (model.predict(Batch({}, 3, raw=features[:3])) == estimator.predict(features[:3])).all()
    assert model.predict_proba(Batch({}, 3, raw=features[:3])) is None
    assert model.kind(Batch({}, 3, raw=features[:3])) is None


def test_a_failing_model_tells_nothing(failing: ServedModel, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(ModelFailed) as caught:
        failing.predict(Batch({"c0": np.array([-1.0])}, 1))
    assert caught.value.message == FAILED
    assert SECRET not in str(caught.value.body())
    assert SECRET in caplog.text


def test_what_is_no_list_comes_as_it_is(failing: ServedModel) -> None:
    (answer,) = failing.answer([Batch(frame(2), 2)])
    assert isinstance(answer, Answer)
    assert isinstance(answer.predictions, pd.Series)
    assert failing.kind(Batch(frame(2), 2)) is None


def test_a_compiled_model_that_breaks_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(2)
    model = served(tmp_path / "m", LogisticRegression().fit(features, labels), tensor("float64", WIDTH))
    assert model.compiled is not None
    monkeypatch.setattr(model.compiled.kernel, "weights", None)
    with pytest.raises(ServingError) as caught:
        model.predict(Batch({}, 1, matrix=features[:1]))
    assert caught.value.body() == {"error_code": "INTERNAL_ERROR", "message": FAILED}
