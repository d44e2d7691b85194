"""Reader for IDX files, the format of the original MNIST database.

Layout (LeCun et al. 1998): two zero bytes, one byte of element type (0x08 = unsigned byte), one byte with the number of
dimensions, then one big-endian 32-bit size per dimension, then the elements.
"""

import gzip
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

UBYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


def read_images(path: Path) -> NDArray[np.uint8]:
    """Return the images of an IDX3 file, shape (n, rows, columns), grey levels 0..255.

    Raises DataError if the file cannot be read, is not an IDX3 file of unsigned bytes, or is longer or shorter than its
    header says.
    """
    return _read(path, dimensions=3)


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Return the labels of an IDX1 file, shape (n,). Raises DataError like read_images."""
    return _read(path, dimensions=1)


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    try:
        with _open(path) as stream:
            return _parse(stream, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        msg = f"cannot read {path}: {error or type(error).__name__}"
        raise DataError(msg) from error


def _open(path: Path) -> BinaryIO:
    # The content decides, not the name: browsers and mirrors unpack files and keep the ".gz", or the other way round.
    with path.open("rb") as stream:
        packed = stream.read(2) == _GZIP_MAGIC
    return cast("BinaryIO", gzip.open(path, "rb")) if packed else path.open("rb")


def _parse(stream: BinaryIO, path: Path, dimensions: int) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * dimensions)
    expected = struct.pack(">HBB", 0, UBYTE, dimensions)
    if header[:4] != expected:
        msg = (
            f"{path} is not an IDX{dimensions} file of unsigned bytes: "
            f"it starts with {header[:4].hex() or 'nothing'}, expected {expected.hex()}"
        )
        raise DataError(msg)
    if len(header) < 4 + 4 * dimensions:
        msg = f"{path} is truncated inside its header ({len(header)} of {4 + 4 * dimensions} bytes)"
        raise DataError(msg)
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", header[4:])
    size = 1
    for length in shape:
        size *= length
    body = _read_at_most(stream, size + 1)
    if len(body) != size:
        state = "truncated" if len(body) < size else "too long"
        found = f"{len(body)}" if len(body) < size else f"more than {size}"
        msg = f"{path} is {state}: its header {shape} needs {size} bytes of data, it holds {found}"
        raise DataError(msg)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _read_at_most(stream: BinaryIO, limit: int) -> bytes:
    # One read(limit) would reserve the memory that a damaged header asks for, up to terabytes.
    body = bytearray()
    while len(body) < limit:
        chunk = stream.read(min(_CHUNK, limit - len(body)))
        if not chunk:
            break
        body += chunk
    return bytes(body)
