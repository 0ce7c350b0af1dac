"""Pointing: whether a map finds evidence whose place is known.

It is known in mosaics, where one image of a class stands among images of others, and in images whose class is the
colour of one square.
"""

# Shapes: N images, H rows and W columns of pixels, C channels, K classes

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError, DataError
from vitrail.interpretation.cells import cells_of, ranked


class Pointed(NamedTuple):
    """How far maps find known evidence, an image each."""

    hits: NDArray[np.bool_]
    """(N,), whether the cell with the most evidence lies in the region, or reaches into it"""
    shares: NDArray[np.float64]
    """(N,), the share of the positive evidence that lies in the region; NaN of a map without any"""
    hit_chances: NDArray[np.float64]
    """(N,), the share of cells that would be a hit: what a random map has"""
    areas: NDArray[np.float64]
    """(N,), the share of the image that the region is: what a random map has of the evidence"""


class Planted(NamedTuple):
    """Images whose evidence is known."""

    images: np.ndarray
    """uint8 (N, H, W, C)"""
    labels: NDArray[np.int64]
    """(N,), the class that the evidence is of"""
    regions: NDArray[np.bool_]
    """(N, H, W), where it lies"""


def pointing(maps: ArrayLike, regions: NDArray[np.bool_], seed: int = 0) -> Pointed:
    """Whether maps (N, rows, columns) point at regions (N, H, W) of at least a pixel each.

    Where several cells have the most evidence, `seed` draws one. Raises DataError for arrays that do not fit.
    """
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim != 3 or regions.ndim != 3 or len(values) != len(regions) or not len(values):
        raise DataError(
            f"Maps {values.shape} and regions {regions.shape} do not fit; "
            "give (images, rows, columns) of each, for the same images"
        )
    if not regions.any(axis=(1, 2)).all():
        raise DataError("Some regions are empty; give images whose evidence lies somewhere")
    cells = cells_of(values.shape[1:], regions.shape[1:])
    num_cells = values[0].size
    sizes = np.bincount(cells.ravel(), minlength=num_cells)
    inside = np.stack([np.bincount(cells[region], minlength=num_cells) for region in regions])
    best = ranked(values, seed).argmin(axis=1)
    # Evidence is a density: a cell's is spread evenly over its pixels.
    evidence = np.nan_to_num(values).clip(min=0).reshape(len(values), -1)
    within, total = (evidence * inside).sum(axis=1), (evidence * sizes).sum(axis=1)
    shares = np.divide(within, total, out=np.full(len(values), np.nan), where=total > 0)
    return Pointed(
        inside[np.arange(len(values)), best] > 0, shares, (inside > 0).mean(axis=1), regions.mean(axis=(1, 2))
    )


def mosaics(images: np.ndarray, labels: ArrayLike, num_mosaics: int, seed: int = 0) -> Planted:
    """Mosaics of two by two images at half their size, one of a class among three of other classes.

    images uint8 (N, H, W, C), labels (N,). Which images, and where the one is that the label is of, is drawn by `seed`;
    the classes take turns. A channel that tells what is padding is halved with the others. Raises DataError where the
    images are of one class, or smaller than two pixels. After Böhle et al. 2021, at the size the model takes.
    """
    classes = np.asarray(labels)
    present = np.unique(classes)
    if len(present) < 2 or min(images.shape[1:3]) < 2:
        raise DataError(
            f"Images of {len(present)} class{'es' * (len(present) != 1)} and {images.shape[1]}x{images.shape[2]} "
            "pixels make no mosaic; give images of two classes, of at least 2x2 pixels"
        )
    numbers = np.random.default_rng(seed)
    rows, columns = images.shape[1] // 2, images.shape[2] // 2
    made = np.zeros((num_mosaics, *images.shape[1:]), np.uint8)
    regions = np.zeros((num_mosaics, *images.shape[1:3]), np.bool_)
    targets = np.resize(numbers.permutation(present), num_mosaics)
    for index, target in enumerate(targets.tolist()):
        place = int(numbers.integers(4))
        one, others = np.flatnonzero(classes == target), np.flatnonzero(classes != target)
        chosen = numbers.choice(others, 4, replace=len(others) < 4)
        chosen[place] = numbers.choice(one)
        for part, image in enumerate(images[chosen]):
            # The second half of an odd side has a pixel more, which stays empty.
            top, left = (part // 2) * (image.shape[0] - rows), (part % 2) * (image.shape[1] - columns)
            here = index, slice(top, top + rows), slice(left, left + columns)
            made[here] = _halved(image)
            regions[here] = part == place
    return Planted(made, targets.astype(np.int64), regions)


def _halved(image: np.ndarray) -> np.ndarray:
    """An image (H, W, C) at half its size: each pixel the mean of four."""
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, -1)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


# Told apart in every channel; Okabe and Ito 2008.
_COLORS = np.array([(213, 94, 0), (0, 114, 178), (0, 158, 115), (240, 228, 66)], np.uint8)


def planted_squares(
    num_images: int,
    image_size: int = 32,
    square_size: int = 8,
    num_classes: int = 4,
    num_blank: int = 0,
    seed: int = 0,
) -> Planted:
    """Images of noise in which one square, anywhere, has the colour that decides the class; nothing else tells it.

    uint8 (N, image_size, image_size, 3), the classes equally often. `num_blank` more images, at the end, have no square
    and class `num_classes`: a model that learns from such too cannot tell a colour by the absence of all others, which
    has no place. Raises ConfigError for sizes or classes that do not fit.
    """
    if not 0 < square_size < image_size:
        raise ConfigError(f"square_size={square_size} does not fit image_size={image_size}; use less, but at least 1")
    if not 2 <= num_classes <= len(_COLORS):
        raise ConfigError(f"num_classes={num_classes} is not possible; use 2 to {len(_COLORS)}, a colour for each")
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (num_images + num_blank, image_size, image_size, 3), dtype=np.uint8)
    labels = np.full(len(images), num_classes)
    labels[:num_images] = numbers.permutation(np.arange(num_images) % num_classes)
    regions = np.zeros(images.shape[:3], np.bool_)
    corners = numbers.integers(0, image_size - square_size + 1, (num_images, 2))
    for index, (top, left) in enumerate(corners.tolist()):
        regions[index, top : top + square_size, left : left + square_size] = True
    images[regions] = np.repeat(_COLORS[labels[:num_images]], square_size**2, axis=0)
    return Planted(images, labels.astype(np.int64), regions)
