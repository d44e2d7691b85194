"""Bodies that only MLflow's own parser understands: no signature, nested types, typed Python functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.pyfunc.scoring_server import infer_and_parse_data

from serving.decode import refuse
from serving.errors import BadRequest
from serving.signature import Batch


class RawParser:
    """MLflow's parser, with its errors kept to ourselves: they quote the input and the schema."""

    def __init__(self, path: str | Path) -> None:
        """Read the MLmodel file below ``path``."""
        self.model = Model.load(str(path))
        self.schema = self.model.get_input_schema()
        self.typed = bool(getattr(self.model, "_is_signature_from_type_hint", bool)())

    def parse(self, document: dict[str, Any], form: str) -> Batch:
        """The object that MLflow makes of a body of /invocations with the key ``form``."""
        if self.typed:
            if form != "inputs":
                raise BadRequest("A model with type hints takes its input under the key inputs")
            return self._batch(document["inputs"])
        try:
            data = infer_and_parse_data({form: document[form]}, self.schema)
            self.check(data)
        except (MlflowException, ValueError, TypeError, KeyError, OverflowError, AttributeError, RecursionError):
            raise refuse(("body", form), "the input does not fit the model's signature", "signature") from None
        return self._batch(data)

    def check(self, data: Any) -> None:
        """Raise MlflowException where the model's signature does not take ``data``."""
        if self.schema is not None:
            mlflow.models.validate_schema(data, self.schema)

    def chat(self, document: dict[str, Any]) -> Batch:
        """A body in the form of chats, completions and embeddings, which has no key of the protocol."""
        schema = self.model.get_params_schema()
        names = {param.name for param in schema.params} if schema is not None else set()
        data = {key: value for key, value in document.items() if key not in names}
        try:
            self.check(data)
        except (MlflowException, ValueError, TypeError, RecursionError):
            raise refuse(("body",), "the input does not fit the model's signature", "signature") from None
        batch = self._batch(data)
        batch.params = {key: value for key, value in document.items() if key in names}
        return batch

    @staticmethod
    def _batch(data: Any) -> Batch:
        if isinstance(data, dict):
            sizes = [len(value) for value in data.values() if hasattr(value, "shape") and value.ndim]
            rows = sizes[0] if sizes else 1
        else:
            sized = isinstance(data, list | pd.DataFrame) or (isinstance(data, np.ndarray) and data.ndim > 0)
            rows = len(data) if sized else 1
        if not rows:
            raise refuse(("body",), "there is no row", "too_short")
        return Batch(data={}, rows=rows, raw=data)
