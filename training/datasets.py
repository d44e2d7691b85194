"""The data sets: where they come from, how they are checked, how they are split.

No function here ever replaces a data set that was asked for by another one: what cannot be loaded raises DataError.
"""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import fetch_openml
from sklearn.datasets import load_iris as sklearn_iris
from sklearn.model_selection import train_test_split

from training import idx
from training.errors import DataError

Labels = NDArray[np.int64]
Features = pd.DataFrame | NDArray[np.float32]

EMBEDDED_MNIST = Path(__file__).parent / "data" / "mnist"
MNIST_SIDE = 28
MNIST_PIXELS = MNIST_SIDE * MNIST_SIDE
MNIST_TRAIN_ROWS = 60_000
MNIST_TEST_ROWS = 10_000
OPENML_URL = "https://www.openml.org/d/554"

# One fifth held out with seed 42 is the split of the seed documents' iris example; digits follow it.
TEST_SIZE = 0.2
SPLIT_SEED = 42

_DOWNLOAD_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class DataSet:
    """A data set, already split.

    ``x_*`` have one row per example (a DataFrame for iris, float32 of shape (n, 784) for digits), ``y_*`` hold class
    numbers of shape (n,), which index ``class_names``. ``source`` is a path or URL, empty when the data are inside
    scikit-learn.
    """

    name: str
    source: str
    x_train: Features
    y_train: Labels
    x_test: Features
    y_test: Labels
    class_names: tuple[str, ...]


def load_iris() -> DataSet:
    """Return the iris data (Fisher 1936): 150 flowers, 4 columns in cm (float64), 3 species, 120 rows to train on."""
    bunch: Any = sklearn_iris(as_frame=True)
    features: pd.DataFrame = bunch.data
    target = bunch.target.to_numpy().astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(features, target, test_size=TEST_SIZE, random_state=SPLIT_SEED)
    names = tuple(str(name) for name in bunch.target_names)
    return DataSet("iris", "", x_train, y_train, x_test, y_test, names)


def load_embedded_digits() -> DataSet:
    """Return the 10,000 MNIST images that ship with the package: 8,000 to train on, 2,000 held out."""
    images, labels = read_pair(EMBEDDED_MNIST, "t10k")
    return _split_digits("mnist-10k", str(EMBEDDED_MNIST), images, labels)


def load_digits_from(directory: Path) -> DataSet:
    """Return MNIST-like digits from the IDX files in ``directory``, plain or gzip-compressed.

    With both ``train-*`` and ``t10k-*`` files the first are for training and the second are held out; with one pair a
    fifth of it is held out. Raises DataError if the directory or half of a pair is missing, or a file is damaged.
    """
    if not directory.is_dir():
        msg = f"--data {directory}: no such directory"
        raise DataError(msg)
    present = [prefix for prefix in ("train", "t10k") if _has_pair(directory, prefix)]
    if not present:
        msg = (
            f"--data {directory}: no IDX files found; expected train-images-idx3-ubyte and train-labels-idx1-ubyte, "
            "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, or both pairs, each with or without .gz"
        )
        raise DataError(msg)
    name, source = f"idx-{directory.resolve().name}", str(directory.resolve())
    if len(present) == 1:
        return _split_digits(name, source, *read_pair(directory, present[0]))
    return _digits(name, source, read_pair(directory, "train"), read_pair(directory, "t10k"))


def download_full_digits() -> DataSet:
    """Return all of MNIST from OpenML (data set 554, "mnist_784"): 60,000 images to train on, 10,000 held out.

    OpenML keeps the order of the original files, so the split is the one of LeCun et al. 1998. Raises DataError if the
    download fails or is not what it should be; there is no fallback.
    """
    try:
        with _socket_timeout(_DOWNLOAD_TIMEOUT_SECONDS):
            bunch: Any = fetch_openml("mnist_784", version=1, as_frame=False)
    except Exception as error:
        msg = (
            f"--full: MNIST could not be downloaded from {OPENML_URL}: {error or type(error).__name__}. "
            "Get the four IDX files of MNIST some other way and name their directory with --data DIR"
        )
        raise DataError(msg) from error
    pixels, labels = np.asarray(bunch.data), np.asarray(bunch.target)
    rows = MNIST_TRAIN_ROWS + MNIST_TEST_ROWS
    if pixels.shape != (rows, MNIST_PIXELS) or labels.shape != (rows,):
        msg = (
            f"--full: OpenML answered with shapes {pixels.shape} and {labels.shape}, "
            f"expected ({rows}, {MNIST_PIXELS}) and ({rows},)"
        )
        raise DataError(msg)
    cut = MNIST_TRAIN_ROWS
    train = (pixels[:cut].astype(np.float32), labels[:cut].astype(np.int64))
    test = (pixels[cut:].astype(np.float32), labels[cut:].astype(np.int64))
    return _digits("mnist-70k", OPENML_URL, train, test)


def read_pair(directory: Path, prefix: str) -> tuple[NDArray[np.float32], Labels]:
    """Return images of shape (n, 784), float32 0..255, and labels of shape (n,), 0..9, of one pair of IDX files.

    ``prefix`` is "train" or "t10k". Raises DataError if a file is missing or damaged, if the two disagree in length, if
    the images are not 28x28, or if a label is not a digit.
    """
    image_path = _require(directory, prefix, "images", 3)
    label_path = _require(directory, prefix, "labels", 1)
    images, labels = idx.read_images(image_path), idx.read_labels(label_path)
    if images.shape[1:] != (MNIST_SIDE, MNIST_SIDE):
        msg = f"{image_path}: images are {images.shape[1]}x{images.shape[2]}, expected {MNIST_SIDE}x{MNIST_SIDE}"
        raise DataError(msg)
    if len(images) != len(labels):
        msg = f"{image_path} has {len(images)} images but {label_path} has {len(labels)} labels"
        raise DataError(msg)
    if len(images) == 0:
        msg = f"{image_path} holds no images"
        raise DataError(msg)
    if labels.max() > 9:  # noqa: PLR2004 - the ten digits
        msg = f"{label_path}: label {labels.max()} is not a digit 0..9"
        raise DataError(msg)
    return images.reshape(-1, MNIST_PIXELS).astype(np.float32), labels.astype(np.int64)


def fingerprints(features: Features) -> NDArray[np.uint64]:
    """Return one 64-bit hash per row, shape (n,), by which a later run recognises rows that this one trained on."""
    rows = np.ascontiguousarray(features.to_numpy() if isinstance(features, pd.DataFrame) else features)
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _digits(
    name: str,
    source: str,
    train: tuple[NDArray[np.float32], Labels],
    test: tuple[NDArray[np.float32], Labels],
) -> DataSet:
    return DataSet(name, source, *train, *test, tuple("0123456789"))


def _split_digits(name: str, source: str, images: NDArray[np.float32], labels: Labels) -> DataSet:
    try:
        x_train, x_test, y_train, y_test = train_test_split(
            images, labels, test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=labels
        )
    except ValueError as error:
        msg = f"{source}: {len(images)} images are too few to hold out a fifth of every digit: {error}"
        raise DataError(msg) from error
    return _digits(name, source, (x_train, y_train), (x_test, y_test))


def _find(directory: Path, prefix: str, kind: str, dimensions: int) -> Path | None:
    # The dotted spelling is what some mirrors unpack to.
    for joint in ("-", "."):
        for suffix in ("", ".gz"):
            path = directory / f"{prefix}-{kind}{joint}idx{dimensions}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def _has_pair(directory: Path, prefix: str) -> bool:
    # Half a pair counts: reading it then names the missing half instead of ignoring the file that is there.
    return any(_find(directory, prefix, kind, size) for kind, size in (("images", 3), ("labels", 1)))


def _require(directory: Path, prefix: str, kind: str, dimensions: int) -> Path:
    path = _find(directory, prefix, kind, dimensions)
    if path is None:
        msg = f"{directory}: {prefix}-{kind}-idx{dimensions}-ubyte (or the same with .gz) is missing"
        raise DataError(msg)
    return path


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    # scikit-learn's download has no time-out of its own: behind a dropping firewall it would wait for ever.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
