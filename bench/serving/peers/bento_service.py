"""A model behind BentoML, with its adaptive batching."""

from __future__ import annotations

import os

import bentoml  # type: ignore[import-not-found]
import joblib  # type: ignore[import-untyped]
import numpy as np

LOGGING = {"access": {"enabled": not os.environ["BENCH_QUIET"]}}


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), logging=LOGGING)
class Model:
    """Predicts all rows that come within the window that BentoML chooses."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api(batchable=True, max_batch_size=int(os.environ["BENCH_BATCH_ROWS"]), max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Predict rows of numbers."""
        return self.model.predict(inputs)  # type: ignore[no-any-return]
