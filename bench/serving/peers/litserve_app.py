"""A model behind LitServe, with its batching."""

from __future__ import annotations

import os
from typing import Any

import joblib  # type: ignore[import-untyped]
import litserve  # type: ignore[import-not-found]
import numpy as np


class Model(litserve.LitAPI):  # type: ignore[misc]
    """Predicts all rows of a batch of requests at once."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - there is only the processor
        """Load the model."""
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    # LitServe makes a query parameter of a request whose annotation is not one of its own.
    def decode_request(self, request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return np.array(request["inputs"])

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, inputs: list[Any]) -> list[Any]:
        classes = self.model.predict(np.concatenate(inputs))
        return np.split(classes, np.cumsum([len(rows) for rows in inputs])[:-1])

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    api = Model(max_batch_size=int(os.environ["BENCH_BATCH_REQUESTS"]), batch_timeout=float(os.environ["BENCH_WINDOW"]))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"]))
    quiet = {"log_level": "warning", "access_log": False} if os.environ["BENCH_QUIET"] else {}
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=1,
        generate_client_file=False,
        **quiet,
    )
