"""What a task must say about itself so that the rest of the package can train, log, check and promote it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from mlflow.models import ModelSignature
from numpy.typing import NDArray

from training.datasets import DataSet, Features

# Called as report(epoch, training loss) while a model learns; epochs count from 1.
EpochCallback = Callable[[int, float], None]


class Estimator(Protocol):
    """The part of a scikit-learn classifier that the package uses after training."""

    def predict(self, features: Features, /) -> NDArray[np.int64]:
        """Return class numbers, shape (n,)."""

    def predict_proba(self, features: Features, /) -> NDArray[np.floating[Any]]:
        """Return class probabilities, shape (n, classes)."""


@dataclass(frozen=True)
class Fitted:
    """A trained model that takes raw features, and the parameters to log for it."""

    estimator: Estimator
    params: Mapping[str, object]


class Task(ABC):
    """One model that the package can train: its data, its estimator, its signature and its threshold."""

    name: ClassVar[str]
    description: ClassVar[str]
    threshold: float
    """Lowest held-out accuracy (share, 0..1) with which a version passes."""
    metadata: Mapping[str, object]
    """Extra facts for the model's MLmodel file, for those who serve it."""
    trusted_types: tuple[str, ...]
    """Types inside the estimator that skops does not trust by itself and that every loader must be told to accept."""

    @abstractmethod
    def load(self) -> DataSet:
        """Return the data set, split. Raises DataError."""

    @abstractmethod
    def fit(self, data: DataSet, report: EpochCallback) -> Fitted:
        """Train on the training rows of ``data`` and nothing else."""

    @abstractmethod
    def signature(self, data: DataSet, estimator: Estimator) -> ModelSignature:
        """Return the signature that clients see and that scoring servers enforce."""
