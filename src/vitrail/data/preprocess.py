"""Any image to the fixed size and channels of a model: the only place where images are resized."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from vitrail.data.images import read_image
from vitrail.errors import ConfigError

Fit = Literal["pad", "crop", "squash"]

_MODES = {1: "L", 3: "RGB"}
_Pixels = Annotated[int, Field(gt=0)]


class Preprocess(BaseModel):
    """The size a model takes, its channels, and what happens to images of another aspect ratio.

    `image_size` is (rows, columns) in pixels; `channels` is 1 (grey) or 3 (RGB). `fit` is "pad" (the whole image,
    centred on black), "crop" (filled, what sticks out is cut off evenly) or "squash" (stretched).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: tuple[_Pixels, _Pixels]
    channels: int
    fit: Fit


def prepare(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """The image as uint8 (rows, columns, channels), resized by antialiased bicubic interpolation.

    RGB becomes grey by Pillow's luma, grey becomes RGB by repetition. An image of that size already keeps every bit.
    Raises ConfigError if `preprocess.channels` is neither 1 nor 3.
    """
    if preprocess.channels not in _MODES:
        raise ConfigError(f"channels={preprocess.channels} is not possible; use 1 (grey) or 3 (RGB)")
    if image.mode not in _MODES.values():
        image = read_image(image)
    if image.mode != _MODES[preprocess.channels]:
        image = image.convert(_MODES[preprocess.channels])
    rows, columns = preprocess.image_size
    if image.size != (columns, rows):
        image = _FITS[preprocess.fit](image, rows, columns)
    return np.array(image).reshape(rows, columns, preprocess.channels)


def prepare_many(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """uint8 (N, H, W, C) -> uint8 (N, rows, columns, channels), each image as `prepare` gives it.

    The same array comes back, not a copy, where size and channels agree already. Raises ConfigError as `prepare` does.
    """
    target = (*preprocess.image_size, preprocess.channels)
    if images.shape[1:] == target and preprocess.channels in _MODES:
        return images
    prepared = np.empty((len(images), *target), np.uint8)
    for index, image in enumerate(images):
        prepared[index] = prepare(read_image(image), preprocess)
    return prepared


def _squash(image: Image.Image, rows: int, columns: int) -> Image.Image:
    return image.resize((columns, rows), Image.Resampling.BICUBIC)


def _crop(image: Image.Image, rows: int, columns: int) -> Image.Image:
    width, height = image.size
    # Rounded as torchvision's Resize and CenterCrop do, so that published models see the pixels they were measured on.
    if width * rows > height * columns:
        width, height = width * rows // height, rows
    else:
        width, height = columns, height * columns // width
    left, top = round((width - columns) / 2), round((height - rows) / 2)
    return _squash(image, height, width).crop((left, top, left + columns, top + rows))


def _pad(image: Image.Image, rows: int, columns: int) -> Image.Image:
    width, height = image.size
    if width * rows > height * columns:
        width, height = columns, max(1, round(height * columns / width))
    else:
        width, height = max(1, round(width * rows / height)), rows
    canvas = Image.new(image.mode, (columns, rows))
    canvas.paste(_squash(image, height, width), ((columns - width) // 2, (rows - height) // 2))
    return canvas


_FITS = {"pad": _pad, "crop": _crop, "squash": _squash}
