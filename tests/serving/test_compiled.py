"""Kernels: each answers as its estimator does, and one that does not is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from serving import compiled, kernels, trees
from serving.compiled import ULPS, same
from serving.errors import InvalidInput
from serving.kernels import NotFinite
from serving.model import ServedModel
from serving.signature import Batch

from .trained import COMPILED, WIDTH, Parity, columns, data, served, tensor

# The models are trained on arrays and asked with DataFrames, which scikit-learn remarks on.
pytestmark = [
    pytest.mark.filterwarnings("ignore:X has feature names"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def rows(count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(0, 3, (count, WIDTH))


def fitted(name: str, classes: int) -> Any:
    make, classifier = COMPILED[name]
    features, labels = data(classes)
    return make().fit(features, labels if classifier else features[:, 0] * 3 + labels)


def assert_equal(model: ServedModel, batch: Batch) -> None:
    assert model.compiled is not None, model.information.predictor_reason
    exact = model.compiled.kernel.exact
    assert same(model.original.predict(batch), model.predict(batch), exact=exact)
    if model.has_probabilities:
        assert same(model.original.predict_proba(batch), model.predict_proba(batch), exact=exact)


EXTREMES = [0.0, -0.0, 5e-324, -1e-308, 1e3, -1e19, 1e38, -1e39, 1e150, -1e154, 1e300, -1.7e308]


def assert_equal_and_silent(model: ServedModel) -> None:
    """Extreme numbers: the original's answer, infinite and NaN as it is, or its refusal; and nothing is warned about."""
    assert model.compiled is not None
    drawn = np.random.default_rng(3).choice(EXTREMES, (60, WIDTH))
    for row in [*drawn, *(np.full(WIDTH, value) for value in EXTREMES)]:
        for name in ("predict", "predict_proba") if model.has_probabilities else ("predict",):
            with np.errstate(all="ignore"):
                expected = outcome(lambda: getattr(model.original, name)(Batch({}, 1, matrix=row[None].copy())))  # noqa: B023 - called at once
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                actual = outcome(lambda: getattr(model, name)(Batch({}, 1, rows_list=[row.tolist()])))  # noqa: B023 - as above
            assert same(expected, actual, exact=model.compiled.kernel.exact), (row, expected, actual)


def outcome(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except InvalidInput:
        return None


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", [name for name, (_, classifier) in COMPILED.items() if classifier])
def test_every_classifier_is_compiled_and_equal(tmp_path: Path, name: str, classes: int) -> None:
    model = served(tmp_path / "model", fitted(name, classes), columns(["double"] * WIDTH))
    assert model.information.predictor == "compiled", model.information.predictor_reason
    assert_equal(model, Batch({}, 200, matrix=rows(200)))
    for row in rows(5, seed=2):
        assert_equal(model, Batch({}, 1, rows_list=[row.tolist()]))
    assert_equal_and_silent(model)


@pytest.mark.parametrize("name", [name for name, (_, classifier) in COMPILED.items() if not classifier])
def test_every_regressor_is_compiled_and_equal(tmp_path: Path, name: str) -> None:
    model = served(tmp_path / "model", fitted(name, 3), tensor("float64", WIDTH))
    assert model.information.predictor == "compiled", model.information.predictor_reason
    assert not model.has_probabilities
    assert_equal(model, Batch({}, 200, matrix=rows(200)))
    for row in rows(5, seed=2):
        assert_equal(model, Batch({}, 1, rows_list=[row.tolist()]))
    assert_equal_and_silent(model)


@pytest.mark.parametrize("name", ["logistic", "scaled-network", "forest"])
def test_labels_may_be_text(tmp_path: Path, name: str) -> None:
    features, labels = data(3)
    names = np.array(["setosa", "versicolor", "ä"])[labels]
    model = served(tmp_path / "model", COMPILED[name][0]().fit(features, names), tensor("float64", WIDTH))
    assert model.compiled is not None
    assert model.classes == ("setosa", "versicolor", "ä")
    assert_equal(model, Batch({}, 50, matrix=rows(50)))
    (answer,) = model.answer([Batch({}, 2, matrix=rows(2))])
    assert all(type(label) is str for label in answer.predictions)


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("name", ["logistic", "scaled-network", "forest", "linear"])
def test_tensors_of_every_type_of_number(tmp_path: Path, name: str, dtype: str) -> None:
    features, labels = data(2)
    features = np.abs(features * 50).astype(dtype)
    model = served(tmp_path / "model", COMPILED[name][0]().fit(features, labels), tensor(dtype, WIDTH))
    assert model.compiled is not None, model.information.predictor_reason
    values = np.abs(rows(64) * 50).astype(dtype)
    assert_equal(model, Batch({}, 64, matrix=values))
    assert_equal(model, Batch({}, 64, rows_list=values.tolist()))


@pytest.mark.parametrize("count", [1, 7, 400])
def test_a_forest_is_the_same_bits_for_any_number_of_rows(count: int) -> None:
    features, labels = data(3)
    forest = RandomForestClassifier(33, random_state=4).fit(features, labels)
    kernel = trees.Forest(forest, forest.estimators_, classifier=True)
    batch = rows(count)
    assert (kernel.scores(batch) == forest.predict_proba(batch)).all()
    regression = RandomForestRegressor(33, random_state=4).fit(features, features[:, 0])
    kernel = trees.Forest(regression, regression.estimators_, classifier=False)
    assert (kernel.labels(kernel.scores(batch)) == regression.predict(batch)).all()


def test_rows_on_both_sides_of_a_threshold() -> None:
    features, labels = data(3)
    forest = RandomForestClassifier(9, random_state=4).fit(features, labels)
    kernel = trees.Forest(forest, forest.estimators_, classifier=True)
    batch = np.repeat(rows(1), 400, axis=0)
    places = kernel.landmarks()
    for row, (feature, threshold) in zip(batch, places * 10, strict=False):
        row[feature] = np.nextafter(np.float32(threshold), np.float32(np.inf)) if row[0] > 0 else threshold
    assert (kernel.scores(batch) == forest.predict_proba(batch)).all()


@pytest.fixture(scope="module")
def logistic(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return served(tmp_path_factory.mktemp("logistic") / "model", fitted("logistic", 3), columns(["double"] * WIDTH))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", range(WIDTH))
def test_refuses_what_scikit_learn_refuses(logistic: ServedModel, value: float, place: int) -> None:
    batch = rows(3)
    batch[1, place] = value
    for predict in (logistic.predict, logistic.original.predict):
        with pytest.raises(InvalidInput) as caught:
            predict(Batch({}, 3, matrix=batch))
        assert caught.value.status == 422


def test_an_imputer_takes_nan_and_refuses_infinity(tmp_path: Path) -> None:
    model = served(tmp_path / "model", fitted("imputed", 3), columns(["double"] * WIDTH))
    assert model.compiled is not None
    batch = rows(3)
    batch[1, 2] = np.nan
    assert_equal(model, Batch({}, 3, matrix=batch))
    batch[2, 2] = np.inf
    with pytest.raises(NotFinite):
        model.compiled.predict(batch)


def test_a_forest_takes_nan_where_it_was_trained_with_it(tmp_path: Path) -> None:
    features, labels = data(3)
    features[::3, 1] = np.nan
    forest = RandomForestClassifier(7, random_state=1).fit(features, labels)
    model = served(tmp_path / "model", forest, tensor("float64", WIDTH))
    assert model.compiled is not None
    batch = rows(60)
    batch[::2, 1] = np.nan
    assert_equal(model, Batch({}, 60, matrix=batch))


ERRORS = {
    "weights": lambda kernel: setattr(kernel, "weights", kernel.weights * (1 + 1e-9)),
    "intercept": lambda kernel: setattr(kernel, "intercept", kernel.intercept * (1 + 1e-9)),
    "classes": lambda kernel: setattr(kernel, "take", kernel.classes[::-1].take),
    "softmax": lambda kernel: setattr(kernel, "softmax", False),
    "nan": lambda kernel: setattr(kernel, "allow_nan", True),
}


@pytest.mark.parametrize("error", ERRORS)
def test_a_kernel_with_an_error_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    build = compiled.build

    def wrong(estimator: Any) -> kernels.Program:
        program = build(estimator)
        ERRORS[error](program.kernel)
        return kernels.Program(program.kernel)

    monkeypatch.setattr(compiled, "build", wrong)
    model = served(tmp_path / "model", fitted("logistic", 3), columns(["double"] * WIDTH))
    assert model.compiled is None
    assert model.information.predictor == "original"
    assert "differ" in model.information.predictor_reason
    assert model.predict(Batch({}, 4, matrix=rows(4))).shape == (4,)


def test_a_tree_that_branches_one_bit_too_late_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = trees.single
    monkeypatch.setattr(trees, "single", lambda rows: np.nextafter(single(rows), np.float32(-np.inf)))
    model = served(tmp_path / "model", fitted("forest", 3), columns(["double"] * WIDTH))
    assert model.compiled is None
    assert "differ" in model.information.predictor_reason


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (GaussianNB(), "no kernel: GaussianNB"),
        (Parity(), "no kernel: Parity is not scikit-learn's own"),
        (make_pipeline(FunctionTransformer(np.abs), LogisticRegression()), "no kernel: FunctionTransformer"),
    ],
)
def test_other_estimators_stay_as_they_are(tmp_path: Path, estimator: Any, reason: str) -> None:
    model = served(tmp_path / "model", estimator.fit(*data(2)), columns(["double"] * WIDTH))
    assert model.compiled is None
    assert model.information.predictor_reason.startswith(reason)
    expected = estimator.predict(rows(4))
    assert (model.predict(Batch({}, 4, matrix=rows(4))) == expected).all()
    assert model.rowwise == (type(estimator) is GaussianNB)


def test_several_outputs(tmp_path: Path) -> None:
    features, _ = data(2)
    linear = served(tmp_path / "l", LinearRegression().fit(features, features[:, :2]), tensor("float64", WIDTH))
    assert linear.compiled is not None
    assert linear.predict(Batch({}, 4, matrix=rows(4))).shape == (4, 2)
    forest = RandomForestRegressor(3).fit(features, features[:, :2])
    model = served(tmp_path / "f", forest, tensor("float64", WIDTH))
    assert model.compiled is None
    assert (model.predict(Batch({}, 4, matrix=rows(4))) == forest.predict(rows(4))).all()


def test_equal_means_type_shape_and_last_bits() -> None:
    values = np.array([1.0, -3.0, 0.0])
    assert same(values, values.copy(), exact=True)
    assert same(values, values * (1 + ULPS * 1e-16), exact=False)
    assert not same(values, values * (1 + ULPS * 1e-16), exact=True)
    assert not same(values, values + 1e-9, exact=False)
    assert not same(values, values.astype(np.float32), exact=False)
    assert not same(values, values.reshape(3, 1), exact=False)
    assert not same(values, values.tolist(), exact=False)
    assert not same(values, None, exact=False)
    assert not same(np.array(["a"]), np.array(["b"]), exact=False)
    assert same(np.array([np.nan]), np.array([np.nan]), exact=True)
