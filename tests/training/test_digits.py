"""The digits task: augmentation, scaling inside the model, learning."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.errors import UsageError
from training.metrics import accuracy, score
from training.tasks import DigitsTask
from training.tasks.digits import shift_images

WritePair = Callable[..., Path]
ToyDigits = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def _ignore(_epoch: int, _loss: float) -> None:
    """Take no notice of progress."""


@given(seed=st.integers(0, 2**32 - 1), pixels=st.integers(0, 3), count=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_every_shifted_image_is_the_original_moved_by_at_most_the_limit(seed: int, pixels: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 256, (count, 784)).astype(np.float32)
    shifted = shift_images(images, rng, pixels)
    assert shifted.shape == images.shape
    assert shifted.dtype == images.dtype
    for before, after in zip(images.reshape(-1, 28, 28), shifted.reshape(-1, 28, 28), strict=True):
        padded = np.pad(before, pixels)
        steps = range(2 * pixels + 1)
        assert any(np.array_equal(after, padded[i : i + 28, j : j + 28]) for i in steps for j in steps)


def test_network_learns_and_takes_raw_grey_levels(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    directory = write_pair(*toy_digits(30))
    task = DigitsTask(directory, epochs=6)
    data = task.load()
    losses: list[float] = []
    fitted = task.fit(data, lambda _epoch, loss: losses.append(loss))
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert score(fitted.estimator, data)["accuracy"] > 0.9
    scaled = fitted.estimator["scale"].transform(np.full((1, 784), 255.0, dtype=np.float32))  # type: ignore[index]
    np.testing.assert_array_equal(scaled, np.ones((1, 784), dtype=np.float32))
    predictions = fitted.estimator.predict(data.x_test)
    assert predictions.dtype == np.int64


def test_training_is_repeatable(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    task = DigitsTask(write_pair(*toy_digits(10)), epochs=2)
    data = task.load()
    first, second = (task.fit(data, _ignore).estimator.predict_proba(data.x_test) for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_epochs_must_be_positive() -> None:
    with pytest.raises(UsageError, match="--epochs 0"):
        DigitsTask(epochs=0)


def test_accuracy_refuses_shapes_that_numpy_would_broadcast() -> None:
    with pytest.raises(ValueError, match="cannot compare"):
        accuracy(np.zeros(3, dtype=np.int64), np.zeros((3, 1), dtype=np.int64))
    with pytest.raises(ValueError, match="cannot compare"):
        accuracy(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


@pytest.mark.slow
def test_embedded_digits_reach_96_percent() -> None:
    """Slow because it trains the real model, 8 s on an idle core."""
    task = DigitsTask()
    data = task.load()
    assert score(task.fit(data, _ignore).estimator, data)["accuracy"] >= 0.96


@pytest.mark.slow
def test_full_mnist_reaches_98_percent() -> None:
    """Slow because it trains on 60,000 images, a minute or two; needs the four IDX files in the directory MNIST_DIR."""
    directory = os.environ.get("MNIST_DIR")
    if not directory:
        pytest.skip("MNIST_DIR does not name a directory with the four IDX files of MNIST")
    task = DigitsTask(Path(directory))
    data = task.load()
    assert score(task.fit(data, _ignore).estimator, data)["accuracy"] >= 0.98
