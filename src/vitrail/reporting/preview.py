"""What a model will see of a data set's images, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vitrail import figures
from vitrail.data.dataset import Dataset
from vitrail.data.images import read_image
from vitrail.data.preprocess import Fit, Preprocess, placement, prepare, visible
from vitrail.errors import ConfigError, DataError

FITS: tuple[Fit, ...] = ("pad", "crop", "squash", "native")
_SIDE = 384  # pixels of the longer side that originals are drawn with


def write_preview(
    dataset: Dataset, preprocess: Preprocess, count: int, path: Path, fits: Sequence[Fit] | None = None
) -> tuple[Path, tuple[str, ...]]:
    """Draw `count` training images, each beside what the model sees of it, into a PNG file.

    With `fits` every one of them side by side, such as `FITS`. Gives the file, and the names of images that were to be
    drawn and cannot be read. Raises ConfigError for no image or a name that is no PNG, DataError if none can be read,
    CheckpointError where the file cannot be written.
    """
    if count < 1:
        raise ConfigError(f"preview={count} is not possible; ask for 1 image or more")
    images: list[Image.Image] = []
    titles: list[str] = []
    unread: list[str] = []
    for name, stored in dataset.stored_samples(count):
        try:
            image = read_image(stored, name, preprocess.least_side)
        except DataError:
            unread.append(name)
            continue
        images.append(image)
        titles.append(Path(name).name)
    if not images:
        raise DataError(f"None of {len(unread):,} images of {dataset.name} can be read; `vitrail audit` says why")
    ways = {fit: preprocess.model_copy(update={"fit": fit}) for fit in fits or (preprocess.fit,)}
    rows, columns = preprocess.image_size
    seen = {
        f"{fit}, {columns}x{rows}": visible(np.stack([prepare(image, way) for image in images]))
        for fit, way in ways.items()
    }
    boxes = [_used(image, preprocess) for image in images]
    figure = figures.draw_preview([_small(image) for image in images], titles, seen, None if fits else boxes)
    return figures.save_figure(figure, path), tuple(unread)


def _small(image: Image.Image) -> np.ndarray:
    """The whole image (rows, columns, C) at its own ratio, small enough to draw."""
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    return np.atleast_3d(np.asarray(small))


def _used(image: Image.Image, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the part of an image that the model sees, as parts of its sides."""
    left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in placement((image.height, image.width), preprocess))
    return left, top, right, bottom
