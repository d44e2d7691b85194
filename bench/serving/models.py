"""The models that all peers serve, trained once, and the rows they are asked about."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.machine import CACHE

DIRECTORY = CACHE / "models"
EPOCHS = 5
TREES = 100
SEED = 8888
# Rows whose two likeliest classes are this close are not asked: there the order of additions may decide.
MARGIN = 1e-3
# Distinct bodies for each number of rows; what is large or slow to answer has fewer.
POOLS = {("iris", 1): 512, ("iris", 100): 64, ("forest", 1): 256, ("forest", 100): 64, ("digits", 1): 256}
FEW = 16
# skops wants this type named; the file is this program's own, made moments before it is read.
TREE = "sklearn.tree._tree.Tree"


@dataclass(frozen=True)
class Kind:
    """A model of the benchmark; `columns` tells whether its signature names columns, or a tensor."""

    name: str
    title: str
    columns: bool


KINDS = {
    kind.name: kind
    for kind in (
        Kind("iris", "iris, logistic regression", columns=True),
        Kind("forest", f"iris, random forest of {TREES} trees", columns=True),
        Kind("digits", "digits, neural network, tensor of 784", columns=False),
        Kind("wide", "digits, 784 named columns", columns=True),
    )
}


@dataclass(frozen=True)
class Pool:
    """Batches of rows, shape (bodies, rows, features), their classes, and the names of the columns."""

    model: str
    names: list[str]
    rows: NDArray[Any]
    classes: NDArray[np.int64]


def directory(name: str) -> Path:
    """Where a model is: `mlflow/` as MLflow saves it, `model.joblib` for those that know nothing of MLflow."""
    return DIRECTORY / name


def stamp() -> str:
    """What a trained model depends on."""
    import sklearn  # noqa: PLC0415 - as mlflow below: seconds, for what most parts of this program do not need

    how = "".join(inspect.getsource(part) for part in (train, estimator, random_flowers, decided))
    return hashlib.sha256(f"{how} {EPOCHS} {TREES} {SEED} {sys.version} {sklearn.__version__}".encode()).hexdigest()


def prepare(say: Callable[[str], None]) -> None:
    """Train what is not there yet."""
    wanted = stamp()
    for name in KINDS:
        place = directory(name)
        mark = place / "stamp"
        if mark.exists() and mark.read_text() == wanted:
            continue
        say(f"training {name}")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        train(name, place)
        mark.write_text(wanted)


def train(name: str, place: Path) -> None:
    """Train a model and save it, with rows to ask it about."""
    import joblib  # type: ignore[import-untyped]  # noqa: PLC0415
    import mlflow  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415
    from mlflow.models import infer_signature  # noqa: PLC0415

    from training.datasets import load_iris  # noqa: PLC0415
    from training.tasks.digits import DigitsTask  # noqa: PLC0415
    from training.tasks.iris import IrisTask  # noqa: PLC0415

    made: Any
    requirements = [f"mlflow=={mlflow.__version__}", "scikit-learn"]
    if name in {"iris", "forest"}:
        data, task = load_iris(), IrisTask()
        features: Any = data.x_train
        rows = random_flowers(np.asarray(features))
        made, plain = (estimator(name, x, data.y_train) for x in (features, np.asarray(features)))
        signature = infer_signature(features, made.predict(features))
        metadata, trusted = dict(task.metadata), [TREE] if name == "forest" else []
    else:
        digits = DigitsTask(epochs=EPOCHS)
        data = digits.load()
        rows = np.unique(np.asarray(data.x_train, dtype=np.float32), axis=0)
        np.random.default_rng(SEED).shuffle(rows)
        plain = made = digits.fit(data, lambda *_: None).estimator
        signature = digits.signature(data, made)
        metadata, trusted = dict(digits.metadata), list(digits.trusted_types)
        features = np.asarray(data.x_train)
        if name == "wide":
            features = pd.DataFrame(
                np.asarray(data.x_train, dtype=np.float64), columns=[f"pixel{n}" for n in range(784)]
            )
            signature, metadata = infer_signature(features, made.predict(features.to_numpy())), {}
            # Fitted to arrays, it would warn about every batch of named columns.
            made = copy.deepcopy(plain)
            made["scale"].feature_names_in_ = np.array(features.columns, dtype=object)
    mlflow.sklearn.save_model(
        made,
        str(place / "mlflow"),
        signature=signature,
        input_example=features[:5],
        pip_requirements=requirements,
        metadata=metadata or None,
        skops_trusted_types=trusted or None,
    )
    joblib.dump(plain, place / "model.joblib")
    names = list(features.columns) if KINDS[name].columns else []
    (place / "columns.json").write_text(json.dumps(names))
    np.save(place / "rows.npy", decided(plain, rows))


def estimator(name: str, features: Any, labels: Any) -> Any:
    """A fitted estimator for iris."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    from training.tasks.iris import PARAMS  # noqa: PLC0415

    made = RandomForestClassifier(TREES, random_state=SEED) if name == "forest" else LogisticRegression(**PARAMS)
    return made.fit(features, labels)


def random_flowers(known: NDArray[Any]) -> NDArray[np.float64]:
    """Flowers nobody has seen, within the bounds of those in the data, to a hundredth of a centimetre."""
    lowest, highest = known.min(axis=0), known.max(axis=0)
    flowers = np.random.default_rng(SEED).uniform(lowest, highest, size=(10_000, known.shape[1])).round(2)
    return np.unique(flowers, axis=0)[np.random.default_rng(SEED).permutation(len(np.unique(flowers, axis=0)))]


def decided(model: Any, rows: NDArray[Any]) -> NDArray[Any]:
    """The rows about which a model is not in two minds."""
    chances = np.sort(model.predict_proba(rows), axis=1)
    clear: NDArray[Any] = rows[chances[:, -1] - chances[:, -2] > MARGIN]
    return clear


def pool(name: str, rows: int) -> Pool:
    """Distinct batches of distinct rows, and what the model itself says of them."""
    import joblib  # noqa: PLC0415

    place = directory(name)
    known = np.load(place / "rows.npy")
    bodies = min(POOLS.get((name, rows), FEW), len(known) // rows)
    chosen = known[: bodies * rows]
    classes = joblib.load(place / "model.joblib").predict(chosen)
    return Pool(
        name,
        json.loads((place / "columns.json").read_text()),
        chosen.reshape(bodies, rows, -1),
        np.asarray(classes, dtype=np.int64).reshape(bodies, rows),
    )
