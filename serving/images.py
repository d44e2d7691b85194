"""A picture as the numbers of an image model: grey, white on black, of the model's size."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
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
# As in MNIST: how much of the shorter side the ink fills.
FILLED = 20 / 28
# What differs from the ground by less than this share of the ink, or by less than so many times what the ground itself does, is ground.
FAINT, NOISE = 0.1, 5
# So much may the border of a drawing differ from its ground; the border of a picture that fills its frame differs more.
EVEN = 32


@dataclass(frozen=True, slots=True)
class Picture:
    """Grey levels 0..255, and what was done to the picture that was sent."""

    levels: NDArray[np.uint8]
    done: str


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


def png_picture(text: str, shape: tuple[int, int], loc: Loc, problems: Problems, pixels: Pixels) -> Picture | None:
    """A base64 PNG as the model sees it; None after a problem."""
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
            grey, inverted = _grey(picture, shape)
    except (InvalidInput, MemoryError):
        raise
    except Exception:  # noqa: BLE001 - a broken file makes the reader raise nearly anything
        problems.add(loc, "expected numbers, or a PNG as base64", "image")
        return None
    done = ["inverted"] if inverted else []
    if grey.shape == shape:
        return Picture(grey, ", ".join(done))
    centred = _centred(grey, shape)
    fill = round(FILLED * min(shape))
    done.append(f"scaled to fit {shape[1]} x {shape[0]}" if centred is None else f"scaled to {fill}, centred by mass")
    return Picture((_fit(grey, shape) if centred is None else centred), ", ".join(done))


def _grey(picture: Any, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], bool]:
    """Levels of what is seen, white on black, and whether that is the other way round: ink is what the border is not."""
    factor = max(1, min(picture.width // (SPARE * shape[1]), picture.height // (SPARE * shape[0])))
    if picture.mode.startswith("I"):
        levels = _low_levels(picture).reduce(factor)
        grey = np.asarray(levels)
    else:
        both = picture.convert("LA")
        # What was unpacked is not needed any more.
        picture.close()
        grey = _on_ground(np.asarray(both.reduce(factor) if factor > 1 else both))
    # Of a photograph the paper may be darker than the middle of all levels, so what counts is what there is less of.
    ground = float(np.median(_border(grey)))
    inverted = ground - float(grey.min()) > float(grey.max()) - ground
    return (255 - grey if inverted else grey), inverted


def _border(grey: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _ground(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the picture is without ink: light falls from one side, so it is the plane through the border."""
    height, width = grey.shape
    down, across = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij", sparse=True)
    axes = np.stack([_border(np.broadcast_to(axis, grey.shape)) for axis in (np.ones((1, 1)), down, across)], axis=1)
    level, fall, slant = np.linalg.lstsq(axes, _border(grey).astype(np.float64), rcond=None)[0]
    plane: NDArray[np.float32] = (level + fall * down + slant * across).astype(np.float32)
    return plane


def _centred(grey: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The ink alone, as large as in MNIST and its centre of mass in the middle, as a model's page does it; None for a picture without a ground."""
    from PIL import Image, ImageFilter  # noqa: PLC0415 - as above

    if min(grey.shape) >= 2 * min(shape):
        # No speck of dust is ink.
        grey = np.asarray(Image.fromarray(grey).filter(ImageFilter.MedianFilter(3)))
    above = grey - _ground(grey)
    border = _border(above)
    low, high = np.percentile(border, (5, 95))
    faint = max(FAINT * float(above.max()), NOISE * float(border.std()), 1)
    if high - low > EVEN or float(above.max()) <= faint:
        return None
    share = np.where(above > faint, above / np.percentile(above[above > faint], 95), 0).clip(0, 1)
    rows, columns = np.nonzero(share.any(1))[0], np.nonzero(share.any(0))[0]
    cut = (share[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * 255).astype(np.uint8)
    scale = FILLED * min(shape) / max(cut.shape)
    small = _resized(cut, (max(1, round(cut.shape[0] * scale)), max(1, round(cut.shape[1] * scale))))
    weights = small.astype(np.float64)
    whole = np.zeros(shape, dtype=np.uint8)
    place = []
    for axis in (0, 1):
        mass = weights.sum(1 - axis)
        centre = float((mass * (np.arange(len(mass)) + 0.5)).sum() / mass.sum())
        # Nothing of the ink leaves the picture.
        place.append(min(max(0, round(shape[axis] / 2 - centre)), shape[axis] - small.shape[axis]))
    whole[place[0] : place[0] + small.shape[0], place[1] : place[1] + small.shape[1]] = small
    return whole


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
    height, width = grey.shape
    scale = min(shape[0] / height, shape[1] / width)
    small = _resized(grey, (max(1, round(height * scale)), max(1, round(width * scale))))
    whole = np.zeros(shape, dtype=np.uint8)
    top, left = (shape[0] - small.shape[0]) // 2, (shape[1] - small.shape[1]) // 2
    whole[top : top + small.shape[0], left : left + small.shape[1]] = small
    return whole


def _resized(grey: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image  # noqa: PLC0415 - as above

    kind = Image.Resampling.BOX if shape[0] < grey.shape[0] else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(grey).resize((shape[1], shape[0]), kind))
