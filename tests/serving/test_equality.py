"""Every shortcut gives the answers of ``PyFuncModel.predict``: random valid inputs, every type, single and batched.

What pyfunc is asked with is made here from plain Python values, not by the code under test.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from serving.compiled import same
from serving.model import ServedModel, load
from serving.signature import NUMPY_TYPES, Batch, Column

from .trained import columns, save_function, served, tensor

pytestmark = [
    pytest.mark.filterwarnings("ignore:X has feature names"),
    pytest.mark.filterwarnings("ignore:.*(type hint|input example|Type hint)"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

NUMBERS = ["double", "float", "long", "integer", "boolean"]
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

# Exact in single precision.
LARGE = 2.0**40
SINGLE = st.floats(-LARGE, LARGE, width=32, allow_nan=False)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "double": st.floats(-LARGE, LARGE) | st.integers(-10, 10).map(float),
    "float": SINGLE,
    "long": st.integers(-(2**63), 2**63 - 1) | st.integers(-10, 10),
    "integer": st.integers(-(2**31), 2**31 - 1) | st.integers(-10, 10),
    "boolean": st.booleans(),
    "string": st.text(max_size=20),
    "binary": st.binary(max_size=20),
    "datetime": st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),  # noqa: DTZ001 - MLflow has no zones
}


def requests(types: list[str]) -> st.SearchStrategy[list[list[list[Any]]]]:
    """Some requests, each with some rows."""
    row = st.tuples(*(VALUES[kind] for kind in types)).map(list)
    return st.lists(st.lists(row, min_size=1, max_size=4), min_size=1, max_size=5)


def training(types: list[str]) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    features = rng.normal(0, 4, (90, len(types)))
    return features, (features.sum(axis=1) > 0).astype(int) + (features[:, 0] > 2)


def table(model: ServedModel, rows: list[list[Any]]) -> pd.DataFrame:
    """The rows as MLflow's server makes a DataFrame of them."""
    series = {}
    for place, column in enumerate(model.signature.columns):
        values = [row[place] for row in rows]
        dtype = None if column.type in {"string", "binary"} else NUMPY_TYPES[column.type]
        series[column.name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(series)


def as_column(column: Column, values: list[Any]) -> Any:
    if NUMPY_TYPES[column.type].hasobject:
        result = np.empty(len(values), dtype=object)
        result[:] = values
        return result
    return np.array(values, dtype=NUMPY_TYPES[column.type])


def forms(model: ServedModel, rows: list[list[Any]]) -> Iterator[Batch]:
    """The rows in each form in which a decoder may hand them over."""
    names = model.signature.columns
    if names:
        values: dict[str | None, Any] = {
            column.name: as_column(column, [row[place] for row in rows]) for place, column in enumerate(names)
        }
        yield Batch(values, len(rows))
    if model.signature.dense:
        yield Batch({}, len(rows), rows_list=rows)
    if model.signature.tensors:
        matrix = np.array(rows, dtype=model.signature.dense_dtype)
        yield Batch({}, len(rows), matrix=matrix)
        yield Batch({None: matrix}, len(rows))


def assert_answers(model: ServedModel, parts: list[list[list[Any]]], given_input: Callable[[Any], Any]) -> None:
    """Each part alone, in every form, and all parts in one call: as pyfunc answers the same rows."""
    exact = model.compiled is None or model.compiled.kernel.exact
    pyfunc = model.original.pyfunc
    for part in parts:
        expected = pyfunc.predict(given_input(part))
        for batch in forms(model, part):
            assert same(expected, model.predict(batch), exact=exact)
    everything = pyfunc.predict(given_input([row for part in parts for row in part]))
    for batches in zip(*(forms(model, part) for part in parts), strict=True):
        answers = model.answer(batches, probabilities=True)
        assert [len(answer.predictions) for answer in answers] == [len(part) for part in parts]
        joined = np.array([value for answer in answers for value in answer.predictions], dtype=everything.dtype)
        assert same(everything, joined, exact=exact)
        if model.has_probabilities:
            likely = model.original.estimator.predict_proba(given_input([row for part in parts for row in part]))
            mine = np.array([row for answer in answers for row in answer.probabilities or ()], dtype=likely.dtype)
            assert same(likely, mine, exact=exact)


ESTIMATORS = {
    "logistic": LogisticRegression,
    "scaled": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "linear": LinearRegression,
    # No kernel: batches are joined for the original.
    "svc": SVC,
}


@pytest.fixture(scope="module", params=list(ESTIMATORS))
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    estimator = ESTIMATORS[request.param]().fit(*training(NUMBERS))
    model = served(tmp_path_factory.mktemp(request.param) / "model", estimator, columns(NUMBERS))
    assert (model.compiled is None) == (request.param == "svc"), model.information.predictor_reason
    return model


@EXAMPLES
@given(parts=requests(NUMBERS))
def test_columns_of_every_type_of_number(mixed: ServedModel, parts: list[list[list[Any]]]) -> None:
    assert_answers(mixed, parts, lambda rows: table(mixed, rows))


@pytest.fixture(scope="module", params=["double", "float", "long", "integer"])
def alike(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    types = [request.param] * 3
    estimator = RandomForestClassifier(10, random_state=0).fit(*training(types))
    model = served(tmp_path_factory.mktemp(request.param) / "model", estimator, columns(types))
    assert model.compiled is not None, model.information.predictor_reason
    return model


@EXAMPLES
@given(choice=st.data())
def test_columns_of_one_type(alike: ServedModel, choice: st.DataObject) -> None:
    parts = choice.draw(requests([alike.signature.columns[0].type] * 3))
    assert_answers(alike, parts, lambda rows: table(alike, rows))


@pytest.fixture(scope="module", params=["float64", "float32", "int64", "uint8"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    features, labels = training(["double"] * 6)
    estimator = MLPClassifier((8,), max_iter=30, random_state=0)
    estimator.fit(np.abs(features * 9).astype(request.param), labels)
    model = served(tmp_path_factory.mktemp(request.param) / "model", estimator, tensor(request.param, 6))
    assert model.compiled is not None, model.information.predictor_reason
    return model


@EXAMPLES
@given(parts=requests(["integer"] * 6))
def test_tensors(network: ServedModel, parts: list[list[list[Any]]]) -> None:
    dtype = network.signature.dense_dtype
    parts = [[[abs(value) % 256 for value in row] for row in part] for part in parts]
    assert_answers(network, parts, lambda rows: np.array(rows, dtype=dtype))


class Words(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Says every value of a row, with its type, and the parameters."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        dtypes = sorted((str(name), str(dtype)) for name, dtype in model_input.dtypes.items())
        rows = model_input.to_dict(orient="records")
        return [repr((sorted(row.items()), dtypes, params)) for row in rows]


EVERY = ["string", "datetime", "boolean", "binary", *NUMBERS[:4]]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    specs = [ColSpec(kind, f"c{place}", required=place % 2 == 0) for place, kind in enumerate(EVERY)]
    params = ParamSchema([ParamSpec("p", "double", 1.5), ParamSpec("l", "long", [1], (-1,))])
    signature = ModelSignature(Schema(specs), params=params)
    return load(save_function(tmp_path_factory.mktemp("words") / "model", Words(), signature))


@EXAMPLES
@given(
    parts=requests(EVERY),
    present=st.sets(st.sampled_from(range(1, len(EVERY), 2))),
    params=st.none() | st.fixed_dictionaries({}, optional={"p": VALUES["float"], "l": st.lists(st.integers(0, 9))}),
)
def test_a_function_of_columns_of_every_type(
    words: ServedModel, parts: list[list[list[Any]]], present: set[int], params: dict[str, Any] | None
) -> None:
    assert not words.rowwise
    chosen = [column for place, column in enumerate(words.signature.columns) if place % 2 == 0 or place in present]
    for part in parts:
        frame = table(words, part)[[column.name for column in chosen]]
        values: dict[str | None, Any] = {
            column.name: as_column(column, [row[int(column.name[1:])] for row in part]) for column in chosen
        }
        batch = Batch(values, len(part), params=params)
        assert words.predict(batch) == words.original.pyfunc.predict(frame, params=params)
        assert words.answer([batch])[0].predictions == words.original.pyfunc.predict(frame, params=params)
