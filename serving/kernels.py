"""What fitted scikit-learn estimators compute, without what they check on every call.

The arithmetic is that of scikit-learn, operation by operation and with arrays of the same layout, so that the answers
are the same bits wherever the number of rows in a call does not change the order in which BLAS sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit  # type: ignore[import-untyped]

Array = NDArray[Any]

FLOATS = (np.dtype(np.float64), np.dtype(np.float32))


class NotFinite(ValueError):  # noqa: N818 - what is wrong with the input
    """The input has NaN, infinity or a number too large for the model, which scikit-learn refuses."""


class Unsupported(Exception):  # noqa: N818 - no error of anybody
    """There is no kernel for this estimator; the text says why."""


class Kernel:
    """The last estimator of a model: scores from rows, then labels and probabilities from scores."""

    # Whether sums run through BLAS, whose last bits depend on the number of rows.
    exact = False
    allow_nan = False
    has_probabilities = False
    classes: Array | None = None

    def scores(self, rows: Array) -> Array:
        """Compute what labels and probabilities are made of; ``rows`` is finite unless ``allow_nan``."""
        raise NotImplementedError

    def labels(self, scores: Array) -> Array:
        """Return what ``predict`` returns."""
        raise NotImplementedError

    def probabilities(self, scores: Array) -> Array:
        """Return what ``predict_proba`` returns; ``scores`` may be overwritten."""
        raise NotImplementedError

    def landmarks(self) -> list[tuple[int, float]]:
        """Features and values at which the answer may jump, for the check against the original."""
        return []


class LinearRegressor(Kernel):
    """LinearRegression, Ridge, Lasso, ElasticNet and their kind."""

    def __init__(self, estimator: Any, *, flat: bool = False) -> None:
        self.weights = estimator.coef_.T
        self.intercept = estimator.intercept_
        self.flat = flat

    def scores(self, rows: Array) -> Array:
        scores: Array = rows @ self.weights + self.intercept
        return scores

    def labels(self, scores: Array) -> Array:
        return scores.ravel() if self.flat else scores


class LinearClassifier(Kernel):
    """Classifiers with a linear decision function; ``probabilities`` is "logistic", "softmax" or none."""

    def __init__(self, estimator: Any, probabilities: str = "") -> None:
        self.weights = estimator.coef_.T
        self.intercept = estimator.intercept_
        self.classes = estimator.classes_
        self.take: Callable[[Array], Array] = estimator.classes_.take
        self.binary = self.weights.ndim == 1 or self.weights.shape[1] == 1
        self.has_probabilities = bool(probabilities)
        self.softmax = probabilities == "softmax"

    def scores(self, rows: Array) -> Array:
        scores: Array = rows @ self.weights + self.intercept
        return scores.reshape(-1) if self.binary else scores

    def labels(self, scores: Array) -> Array:
        return self.take((scores > 0).astype(np.intp) if self.binary else scores.argmax(1))

    def probabilities(self, scores: Array) -> Array:
        if self.softmax:
            return softmax(scores)
        positive: Array = expit(scores, out=scores)
        if self.binary:
            return np.stack([1 - positive, positive], axis=1)
        total = positive.sum(axis=1)
        nothing = total == 0
        if nothing.any():
            positive[nothing, :] = 1
            total[nothing] = positive.shape[1]
        positive /= total.reshape(-1, 1)
        return positive


class Network(Kernel):
    """MLPClassifier and MLPRegressor."""

    def __init__(self, estimator: Any) -> None:
        self.layers = list(zip(estimator.coefs_, estimator.intercepts_, strict=True))
        # By the dtype of the rows: else numpy would convert weights of single precision for every call on doubles.
        self.converted: dict[np.dtype[Any], list[tuple[Array, Array]]] = {}
        self.hidden = _activation(estimator.activation)
        self.output = _activation(estimator.out_activation_)
        binarizer = getattr(estimator, "_label_binarizer", None)
        self.binary = False
        if binarizer is not None:
            if binarizer.y_type_ not in {"binary", "multiclass"}:
                raise Unsupported(f"{type(estimator).__name__} for {binarizer.y_type_} targets")
            self.binary = binarizer.y_type_ == "binary"
            self.classes = estimator.classes_
            self.has_probabilities = True

    def scores(self, rows: Array) -> Array:
        values = rows
        layers = self.converted.get(rows.dtype)
        if layers is None:
            layers = [
                (weights.astype(np.result_type(weights, rows), copy=False), bias) for weights, bias in self.layers
            ]
            self.converted[rows.dtype] = layers
        last = len(layers) - 1
        for position, (weights, bias) in enumerate(layers):
            values = values @ weights
            values += bias
            if position != last:
                self.hidden(values)
        self.output(values)
        return values

    def labels(self, scores: Array) -> Array:
        if self.classes is None:
            return scores.ravel() if scores.shape[1] == 1 else scores
        return self.classes.take((scores.ravel() > 0.5).astype(np.intp) if self.binary else scores.argmax(1))  # noqa: PLR2004 - halfway between the two labels

    def probabilities(self, scores: Array) -> Array:
        if self.binary:
            flat = scores.ravel()
            return np.vstack([1 - flat, flat]).T
        return scores


class Program:
    """Steps that transform the rows, then a kernel: a whole scikit-learn model."""

    def __init__(self, kernel: Kernel, steps: Sequence[Callable[[Array], Array]] = (), *, fills: bool = False) -> None:
        """Take the steps in order; ``fills`` if one of them replaces NaN."""
        self.kernel = kernel
        self.steps = tuple(steps)
        self.allow_nan = fills or kernel.allow_nan
        # For the test of finite values; 0 times NaN and 0 times infinity are NaN.
        self.zeros: dict[np.dtype[Any], Array] = {}

    def scores(self, rows: Array) -> Array:
        """Check the rows as scikit-learn does, transform and score them; raise NotFinite."""
        self.check(rows, allow_nan=self.allow_nan)
        if self.steps:
            if rows.dtype not in FLOATS:
                rows = rows.astype(np.float64)
            for step in self.steps:
                rows = step(rows)
            self.check(rows, allow_nan=self.kernel.allow_nan)
        return self.kernel.scores(rows)

    def check(self, rows: Array, *, allow_nan: bool) -> None:
        """Raise NotFinite if a value is infinite, or NaN where that is not allowed."""
        if rows.dtype.kind != "f":
            return
        zeros = self.zeros.get(rows.dtype)
        if zeros is None or len(zeros) < rows.size:
            zeros = self.zeros[rows.dtype] = np.zeros(max(rows.size, 1024), rows.dtype)
        # A dot product is the fastest test, and does not overflow as a sum may.
        if math.isnan(rows.ravel().dot(zeros[: rows.size])) and (not allow_nan or np.isinf(rows).any()):
            raise NotFinite


def softmax(scores: Array) -> Array:
    """Exponentials of the scores, divided by their sum, in place."""
    scores -= scores.max(axis=1).reshape(-1, 1)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1).reshape(-1, 1)
    return scores


def _identity(_: Array) -> None:
    """Leave the values as they are."""


def _relu(values: Array) -> None:
    np.maximum(values, 0, out=values)


def _logistic(values: Array) -> None:
    expit(values, out=values)


def _tanh(values: Array) -> None:
    np.tanh(values, out=values)


def _softmax(values: Array) -> None:
    softmax(values)


def _activation(name: str) -> Callable[[Array], None]:
    known = {"identity": _identity, "relu": _relu, "logistic": _logistic, "tanh": _tanh, "softmax": _softmax}
    if name not in known:
        raise Unsupported(f"activation {name}")
    return known[name]


def scaler(estimator: Any) -> Callable[[Array], Array] | None:
    """The transformation of a fitted scaler or imputer; None if it is none of those."""
    name = type(estimator).__name__
    if name == "StandardScaler":
        return _standard(estimator.mean_ if estimator.with_mean else None, estimator.scale_)
    if name == "MinMaxScaler":
        bounds = estimator.feature_range if estimator.clip else None
        return _linear(estimator.scale_, estimator.min_, bounds)
    if name == "MaxAbsScaler" and not getattr(estimator, "clip", False):
        return lambda rows: np.divide(rows, estimator.scale_, out=rows.copy())
    if name == "SimpleImputer":
        return _imputer(estimator)
    return None


def _standard(mean: Array | None, scale: Array | None) -> Callable[[Array], Array]:
    means = None if mean is None else {dtype: mean.astype(dtype) for dtype in FLOATS}
    scales = None if scale is None else {dtype: scale.astype(dtype) for dtype in FLOATS}

    def transform(rows: Array) -> Array:
        if means is not None:
            rows = rows - means[rows.dtype]
        return rows if scales is None else rows / scales[rows.dtype]

    return transform


def _linear(scale: Array, offset: Array, bounds: tuple[float, float] | None) -> Callable[[Array], Array]:
    def transform(rows: Array) -> Array:
        # Into an array of the same dtype, as the in-place operators of scikit-learn do.
        result = np.multiply(rows, scale, out=np.empty_like(rows), casting="same_kind")
        result += offset
        return result if bounds is None else np.clip(result, bounds[0], bounds[1], out=result)

    return transform


def _imputer(estimator: Any) -> Callable[[Array], Array]:
    missing = estimator.missing_values
    statistics = estimator.statistics_
    plain = isinstance(missing, float) and math.isnan(missing) and estimator.indicator_ is None
    if not plain or statistics.dtype.kind != "f" or not np.isfinite(statistics).all():
        raise Unsupported("SimpleImputer with other settings than a number for each NaN")

    def transform(rows: Array) -> Array:
        empty = np.isnan(rows)
        return np.where(empty, statistics.astype(rows.dtype), rows) if empty.any() else rows

    return transform
