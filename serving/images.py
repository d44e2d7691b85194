"""A picture as the numbers of an image model: grey, white on black, of the model's size."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.decode import Loc, Problems

# A picture of more than this is refused before its pixels are unpacked.
MAX_SIDE = 4096
BRIGHT = 127.5


def png_values(text: str, shape: tuple[int, int], loc: Loc, problems: Problems) -> list[int] | None:
    """Grey levels 0..255 of a base64 PNG, row by row; None after a problem."""
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
            if max(picture.size) > MAX_SIDE:
                problems.add(loc, f"the picture is larger than {MAX_SIDE} x {MAX_SIDE}", "image")
                return None
            grey = _grey(picture)
    except Exception:  # noqa: BLE001 - a broken file makes the reader raise nearly anything
        problems.add(loc, "expected numbers, or a PNG as base64", "image")
        return None
    levels: list[int] = _fit(grey, shape).ravel().tolist()
    return levels


def _grey(picture: Any) -> NDArray[np.uint8]:
    """Levels of what is seen, white on black: ink is what the border is not."""
    if picture.mode.startswith("I"):
        # 16 bits per pixel, which a plain conversion would cut off at 255.
        levels = np.asarray(picture).astype(np.float64) / 257
    else:
        both = np.asarray(picture.convert("LA"), dtype=np.float64)
        levels, alpha = both[..., 0], both[..., 1] / 255
        if alpha.min() < 1:
            # Bright ink on a transparent ground was drawn for a dark one, dark ink for a bright one.
            seen = float((levels * alpha).sum() / max(alpha.sum(), 1e-9))
            levels = levels * alpha + (0 if seen > BRIGHT else 255) * (1 - alpha)
    border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    if border.mean() > BRIGHT:
        levels = 255 - levels
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


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
