"""Fitted scikit-learn models compiled to numpy kernels, and the check that they answer as the original does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from serving.errors import InvalidInput, ServingError
from serving.frames import matrix
from serving.information import ModelInformation
from serving.kernels import (
    Array,
    Kernel,
    LinearClassifier,
    LinearRegressor,
    Network,
    NotFinite,
    Program,
    Unsupported,
    scaler,
)
from serving.signature import Batch, Signature

log = logging.getLogger(__name__)

SEED = 8888
SAMPLE_ROWS = 320
# Each costs a slow call of the original, and the server must be ready within seconds.
SINGLE_ROWS = 8
# BLAS sums in another order for another number of rows (and scikit-learn's own answers then differ in the last bits
# too): in units of the last place of the largest answer. Trees never go through BLAS and must be equal bit for bit.
ULPS = 512

# Numbers that are too large for the arithmetic become infinity and NaN as they do in scikit-learn, which warns of them; the test
# for finite values makes NaN on purpose.
QUIET = np.errstate(all="ignore")

LINEAR_REGRESSORS = frozenset(
    {"LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "HuberRegressor"}
    | {"BayesianRidge", "Lars", "LassoLars", "LinearSVR", "OrthogonalMatchingPursuit", "TheilSenRegressor"}
)


def _logistic(estimator: Any) -> str:
    return "logistic" if len(estimator.classes_) == 2 else "softmax"  # noqa: PLR2004


def _descent(estimator: Any) -> str:
    if estimator.loss == "modified_huber":
        raise Unsupported("SGDClassifier with modified_huber loss")
    return "logistic" if estimator.loss == "log_loss" else ""


def _none(_: Any) -> str:
    return ""


# Linear classifiers, and how each makes probabilities.
PROBABILITIES: dict[str, Callable[[Any], str]] = {
    "LogisticRegression": _logistic,
    "LogisticRegressionCV": _logistic,
    "SGDClassifier": _descent,
    "LinearSVC": _none,
    "RidgeClassifier": _none,
    "RidgeClassifierCV": _none,
    "Perceptron": _none,
}


class Reference(Protocol):
    """The original model, as far as the check needs it."""

    estimator: Any

    def predict(self, batch: Batch) -> Any:
        """What ``PyFuncModel.predict`` returns."""

    def predict_proba(self, batch: Batch) -> Any:
        """What the estimator's ``predict_proba`` returns."""


class Compiled:
    """A compiled model: the answers of the original for matrices of its signature's dense form."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.kernel = program.kernel
        self.has_probabilities = program.kernel.has_probabilities

    @QUIET
    def predict(self, rows: Array) -> Array:
        """Return what the original's ``predict`` returns; raise NotFinite where it refuses NaN and infinity."""
        return self.kernel.labels(self.program.scores(rows))

    @QUIET
    def predict_proba(self, rows: Array) -> Array:
        """Return what the original's ``predict_proba`` returns."""
        return self.kernel.probabilities(self.program.scores(rows))

    @QUIET
    def both(self, rows: Array) -> tuple[Array, Array]:
        """Return the predictions and the probabilities from one computation."""
        scores = self.program.scores(rows)
        return self.kernel.labels(scores), self.kernel.probabilities(scores)


def compile_model(original: Reference, information: ModelInformation) -> tuple[Compiled | None, str]:
    """Return the compiled model, or None, and the reason."""
    if not information.signature.dense:
        return None, "the signature has optional columns, or inputs that are not a fixed number of numbers"
    try:
        compiled = Compiled(build(original.estimator))
        difference = check(compiled, original, information)
    except Unsupported as reason:
        return None, f"no kernel: {reason}"
    except Exception:
        # Attributes that another version of scikit-learn does not have, an original that fails on the sample.
        log.exception("the model cannot be compiled, it is served as it is")
        return None, "the compiled form could not be checked against the original"
    if difference:
        log.warning("the compiled model is not used: %s", difference)
        return None, f"the compiled answers differ from the original's: {difference}"
    name = type(original.estimator).__name__
    return compiled, f"{name} in numpy; equal to the original on its example and {SAMPLE_ROWS} random rows"


def build(estimator: Any) -> Program:
    """Return the program for a fitted estimator or pipeline; raise Unsupported."""
    _require_sklearn(estimator)
    if type(estimator).__name__ != "Pipeline":
        return Program(_kernel(estimator))
    members = [member for _, member in estimator.steps if member not in {None, "passthrough"}]
    steps: list[Callable[[Array], Array]] = []
    for member in members[:-1]:
        _require_sklearn(member)
        step = scaler(member)
        if step is None:
            raise Unsupported(f"{type(member).__name__} in a pipeline")
        steps.append(step)
    _require_sklearn(members[-1])
    fills = any(type(member).__name__ == "SimpleImputer" for member in members[:-1])
    return Program(_kernel(members[-1]), steps, fills=fills)


def _require_sklearn(estimator: Any) -> None:
    if not type(estimator).__module__.startswith("sklearn."):
        raise Unsupported(f"{type(estimator).__name__} is not scikit-learn's own")


def _kernel(estimator: Any) -> Kernel:
    name = type(estimator).__name__
    if name in LINEAR_REGRESSORS:
        return LinearRegressor(estimator)
    if name == "SGDRegressor":
        return LinearRegressor(estimator, flat=True)
    if name in PROBABILITIES:
        return LinearClassifier(estimator, PROBABILITIES[name](estimator))
    if name in {"MLPClassifier", "MLPRegressor"}:
        return Network(estimator)
    return _tree_kernel(estimator, name)


def _tree_kernel(estimator: Any, name: str) -> Kernel:
    # Loads scikit-learn's trees, which a linear model does without.
    from serving.trees import Boosting, Forest  # noqa: PLC0415

    classifier = name.endswith("Classifier")
    family = name.removesuffix("Classifier").removesuffix("Regressor")
    if family in {"DecisionTree", "ExtraTree"}:
        return Forest(estimator, [estimator], classifier=classifier)
    if family in {"RandomForest", "ExtraTrees"}:
        return Forest(estimator, estimator.estimators_, classifier=classifier)
    if family == "GradientBoosting":
        return Boosting(estimator, classifier=classifier)
    raise Unsupported(name)


def check(compiled: Compiled, original: Reference, information: ModelInformation) -> str:
    """Return how the compiled model's answers differ from the original's, or nothing.

    Compares on the input example and random rows as one batch, on some rows alone, and on rows with NaN, infinity and
    numbers that are too large.
    """
    signature = information.signature
    rows = sample(signature, information, compiled.kernel)
    batches = [rows, *(rows[position : position + 1] for position in range(SINGLE_ROWS))]
    for batch in [*batches, *_broken(rows)]:
        difference = _compare(compiled, original, signature, batch)
        if difference:
            return difference
    return ""


def _compare(compiled: Compiled, original: Reference, signature: Signature, rows: Array) -> str:
    with np.errstate(all="ignore"):
        batch = as_batch(signature, rows)
    expected = _outcome(lambda: original.predict(batch))
    actual = _outcome(lambda: compiled.predict(matrix(signature, batch)))
    where = f"{len(rows)} rows" if len(rows) > 1 else "a single row"
    if not same(expected, actual, exact=compiled.kernel.exact):
        return f"predictions for {where}"
    if not compiled.has_probabilities:
        return ""
    expected = _outcome(lambda: original.predict_proba(batch))
    actual = _outcome(lambda: compiled.predict_proba(matrix(signature, batch)))
    if not same(expected, actual, exact=compiled.kernel.exact):
        return f"probabilities for {where}"
    expected, actual = actual, _outcome(lambda: compiled.both(matrix(signature, batch))[1])
    return "" if same(expected, actual, exact=True) else f"probabilities for {where}"


def _outcome(function: Callable[[], Any]) -> Any:
    """The answer, or None where the input is refused for NaN or infinity; every other error goes on."""
    try:
        with np.errstate(all="ignore"):
            return function()
    except (InvalidInput, NotFinite):
        return None
    except ServingError as error:
        raise Unsupported("the original fails on rows that fit its signature") from error


def same(expected: Any, actual: Any, *, exact: bool) -> bool:
    """Whether two answers are equal: type, dtype, shape and values, floating point within ULPS unless ``exact``."""
    if expected is None or actual is None:
        return expected is None and actual is None
    if type(expected) is not type(actual) or expected.dtype != actual.dtype or expected.shape != actual.shape:
        return False
    if expected.dtype.kind != "f":
        return bool((expected == actual).all())
    if exact:
        return bool(np.array_equal(expected, actual, equal_nan=True))
    finite = np.abs(expected[np.isfinite(expected)], dtype=np.float64)
    # The largest answer of each row's own magnitude would be too strict where terms cancel out.
    tolerance = float(np.finfo(expected.dtype).eps) * ULPS
    floor = tolerance * float(np.median(finite)) if finite.size else 0.0
    return bool(np.allclose(actual, expected, rtol=tolerance, atol=floor, equal_nan=True))


def as_batch(signature: Signature, rows: Array) -> Batch:
    """A batch of ``rows``, each value of the type that its column has."""
    if not signature.columns:
        return Batch({}, len(rows), matrix=rows.astype(signature.dense_dtype))
    columns = enumerate(signature.columns)
    return Batch({column.name: rows[:, position].astype(column.dtype) for position, column in columns}, len(rows))


def sample(signature: Signature, information: ModelInformation, kernel: Kernel) -> Array:
    """The input example and SAMPLE_ROWS random rows around it, of all magnitudes, as doubles; always the same ones."""
    rng = np.random.default_rng(SEED)
    width = signature.width
    example = _example(signature, information)
    low, high = example.min(axis=0), example.max(axis=0)
    if not signature.columns:
        # The values of a tensor have one meaning: pixels that are zero in the example may be white elsewhere.
        low, high = np.full(width, low.min()), np.full(width, high.max())
    spread = np.maximum(high - low, np.abs(high)) + 1.0
    parts: list[Array] = [example, [low, high, np.zeros(width), np.ones(width), -spread, 1e6 * spread]]  # type: ignore[list-item]
    count = SAMPLE_ROWS // 4
    parts.append(rng.uniform(low - spread, high + spread, (count, width)))
    parts.append(rng.uniform(low, high, (count, width)))
    scales = 10.0 ** rng.uniform(-3, 3, (count, 1))
    parts.append(rng.normal(0.0, 1.0, (count, width)) * spread * scales)
    # Single features far from a row of the example.
    moved = example[rng.integers(0, len(example), count)]
    moved[np.arange(count), rng.integers(0, width, count)] = rng.normal(0.0, 10.0, count) * spread.mean()
    parts.append(moved)
    rows = np.concatenate(parts)
    places = kernel.landmarks()
    if places:
        # On, just below and just above the values at which trees branch.
        for row in rows[len(example) :]:
            for chosen in rng.integers(0, len(places), min(width, 8)):
                feature, value = places[chosen]
                row[feature] = np.float32(value) if rng.random() < 0.5 else np.nextafter(np.float32(value), np.inf)  # noqa: PLR2004
    order = rng.permutation(len(rows))
    return _fit(signature, rows[order])


def _example(signature: Signature, information: ModelInformation) -> Array:
    record = information.predict_example
    if not isinstance(record, dict):
        return np.zeros((1, signature.width))
    if signature.columns:
        values: Any = [record[column.name] for column in signature.columns]
    else:
        values = record[information.input_name]
    row = np.asarray(values, dtype=np.float64).reshape(1, signature.width)
    return np.nan_to_num(row)


def _fit(signature: Signature, rows: Array) -> Array:
    """Bring the values into the range of their types."""
    columns = [column.dtype for column in signature.columns] or [signature.tensors[0].dtype] * signature.width
    for position, dtype in enumerate(columns):
        if dtype.kind == "b":
            rows[:, position] = rows[:, position] > 0
        elif dtype.kind in "iu":
            limits = np.iinfo(dtype)
            top = min(limits.max, 2**53)
            rows[:, position] = np.clip(np.rint(rows[:, position]), max(limits.min, -(2**53)), top)
        elif dtype.itemsize < np.dtype(np.float64).itemsize:
            largest = float(np.finfo(dtype).max)
            rows[:, position] = np.clip(rows[:, position], -largest, largest)
    return rows


def _broken(rows: Array) -> Iterator[Array]:
    """Rows that scikit-learn may refuse, with something in the first or the last column."""
    for value, place in ((np.nan, 0), (np.nan, -1), (np.inf, 0), (-np.inf, -1), (1e300, 0)):
        broken = rows[:2].copy()
        broken[-1, place] = value
        yield broken
