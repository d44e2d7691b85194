"""IDX files: what is written is read, and nothing damaged is accepted."""

import contextlib
import gzip
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from training.errors import DataError
from training.idx import read_images, read_labels

IdxBytes = Callable[..., bytes]

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)

arrays = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=6))


@given(array=arrays, packed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_round_trip(array: NDArray[np.uint8], packed: bool, idx_bytes: IdxBytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "images"
        data = idx_bytes(array)
        path.write_bytes(gzip.compress(data) if packed else data)
        np.testing.assert_array_equal(read_images(path), array)


@given(data=st.data(), packed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_other_length_is_refused(data: st.DataObject, packed: bool, idx_bytes: IdxBytes) -> None:
    good = idx_bytes(IMAGES)
    cut = data.draw(st.integers(0, len(good) + 5).filter(lambda length: length != len(good)))
    bad = (good + b"extra")[:cut]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "images"
        path.write_bytes(gzip.compress(bad) if packed else bad)
        with pytest.raises(DataError, match="images"):
            read_images(path)


@given(data=st.binary(max_size=64))
@settings(max_examples=60, deadline=None)
def test_any_bytes_give_an_array_or_a_data_error(data: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "labels"
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            assert read_labels(path).ndim == 1


@pytest.mark.parametrize("magic", [b"\0\0\x08\x01", b"\0\0\x0d\x03", b"\1\0\x08\x03", b"PK\3\4"])
def test_wrong_magic_number(tmp_path: Path, magic: bytes, idx_bytes: IdxBytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(IMAGES, magic))
    with pytest.raises(DataError, match=f"starts with {magic.hex()}, expected 00000803"):
        read_images(path)


def test_images_are_not_labels(tmp_path: Path, idx_bytes: IdxBytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(idx_bytes(IMAGES))
    with pytest.raises(DataError, match="not an IDX1 file"):
        read_labels(path)


@pytest.mark.parametrize("damage", ["cut", "checksum", "garbage"])
def test_damaged_gzip(tmp_path: Path, damage: str, idx_bytes: IdxBytes) -> None:
    packed = bytearray(gzip.compress(idx_bytes(np.zeros((40, 28, 28), np.uint8))))
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    elif damage == "checksum":
        packed[-8] ^= 0xFF
    else:
        packed[12:16] = b"\xff\xff\xff\xff"
    path = tmp_path / "file.gz"
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"file\.gz"):
        read_images(path)


def test_header_that_asks_for_terabytes_is_refused_without_reserving_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12 + b"few bytes")
    with pytest.raises(DataError, match="truncated"):
        read_images(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_images(tmp_path / "nothing")
