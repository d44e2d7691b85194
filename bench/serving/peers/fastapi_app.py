"""A FastAPI application as most people write one: a pydantic model, numpy, a plain function."""

from __future__ import annotations

import json
import os
from pathlib import Path

import joblib  # type: ignore[import-untyped]
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, create_model

model = joblib.load(os.environ["BENCH_MODEL"])
columns: list[str] = json.loads(Path(os.environ["BENCH_COLUMNS"]).read_text())
fields = [name.removesuffix(" (cm)").replace(" ", "_") for name in columns]
app = FastAPI()


class Image(BaseModel):
    """An image, pixel by pixel."""

    image: list[float]


class Images(BaseModel):
    """Images to recognise."""

    rows: list[Image]


class Answer(BaseModel):
    """The class of each row."""

    predictions: list[int]


@app.get("/health")  # type: ignore[untyped-decorator]
def health() -> str:
    """Tell that the model is loaded."""
    return "ok"


if columns:
    # What somebody who knows the columns writes down as a class.
    Row = create_model("Row", **dict.fromkeys(fields, (float, ...)))  # type: ignore[call-overload]
    Rows = create_model("Rows", rows=(list[Row], ...))  # type: ignore[valid-type]

    def predict(request: Rows) -> Answer:  # type: ignore[valid-type]
        """Predict rows of named columns."""
        features = np.array([[getattr(row, field) for field in fields] for row in request.rows])  # type: ignore[attr-defined]
        return Answer(predictions=model.predict(features).tolist())

    # The annotation is a string here, and no name that FastAPI could find.
    predict.__annotations__["request"] = Rows
    app.post("/predict")(predict)
else:

    @app.post("/predict")  # type: ignore[untyped-decorator]
    def recognise(request: Images) -> Answer:
        """Predict images."""
        features = np.array([row.image for row in request.rows])
        return Answer(predictions=model.predict(features).tolist())
