"""The MLflow model that is served: loaded, compiled where that gives the same answers, asked for predictions."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from numpy.typing import NDArray

from serving import frames
from serving.compiled import Compiled, compile_model
from serving.errors import InvalidInput, ModelFailed, Problem, ServingError
from serving.information import ModelInformation, read
from serving.kernels import NotFinite
from serving.signature import Batch, Signature

log = logging.getLogger(__name__)

FAILED = "The model failed on this input."
NOT_FINITE = "The model takes no NaN, no infinity and no number that is too large for it."
DOES_NOT_FIT = "The input does not fit the model's signature."
# MLflow loads faster and answers without a copy of the input in its errors.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_SCHEMA_DETAILS": "true",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
}


@dataclass(slots=True)
class Answer:
    """The answer to one batch.

    ``predictions`` is a list of plain Python values where the model returns an array, otherwise what it returned
    (a DataFrame, a Series, a dictionary, ...). ``probabilities`` has one list per row, in the order of the classes.
    """

    predictions: Any
    probabilities: list[list[float]] | None = None


class Original:
    """The model as MLflow loads it."""

    def __init__(self, pyfunc: Any, signature: Signature, predict_fn: str = "predict") -> None:
        self.pyfunc = pyfunc
        self.signature = signature
        self.estimator = _estimator(pyfunc)
        self.classes = _classes(self.estimator) if predict_fn == "predict" else None
        self.plain = predict_fn == "predict" and self.estimator is not None
        self.rowwise = self.estimator is not None and _independent_rows(self.estimator)

    def predict(self, batch: Batch) -> Any:
        """Return what ``PyFuncModel.predict`` returns; raise InvalidInput or ModelFailed."""
        with _Translated():
            return self.pyfunc.predict(frames.original_input(self.signature, batch), params=batch.params)

    def predict_proba(self, batch: Batch) -> NDArray[Any]:
        """Return what ``predict_proba`` of the estimator returns; raise InvalidInput or ModelFailed."""
        with _Translated():
            result: NDArray[Any] = self.estimator.predict_proba(frames.original_input(self.signature, batch))
            return result


class ServedModel:
    """A model with everything that is known about it; predicts in the fastest way that gives the original's answers."""

    def __init__(self, original: Original, information: ModelInformation, compiled: Compiled | None = None) -> None:
        self.original = original
        self.information = information
        self.compiled = compiled
        self.signature = information.signature
        self.classes = information.classes
        # Whether batches may be joined and split: no row's answer depends on the other rows.
        self.rowwise = compiled is not None or original.rowwise
        self.has_probabilities = bool(information.classes)

    def predict(self, batch: Batch) -> Any:
        """Return what ``PyFuncModel.predict`` returns for this batch, of the same type and dtype."""
        if self.compiled is None or batch.raw is not None or batch.params is not None:
            return self.original.predict(batch)
        return self._compiled([batch], probabilities=False)[0]

    def predict_proba(self, batch: Batch) -> NDArray[Any] | None:
        """Return the probabilities, (rows, classes); None where the model has none or takes the input as it came."""
        if not self.has_probabilities or batch.raw is not None:
            return None
        if self.compiled is None:
            return self.original.predict_proba(batch)
        return self._compiled([batch], probabilities=True)[1]

    def kind(self, batch: Batch) -> Hashable | None:
        """What batches that are answered together have in common; None for one that is answered alone."""
        return frames.kind(batch) if self.rowwise else None

    def answer(self, batches: Sequence[Batch], *, probabilities: bool = False) -> list[Answer]:
        """Answer batches of one kind with one call of the model, one answer for each."""
        first = batches[0]
        rows = sum([batch.rows for batch in batches])
        likely: Any = None
        if self.compiled is not None and first.raw is None and first.params is None:
            predictions, likely = self._compiled(batches, probabilities=probabilities)
        else:
            batch = frames.join(self.signature, batches)
            predictions = self.original.predict(batch)
            if probabilities:
                likely = self.predict_proba(batch)
        values = predictions.tolist() if isinstance(predictions, np.ndarray) else predictions
        shares = None if likely is None else likely.tolist()
        if len(batches) == 1:
            return [Answer(values, shares)]
        if not isinstance(values, list) or len(values) != rows:
            # Cannot be split: not one answer per row, against all expectation.
            return [self.answer([single], probabilities=probabilities)[0] for single in batches]
        answers = []
        start = 0
        for single in batches:
            end = start + single.rows
            answers.append(Answer(values[start:end], None if shares is None else shares[start:end]))
            start = end
        return answers

    def _compiled(self, batches: Sequence[Batch], *, probabilities: bool) -> tuple[NDArray[Any], NDArray[Any] | None]:
        compiled = cast("Compiled", self.compiled)
        try:
            rows = frames.joined_matrix(self.signature, batches)
            if probabilities and compiled.has_probabilities:
                return compiled.both(rows)
            return compiled.predict(rows), None
        except NotFinite:
            raise InvalidInput([Problem((), NOT_FINITE, "finite_number")]) from None
        except Exception:
            log.exception("the compiled model failed")
            raise ModelFailed(FAILED) from None


def load(path: str | Path, information: ModelInformation | None = None, *, compiled: bool = True) -> ServedModel:
    """Load the model directory ``path``; ``information`` defaults to what the directory says.

    The result's own ``information`` also has the classes and how the model predicts.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    information = read(path) if information is None else information
    # A table of numbers has no columns of strings.
    with _no_pyarrow() if information.flavor == "sklearn" and information.signature.dense else nullcontext():
        # After the environment is set; and it takes seconds, which reading the information does not need.
        from mlflow import pyfunc  # noqa: PLC0415

    # What single precision cannot hold becomes infinity, and is found by it.
    warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning, r"serving\.fast")
    # pandas reads a date of any form, as in MLflow's own server, and says so every time.
    warnings.filterwarnings("ignore", "Could not infer format", UserWarning)
    mlmodel = yaml.safe_load((Path(path) / "MLmodel").read_text(encoding="utf-8"))
    predict_fn = mlmodel["flavors"]["python_function"].get("predict_fn", "predict")
    # Without MLflow's comparison of the requirements with what is installed, which takes half a second: the image is made
    # from the requirements.
    original = Original(pyfunc.load_model(str(path), suppress_warnings=True), information.signature, predict_fn)
    return make(original, information, compiled=compiled)


def make(original: Original, information: ModelInformation, *, compiled: bool = True) -> ServedModel:
    """Compile a loaded model where possible, and complete what is known about it."""
    if original.classes is not None:
        information = replace(information, classes=tuple(original.classes.tolist()))
    program: Compiled | None = None
    if not compiled:
        reason = "compilation is switched off"
    elif original.plain:
        program, reason = compile_model(original, information)
    else:
        reason = "the model is not a scikit-learn estimator that is asked for `predict`"
    way = "original" if program is None else "compiled"
    return ServedModel(original, replace(information, predictor=way, predictor_reason=reason), program)


@contextmanager
def _no_pyarrow() -> Iterator[None]:
    """Import pandas and MLflow without pyarrow, which they take for columns of strings and for HDFS: 40 MB."""
    if "pandas" in sys.modules or "pyarrow" in sys.modules:
        yield
        return
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        # Whoever imports it from now on gets it: a model, and pandas for Parquet.
        del sys.modules["pyarrow"]


class _Translated:
    """Turns what a model raises into errors that tell the client nothing internal."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception | SystemExit) or isinstance(error, ServingError):
            return
        text = str(error)
        # The words of scikit-learn's own check of its input, the same for all estimators.
        if isinstance(error, ValueError) and ("contains NaN" in text or "contains infinity" in text):
            raise InvalidInput([Problem((), NOT_FINITE, "finite_number")]) from None
        if type(error).__name__ == "MlflowException" and text.startswith("Failed to enforce"):
            raise InvalidInput([Problem((), DOES_NOT_FIT, "signature")]) from None
        log.error("the model failed", exc_info=error)
        raise ModelFailed(FAILED) from None


def _estimator(pyfunc: Any) -> Any:
    """The scikit-learn estimator of a model of that flavor, or None."""
    if pyfunc.loader_module != "mlflow.sklearn":
        return None
    raw = getattr(pyfunc, "get_raw_model", None)
    # MLflow before 2.16 has no public way.
    return raw() if raw is not None else getattr(pyfunc._model_impl, "sklearn_model", pyfunc._model_impl)  # noqa: SLF001


def _classes(estimator: Any) -> NDArray[Any] | None:
    """The classes that ``predict_proba`` has a column for; None where it does not exist."""
    try:
        classes = estimator.classes_ if hasattr(estimator, "predict_proba") else None
    except AttributeError:
        return None
    return classes if isinstance(classes, np.ndarray) and classes.ndim == 1 else None


def _independent_rows(estimator: Any) -> bool:
    """Whether the estimator and its parts are scikit-learn's own, which answer each row by itself."""
    parameters = estimator.get_params(deep=True).values() if hasattr(estimator, "get_params") else ()
    parts = [estimator, *(part for part in parameters if hasattr(part, "get_params"))]
    return all(
        type(part).__module__.startswith("sklearn.") and type(part).__name__ != "FunctionTransformer" for part in parts
    )
