"""Digits: handwritten digits of 28x28 pixels (MNIST), logged as a tensor."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from training.datasets import (
    MNIST_PIXELS,
    MNIST_SIDE,
    SPLIT_SEED,
    TEST_SIZE,
    DataSet,
    download_full_digits,
    load_digits_from,
    load_embedded_digits,
)
from training.errors import UsageError
from training.tasks.base import EpochCallback, Estimator, Fitted, Task

CLASSES = np.arange(10)
WHITE = 255.0
SEED = 8888

# One hidden layer of 256 with Adam: two layers and 512 units were no better on the 10,000-image file, and slower.
HIDDEN_UNITS = (256,)
BATCH_SIZE = 128
# Epochs for few and for many training images; more do not pay in either case.
EPOCHS = 40
EPOCHS_MANY = 20
MANY_IMAGES = 20_000
# Moving every image by up to one pixel, anew in every epoch, is worth 1.5 points of accuracy on 8,000 images.
SHIFT_PIXELS = 1

THRESHOLD = 0.96
FULL_THRESHOLD = 0.98

# Adam's state stays in the estimator after training; skops wants its type named.
TRUSTED_TYPES = ("sklearn.neural_network._stochastic_optimizers.AdamOptimizer",)


class DigitsTask(Task):
    """Which digit an image shows (MNIST, LeCun et al. 1998): 784 grey levels 0..255 in, the digit out."""

    name: ClassVar[str] = "digits"
    description: ClassVar[str] = "handwritten digits (MNIST, 28x28), neural network, tensor input"

    def __init__(self, directory: Path | None = None, *, full: bool = False, epochs: int | None = None) -> None:
        """Choose the data: the embedded 10,000 images, IDX files in ``directory``, or all of MNIST from OpenML.

        ``epochs`` is the number of passes over the training images; None takes 40, or 20 from 20,000 images on. Raises
        UsageError if both sources are asked for or ``epochs`` is not positive.
        """
        if directory is not None and full:
            msg = "--data and --full exclude each other: --full downloads the data, --data reads them"
            raise UsageError(msg)
        if epochs is not None and epochs < 1:
            msg = f"--epochs {epochs}: expected 1 or more"
            raise UsageError(msg)
        self.directory = directory
        self.full = full
        self.epochs = epochs
        self.threshold = FULL_THRESHOLD if full else THRESHOLD
        self.metadata = {"input_name": "image", "input_shape": [MNIST_SIDE, MNIST_SIDE]}
        self.trusted_types = TRUSTED_TYPES

    def load(self) -> DataSet:
        """Return the data set that was chosen, or raise DataError; never another one."""
        if self.directory is not None:
            return load_digits_from(self.directory)
        return download_full_digits() if self.full else load_embedded_digits()

    def fit(self, data: DataSet, report: EpochCallback) -> Fitted:
        """Train the network on images that move a little in every epoch."""
        # Fitted on black and white, the scaler divides by 255 exactly, and skl2onnx knows how to convert it.
        bounds = np.array([[0.0] * MNIST_PIXELS, [WHITE] * MNIST_PIXELS], dtype=np.float32)
        scaler = MinMaxScaler().fit(bounds)
        epochs = self.epochs or (EPOCHS if len(data.y_train) < MANY_IMAGES else EPOCHS_MANY)
        network = MLPClassifier(HIDDEN_UNITS, batch_size=BATCH_SIZE, max_iter=epochs, random_state=SEED)
        features: NDArray[np.float32] = scaler.transform(np.asarray(data.x_train))
        rng = np.random.default_rng(SEED)
        for epoch in range(1, epochs + 1):
            network.partial_fit(shift_images(features, rng, SHIFT_PIXELS), data.y_train, classes=CLASSES)
            report(epoch, float(network.loss_))
        estimator = Pipeline([("scale", scaler), ("network", network)])
        params = {**network.get_params(), "shift_pixels": SHIFT_PIXELS}
        if self.directory is None and not self.full:
            params |= {"test_size": TEST_SIZE, "split_seed": SPLIT_SEED}
        return Fitted(estimator, params)

    def signature(self, data: DataSet, estimator: Estimator) -> ModelSignature:  # noqa: ARG002 - the same for all data
        """Return a float32 tensor of shape (n, 784) in, int64 of shape (n,) out."""
        return ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, MNIST_PIXELS))]),
            outputs=Schema([TensorSpec(np.dtype(np.int64), (-1,))]),
        )


def shift_images(images: NDArray[np.float32], rng: np.random.Generator, pixels: int) -> NDArray[np.float32]:
    """Return each image moved by -pixels..pixels in both directions, at random; what enters is black (0).

    Takes and returns shape (n, 784) of 28x28 images. Shifted copies as training data for MNIST: LeCun et al. 1998.
    """
    side = MNIST_SIDE
    padded = np.pad(images.reshape(-1, side, side), ((0, 0), (pixels, pixels), (pixels, pixels)))
    moves = rng.integers(0, 2 * pixels + 1, size=(len(images), 2))
    shifted = np.empty((len(images), side, side), dtype=images.dtype)
    # One slice per move, not one per image: nine copies instead of 60,000 turns of a Python loop.
    for down in range(2 * pixels + 1):
        for right in range(2 * pixels + 1):
            chosen = (moves[:, 0] == down) & (moves[:, 1] == right)
            shifted[chosen] = padded[chosen, down : down + side, right : right + side]
    return shifted.reshape(len(images), side * side)
