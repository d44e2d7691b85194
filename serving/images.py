"""A picture as the numbers of an image model: grey, white on black, of the model's size."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving import limits
from serving.decode import Loc, Problems
from serving.errors import InvalidInput

# A picture is first made smaller by a whole factor, as long as its sides stay so many times those that the model wants.
SPARE = 4
BRIGHT = 127.5
ROWS = 256


class Pixels:
    """Counts the pixels of all pictures in a body, before any of them is unpacked."""

    def __init__(self) -> None:
        self.left = limits.BODY_PIXELS

    def take(self, size: tuple[int, int]) -> str | None:
        """What is wrong with one more picture of this size."""
        pixels = size[0] * size[1]
        if pixels > limits.PICTURE_PIXELS:
            return (
                f"the picture has {size[0]} x {size[1]} pixels, the limit is {limits.PICTURE_PIXELS}; make it smaller"
            )
        self.left -= pixels
        if self.left < 0:
            return f"the pictures have more than {limits.BODY_PIXELS} pixels together; send them in several requests"
        return None


def png_values(
    text: str, shape: tuple[int, int], loc: Loc, problems: Problems, pixels: Pixels
) -> NDArray[np.uint8] | None:
    """Grey levels 0..255 of a base64 PNG, row by row; None after a problem."""
    # A few bytes may stand for millions of pixels.
    limits.not_in_loop()
    try:
        from PIL import Image  # noqa: PLC0415 - only where pictures come in, and not in every model's environment
    except ImportError:
        problems.add(loc, "pictures cannot be read in this model's environment; send numbers", "image")
        return None
    try:
        data = base64.b64decode("".join(text.removeprefix("data:image/png;base64,").split()), validate=True)
    except (binascii.Error, ValueError):
        problems.add(loc, "expected numbers, or a PNG as base64", "image")
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            wrong = pixels.take(picture.size)
            if wrong is not None:
                problems.add(loc, wrong, "image")
                return None
            grey = _grey(picture, shape)
    except (InvalidInput, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - a broken file makes the reader raise nearly anything
        problems.add(loc, "expected numbers, or a PNG as base64", "image")
        return None
    return _fit(grey, shape).ravel()


def _grey(picture: Any, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Levels of what is seen, white on black: ink is what the border is not."""
    factor = max(1, min(picture.width // (SPARE * shape[1]), picture.height // (SPARE * shape[0])))
    if picture.mode.startswith("I"):
        levels = _low_levels(picture).reduce(factor)
        grey = np.asarray(levels)
    else:
        both = picture.convert("LA")
        # What was unpacked is not needed any more.
        picture.close()
        grey = _on_ground(np.asarray(both.reduce(factor) if factor > 1 else both))
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return 255 - grey if border.mean() > BRIGHT else grey


def _low_levels(picture: Any) -> Any:
    """A picture of 16 bits per pixel with 8, which a plain conversion would cut off at 255."""
    from PIL import Image  # noqa: PLC0415 - as above

    high = np.asarray(picture)
    low = np.empty(high.shape, np.uint8)
    for row in range(0, len(high), ROWS):
        low[row : row + ROWS] = np.clip(np.rint(high[row : row + ROWS] / np.float32(257)), 0, 255)
    return Image.fromarray(low)


def _on_ground(both: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The levels, where something is transparent on the ground that it was drawn for."""
    levels, alpha = both[..., 0], both[..., 1]
    if alpha.min() == 255:  # noqa: PLR2004 - nothing is transparent
        return levels
    # Bright ink on a transparent ground was drawn for a dark one, dark ink for a bright one.
    opaque = float(alpha.sum(dtype=np.int64))
    weighed = sum(
        float((levels[row] * alpha[row].astype(np.float32)).sum(dtype=np.float64)) for row in range(len(both))
    )
    ground = 0 if weighed > (BRIGHT) * opaque else 255
    grey = np.empty(levels.shape, np.uint8)
    for row in range(0, len(both), ROWS):
        share = alpha[row : row + ROWS] / np.float32(255)
        grey[row : row + ROWS] = np.rint(levels[row : row + ROWS] * share + ground * (1 - share))
    return grey


def _fit(grey: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture in the middle of one of this shape, as large as fits, its proportions kept."""
    from PIL import Image  # noqa: PLC0415 - as above

    if grey.shape == shape:
        return grey
    height, width = grey.shape
    scale = min(shape[0] / height, shape[1] / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(
        Image.fromarray(grey).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    )
    whole = np.zeros(shape, dtype=np.uint8)
    top, left = (shape[0] - small.shape[0]) // 2, (shape[1] - small.shape[1]) // 2
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole
