"""Data sets: the right rows from the right place, and never another data set instead."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from training import datasets
from training.errors import DataError, UsageError
from training.tasks import DigitsTask

WritePair = Callable[..., Path]
ToyDigits = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def test_iris_has_named_float_columns_and_the_split_of_the_seed_documents() -> None:
    data = datasets.load_iris()
    assert isinstance(data.x_train, pd.DataFrame)
    assert list(data.x_train.columns) == [
        "sepal length (cm)",
        "sepal width (cm)",
        "petal length (cm)",
        "petal width (cm)",
    ]
    assert set(data.x_train.dtypes) == {np.dtype("float64")}
    assert (len(data.y_train), len(data.y_test)) == (120, 30)
    assert data.class_names == ("setosa", "versicolor", "virginica")
    # train_test_split(random_state=42) starts its held-out rows with this flower.
    assert isinstance(data.x_test, pd.DataFrame)
    assert data.x_test.index[0] == 73


def test_embedded_digits_are_mnist() -> None:
    images, labels = datasets.read_pair(datasets.EMBEDDED_MNIST, "t10k")
    assert images.shape == (10_000, 784)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 255)
    # First labels and class counts of the MNIST test set, as LeCun et al. published it.
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_embedded_digits_are_split_without_overlap() -> None:
    data = datasets.load_embedded_digits()
    assert (len(data.y_train), len(data.y_test)) == (8000, 2000)
    assert not np.isin(datasets.fingerprints(data.x_test), datasets.fingerprints(data.x_train)).any()


def test_one_pair_is_split(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    data = datasets.load_digits_from(write_pair(*toy_digits(10), packed=False))
    assert (len(data.y_train), len(data.y_test)) == (80, 20)
    assert np.bincount(data.y_test).tolist() == [2] * 10


def test_two_pairs_are_training_and_held_out_data(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    write_pair(*toy_digits(5), prefix="train")
    images, labels = toy_digits(3)
    data = datasets.load_digits_from(write_pair(images, labels))
    assert (len(data.y_train), len(data.y_test)) == (50, 30)
    np.testing.assert_array_equal(data.x_test, images.reshape(-1, 784))
    np.testing.assert_array_equal(data.y_test, labels)


def test_content_decides_about_compression_not_the_name(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    directory = write_pair(*toy_digits(5))
    for file in list(directory.iterdir()):
        shutil.move(file, file.with_suffix(""))
    assert len(datasets.load_digits_from(directory).y_train) == 40


def test_count_mismatch(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    images, labels = toy_digits(5)
    with pytest.raises(DataError, match=r"50 images but .* has 49 labels"):
        datasets.load_digits_from(write_pair(images, labels[:-1]))


def test_wrong_image_size(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    images, labels = toy_digits(5)
    with pytest.raises(DataError, match="27x28, expected 28x28"):
        datasets.load_digits_from(write_pair(images[:, 1:], labels))


def test_label_that_is_no_digit(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    images, labels = toy_digits(5)
    labels[7] = 10
    with pytest.raises(DataError, match="label 10 is not a digit"):
        datasets.load_digits_from(write_pair(images, labels))


def test_empty_files(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    images, labels = toy_digits(5)
    with pytest.raises(DataError, match="holds no images"):
        datasets.load_digits_from(write_pair(images[:0], labels[:0]))


def test_too_few_images_to_split(write_pair: WritePair, toy_digits: ToyDigits) -> None:
    with pytest.raises(DataError, match="too few"):
        datasets.load_digits_from(write_pair(*toy_digits(1)))


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        datasets.load_digits_from(tmp_path / "nothing")


def test_directory_without_idx_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        datasets.load_digits_from(tmp_path)


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_half_a_pair_is_an_error_even_beside_a_whole_one(
    write_pair: WritePair, kind: str, toy_digits: ToyDigits
) -> None:
    directory = write_pair(*toy_digits(5))
    write_pair(*toy_digits(5), prefix="train")
    (directory / f"train-{kind}-ubyte.gz").unlink()
    with pytest.raises(DataError, match=f"train-{kind}-ubyte .*is missing"):
        datasets.load_digits_from(directory)


def test_failed_download_is_an_error_that_names_data_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        message = "name resolution failed"
        raise OSError(message)

    def never() -> None:
        pytest.fail("the embedded data set took the place of the full one")

    monkeypatch.setattr(datasets, "fetch_openml", refuse)
    monkeypatch.setattr("training.tasks.digits.load_embedded_digits", never)
    with pytest.raises(DataError, match=r"name resolution failed.*--data DIR"):
        DigitsTask(full=True).load()


def test_download_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bunch:
        data = np.zeros((100, 784))
        target = np.zeros(100)

    monkeypatch.setattr(datasets, "fetch_openml", lambda *_, **__: Bunch)
    with pytest.raises(DataError, match="shapes"):
        datasets.download_full_digits()


def test_missing_directory_does_not_fall_back_to_the_embedded_file(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        DigitsTask(tmp_path / "nothing").load()


def test_data_and_full_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        DigitsTask(tmp_path, full=True)


def test_fingerprints_tell_rows_apart_and_ignore_their_order() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    marks = datasets.fingerprints(rows)
    assert len(set(marks.tolist())) == 4
    np.testing.assert_array_equal(datasets.fingerprints(rows[::-1]), marks[::-1])
