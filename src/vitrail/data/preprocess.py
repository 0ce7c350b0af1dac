"""Any image to the fixed size and channels of a model: the only place where images are resized."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from vitrail.data.images import LEAST_SIDE, read_image
from vitrail.errors import ConfigError

Fit = Literal["pad", "crop", "squash", "native"]

SPARE = 1.25  # pixels that are read for each pixel of the model's size, at least: resizing then loses nothing to see

_MODES = {1: "L", 3: "RGB"}
_Pixels = Annotated[int, Field(gt=0)]


class Preprocess(BaseModel):
    """The size a model takes, its channels, and what happens to images of another aspect ratio.

    `image_size` is (rows, columns) in pixels; `channels` is 1 (grey) or 3 (RGB). `fit` is "pad" (the whole image,
    centred on black), "crop" (filled, what sticks out is cut off evenly), "squash" (stretched) or "native" (as "pad",
    with one more channel that is 255 in the image and 0 in the padding, which a model then leaves out).
    `crop_rate` is the part of each side that is kept, about the centre, of an image that was resized to more than
    `image_size`: published models have 0.875 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: tuple[_Pixels, _Pixels]
    channels: int
    fit: Fit
    crop_rate: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, columns, channels) of a prepared image; the channel that says what is padding is counted."""
        return (*self.image_size, self.channels + (self.fit == "native"))

    def canvas(self, shape: tuple[int, int]) -> Preprocess:
        """What random crops are cut from: up to 1.25 times as large, as far as images of `shape` have the pixels."""
        rate = min(SPARE, *(own / side for own, side in zip(shape, self.image_size, strict=True)))
        rows, columns = (round(side * max(1.0, rate)) for side in self.image_size)
        return self.model_copy(update={"image_size": (rows, columns), "crop_rate": 1.0})

    @property
    def least_side(self) -> int:
        """Pixels of the shorter side that an image must be read with."""
        # What is padded has a shorter side within that of the model; what is cropped or stretched need not.
        side = min(self.image_size) if self.fit in ("pad", "native") else max(self.image_size)
        return max(LEAST_SIDE, math.ceil(SPARE * side / self.crop_rate))


class Placement(NamedTuple):
    """Edges of what a model is given, in the upright original: 0 and 1 are the original's own edges.

    Edges lie within 0 and 1 where the original is cropped, beyond them where it is padded.
    """

    left: float
    top: float
    right: float
    bottom: float


class Reading(NamedTuple):
    """An image as a model takes it, uint8 (rows, columns, channels), and the image whose pixels its content hash is of.

    Those are the same for every model, whatever its size.
    """

    pixels: np.ndarray
    original: Image.Image


def read_for(
    source: str | Path | bytes | Image.Image | np.ndarray, preprocess: Preprocess, name: str | None = None
) -> Reading:
    """What `source` gives for a model, and what its content is, with no more of a JPEG file decoded than both need.

    Raises DataError as `read_image` does, ConfigError as `prepare` does.
    """
    image = read_image(source, name, preprocess.least_side)
    original = image
    if preprocess.least_side > LEAST_SIDE and -(-min(image.size) // 2) >= LEAST_SIDE:  # half of it would have done
        original = read_image(source, name)
    return Reading(prepare(image, preprocess), original)


def read_prepared(
    source: str | Path | bytes | Image.Image | np.ndarray, preprocess: Preprocess, name: str | None = None
) -> np.ndarray:
    """The pixels of `read_for`, where the content is not asked for."""
    return prepare(read_image(source, name, preprocess.least_side), preprocess)


def prepare(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """The image as uint8 `preprocess.shape`, resized by antialiased bicubic interpolation.

    RGB becomes grey by Pillow's luma, grey becomes RGB by repetition. An image of that size already keeps every bit,
    unless its middle alone is wanted. Raises ConfigError if `preprocess.channels` is neither 1 nor 3.
    """
    if preprocess.channels not in _MODES:
        raise ConfigError(f"channels={preprocess.channels} is not possible; use 1 (grey) or 3 (RGB)")
    if image.mode not in _MODES.values():
        image = read_image(image)
    if image.mode != _MODES[preprocess.channels]:
        image = image.convert(_MODES[preprocess.channels])
    rows, columns, channels = preprocess.shape
    width, height = image.size
    if image.size != (columns, rows) or preprocess.crop_rate < 1:
        image = _FITS[preprocess.fit](image, preprocess)
    pixels = np.array(image).reshape(rows, columns, preprocess.channels)
    if channels == preprocess.channels:
        return pixels
    inside = np.zeros((rows, columns, 1), np.uint8)
    left, top, right, bottom = _centred(width, height, preprocess)
    inside[max(top, 0) : bottom, max(left, 0) : right] = 255
    return np.concatenate([pixels, inside], axis=2)


def prepare_many(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """uint8 (N, H, W, C) -> uint8 (N, *preprocess.shape), each image as `prepare` gives it.

    The same array comes back, not a copy, where nothing is to be done. Raises ConfigError as `prepare` does.
    """
    is_whole = preprocess.crop_rate == 1 and preprocess.channels in _MODES
    if images.shape[1:] == (*preprocess.image_size, preprocess.channels) and is_whole and preprocess.fit != "native":
        return images
    prepared = np.empty((len(images), *preprocess.shape), np.uint8)
    for index, image in enumerate(images):
        prepared[index] = prepare(read_image(image), preprocess)
    return prepared


def placement(shape: tuple[int, int], preprocess: Preprocess) -> Placement:
    """Where the pixels that `prepare` gives lie in the original, an upright image of `shape` (rows, columns)."""
    rows, columns = shape
    left, top, right, bottom = _WHOLE[preprocess.fit](columns, rows, preprocess)
    width, height = right - left, bottom - top
    in_rows, in_columns = preprocess.image_size
    return Placement(-left / width, -top / height, (in_columns - left) / width, (in_rows - top) / height)


def visible(images: np.ndarray) -> np.ndarray:
    """Prepared images as one looks at them: uint8 (N, rows, columns, 1 or 3), with grey where fit=native padded."""
    if images.shape[3] in _MODES:
        return images
    return np.where(images[..., -1:] > 127, images[..., :-1], np.uint8(128))


def _target(preprocess: Preprocess) -> tuple[int, int]:
    """Rows and columns that images are resized for, of which `image_size` is kept; as timm rounds them."""
    rows, columns = preprocess.image_size
    return math.floor(rows / preprocess.crop_rate), math.floor(columns / preprocess.crop_rate)


def _resize(image: Image.Image, rows: int, columns: int) -> Image.Image:
    return image.resize((columns, rows), Image.Resampling.BICUBIC)


def _middle(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """What lies about the centre."""
    rows, columns = preprocess.image_size
    left, top = _cut(image.width, columns), _cut(image.height, rows)
    return image.crop((left, top, left + columns, top + rows))


def _cut(side: int, kept: int) -> int:
    """What is cut off before the middle. Rounded as torchvision does it: models see what they were measured on."""
    return round((side - kept) / 2)


def _squash(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    return _middle(_resize(image, *_target(preprocess)), preprocess)


def _squashed(width: int, height: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the whole of an image, stretched about the model's; so are the next two."""
    return _about(*_target(preprocess), preprocess)


def _crop(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    return _middle(_resize(image, *_covering(*image.size, preprocess)), preprocess)


def _cropped(width: int, height: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    return _about(*_covering(width, height, preprocess), preprocess)


def _covering(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    """Rows and columns of an image that is resized to fill the model's. Rounded as torchvision's Resize does."""
    rows, columns = _target(preprocess)
    if width * rows > height * columns:
        return rows, width * rows // height
    return height * columns // width, columns


def _about(rows: int, columns: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    left, top = -_cut(columns, preprocess.image_size[1]), -_cut(rows, preprocess.image_size[0])
    return left, top, left + columns, top + rows


def _centred(width: int, height: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the whole of an image, centred in the model's."""
    rows, columns = _target(preprocess)
    if width * rows > height * columns:
        width, height = columns, max(1, round(height * columns / width))
    else:
        width, height = max(1, round(width * rows / height)), rows
    left, top = _margin(width, preprocess.image_size[1]), _margin(height, preprocess.image_size[0])
    return left, top, left + width, top + height


def _margin(side: int, available: int) -> int:
    """What is free before a side that is centred, or what of it is cut, as less than 0; as timm rounds them."""
    return (available - side) // 2 if side <= available else -round((side - available) / 2)


def _pad(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    left, top, right, bottom = _centred(*image.size, preprocess)
    canvas = Image.new(image.mode, (preprocess.image_size[1], preprocess.image_size[0]))
    canvas.paste(_resize(image, bottom - top, right - left), (left, top))
    return canvas


_FITS = {"pad": _pad, "crop": _crop, "squash": _squash, "native": _pad}
_WHOLE = {"pad": _centred, "crop": _cropped, "squash": _squashed, "native": _centred}
