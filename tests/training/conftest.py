"""Fixtures: a real MLflow store in SQLite, and small models to compare."""

import gzip
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from numpy.typing import NDArray

Images = NDArray[np.uint8]

_numbers = itertools.count()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of one store for the whole session: creating its tables takes seconds; tests use names of their own."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def client(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """Client of the store; artifacts land in the working directory, which is temporary."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    yield MlflowClient()
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)
    os.environ.pop("MLFLOW_RUN_ID", None)


@pytest.fixture
def name() -> str:
    """A registered model that no other test uses."""
    return f"test.model_{next(_numbers)}"


def _idx_bytes(array: Images, magic: bytes | None = None) -> bytes:
    """Return ``array`` in IDX format."""
    start = magic or bytes([0, 0, 8, array.ndim])
    return start + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _toy_digits(per_class: int) -> tuple[Images, Images]:
    """Return images that are easy to tell apart: class k is a bright bar in rows 2k..2k+3, with noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10, dtype=np.uint8), per_class)
    images = rng.integers(0, 40, (len(labels), 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 6, 4:24] = 250
    order = rng.permutation(len(labels))
    return images[order], labels[order]


# Helpers come as fixtures: this directory is no package, because one named "training" would hide the real one.
@pytest.fixture(scope="session")
def idx_bytes() -> Callable[..., bytes]:
    """Return a function that turns an array into the bytes of an IDX file."""
    return _idx_bytes


@pytest.fixture(scope="session")
def toy_digits() -> Callable[[int], tuple[Images, Images]]:
    """Return a function that makes a small data set that is easy to learn."""
    return _toy_digits


@pytest.fixture
def write_pair(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes one pair of IDX files and returns their directory."""

    def write(images: Images, labels: Images, prefix: str = "t10k", *, packed: bool = True) -> Path:
        directory = tmp_path / "idx"
        directory.mkdir(exist_ok=True)
        for kind, array in (("images", images), ("labels", labels)):
            data = _idx_bytes(array)
            file = directory / f"{prefix}-{kind}-idx{array.ndim}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(data) if packed else data)
        return directory

    return write
