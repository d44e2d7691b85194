"""What a body may take: bytes, rows times columns, pixels, memory; and where it may be decoded.

Small bodies are decoded in the event loop, all others in a process of their own (cage.py). The readers are the same in
both; they raise Heavy where the work is not for the loop.
"""

from __future__ import annotations

from serving.errors import ServingError, TooLarge

MIB = 1024 * 1024
# Decoding may take so many bytes of memory for each byte of the body, and so many more. A process that wants more is
# refused its memory by the kernel. The worst JSON that fits a model takes 31 times its size.
MEMORY_PER_BYTE = 32
MEMORY_BYTES = 64 * MIB
# What it hands over may have so many for each byte of the body, and so many more; numbers of 8 bytes for binary ones of 1.
RESULT_PER_BYTE = 8
RESULT_BYTES = 32 * MIB
# The memory as bytes of a body: so much more a process counts in the budget of bodies in flight.
EXTRA_BYTES = MEMORY_BYTES // MEMORY_PER_BYTE
# A table as CSV or Parquet: bytes, and rows times columns. Its text may be two bytes a cell, Parquet even less.
TABLE_BYTES = 4 * MIB
TABLE_CELLS = 1_000_000
# Rows times columns of JSON; what is left out of a record takes no byte of the body.
CELLS = 8 * MIB
# Pictures in a body; pixels of one and of all, by what their heads say before one is unpacked.
PICTURES = 1000
PICTURE_PIXELS = 4 * MIB
BODY_PIXELS = 4 * PICTURE_PIXELS
# What the event loop may decode by itself: bytes that msgspec alone reads, bytes of all other JSON and of binary tensors,
# cells that the values do not fill, dates.
FAST_BYTES, SLOW_BYTES, LOOP_CELLS, LOOP_DATES = 256 * 1024, 32 * 1024, 65536, 16


class Heavy(Exception):  # noqa: N818 - no error: the body goes to a process of its own
    """This body is not to be decoded in the event loop."""


class Place:
    """Where this process decodes at the moment; one for all, because nothing here decodes in threads."""

    in_loop = False


place = Place()


def not_in_loop() -> None:
    """What follows takes long whatever its size."""
    if place.in_loop:
        raise Heavy


def slow(size: int) -> None:
    """What follows takes its time over so many bytes."""
    if place.in_loop and size > SLOW_BYTES:
        raise Heavy


def dates(count: int) -> None:
    """So many dates are read next, each for some microseconds."""
    if place.in_loop and count > LOOP_DATES:
        raise Heavy


def cells(rows: int, columns: int, most: int | None = None) -> None:
    """Rows times columns are held next."""
    most = CELLS if most is None else most
    if place.in_loop and rows * columns > LOOP_CELLS:
        raise Heavy
    if rows * columns > most:
        raise TooLarge(
            f"The body has {rows} rows of {columns} columns, the limit is {most} cells; send it in several requests"
        )


def table_bytes(size: int, kind: str) -> None:
    """A table of so many bytes is read next."""
    if size > TABLE_BYTES:
        raise TooLarge(
            f"The body has {size} bytes, the limit for {kind} is {TABLE_BYTES}; send it in several requests or as JSON"
        )


def pictures(count: int, pixels: int) -> None:
    """So many pictures are made next, each of so many pixels."""
    if count > PICTURES:
        raise TooLarge(f"The body has {count} pictures, the limit is {PICTURES}; send them in several requests")
    cells(count, pixels)


def memory(size: int) -> int:
    """The bytes of memory that decoding a body of ``size`` bytes may take."""
    return MEMORY_PER_BYTE * size + MEMORY_BYTES


def result(size: int) -> int:
    """The bytes that may be made of a body of ``size`` bytes."""
    return RESULT_PER_BYTE * size + RESULT_BYTES


def too_much_memory(size: int) -> ServingError:
    """What is said of a body that wants more than ``memory``."""
    return TooLarge(
        f"Decoding the body of {size} bytes takes more than {memory(size)} bytes of memory; send it in several requests"
    )
