"""What the tests of a whole platform ask besides: its users' programs, real images of digits."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from clients import Clients
from instance import Instance

MNIST = Path(__file__).parents[3] / "training/data/mnist"


@pytest.fixture
def clients(instance: Instance) -> Clients:
    """Programs on the instance's machine."""
    return Clients(instance)


@pytest.fixture(scope="session")
def digits() -> tuple[list[list[int]], list[int]]:
    """The first 500 images of the embedded MNIST file, 784 numbers of 0..255 each, and what they show."""
    images = gzip.decompress((MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((MNIST / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    return [list(images[i * 784 : (i + 1) * 784]) for i in range(500)], list(labels[:500])
