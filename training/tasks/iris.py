"""Iris: the logistic regression of the seed documents, logged with named columns."""

from collections.abc import Mapping
from typing import ClassVar

from mlflow.models import ModelSignature, infer_signature
from sklearn.linear_model import LogisticRegression

from training.datasets import SPLIT_SEED, TEST_SIZE, DataSet, load_iris
from training.tasks.base import EpochCallback, Estimator, Fitted, Task

# The values of the seed documents; multi_class="auto" is gone from scikit-learn and was the default.
PARAMS: Mapping[str, object] = {"solver": "lbfgs", "max_iter": 1000, "random_state": 8888}


class IrisTask(Task):
    """Species of an iris flower (Fisher 1936) from four lengths in cm, as a DataFrame with named columns."""

    name: ClassVar[str] = "iris"
    description: ClassVar[str] = "species of an iris flower, logistic regression, named columns"

    def __init__(self) -> None:
        """Create the task. The threshold allows 3 of the 30 held-out flowers to be wrong."""
        self.threshold = 0.9
        self.metadata = {"labels": list(load_iris().class_names)}
        self.trusted_types = ()

    def load(self) -> DataSet:
        """Return the iris data: 120 rows to train on, 30 held out."""
        return load_iris()

    def fit(self, data: DataSet, report: EpochCallback) -> Fitted:  # noqa: ARG002 - lbfgs has no epochs to report
        """Train the logistic regression; takes milliseconds."""
        estimator = LogisticRegression(**PARAMS)
        estimator.fit(data.x_train, data.y_train)
        return Fitted(estimator, {**estimator.get_params(), "test_size": TEST_SIZE, "split_seed": SPLIT_SEED})

    def signature(self, data: DataSet, estimator: Estimator) -> ModelSignature:
        """Return four named double columns in, one int64 class number per row out."""
        return infer_signature(data.x_train, estimator.predict(data.x_train))
