"""The cells of an evidence map: which pixels each covers, their order by evidence, and maps on another grid."""

# Shapes: N images, H rows and W columns of pixels, C channels, K classes, P cells of a map

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.evaluation import softmax

Answer = Callable[[np.ndarray], np.ndarray]
"""logits (N, K) of images uint8 (N, H, W, C)"""
Probabilities = Callable[[np.ndarray], NDArray[np.float64]]
"""probabilities (N, K) of logits (N, K)"""

_BATCH_VALUES = 2**24  # pixels times channels that are made at a time: 16 MiB


def cells_of(grid: tuple[int, int], size: tuple[int, int]) -> NDArray[np.int64]:
    """The cell, 0..P-1 row by row, of a map of `grid` (rows, columns) that each pixel of an image of `size` lies in.

    (H, W). A cell covers the pixels that its part of the image holds: a patch, where the map has one value a patch.
    Raises DataError for a map that is finer than the image.
    """
    if grid[0] > size[0] or grid[1] > size[1] or min(grid) < 1:
        raise DataError(
            f"A map of {grid[0]}x{grid[1]} cells does not fit an image of {size[0]}x{size[1]} pixels; "
            "give one with at least one cell, and at most one for a pixel"
        )
    rows, columns = (np.arange(pixels) * cells // pixels for cells, pixels in zip(grid, size, strict=True))
    return rows[:, None] * grid[1] + columns


def ranked(maps: ArrayLike, seed: int = 0) -> NDArray[np.int64]:
    """The place of each cell in the order of evidence, 0 for the most: maps (N, rows, columns) -> (N, P).

    Equal values come in an order that `seed` draws for each image, so that a map that says nothing gains nothing from
    where it says it. NaN counts as the least.
    """
    values = np.asarray(maps, dtype=np.float64)
    if values.ndim != 3:
        raise DataError(f"Maps {values.shape} do not fit; give (images, rows, columns)")
    values = np.where(np.isnan(values), -np.inf, values).reshape(len(values), -1)
    drawn = np.random.default_rng(seed).random(values.shape)
    order = np.lexsort((drawn, -values))
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(values.shape[1]), order.shape), axis=1)
    return places


def regridded(maps: ArrayLike, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Maps (N, rows, columns) on another grid: the mean over each cell where it is coarser, else between neighbours."""
    values = np.asarray(maps, dtype=np.float64)
    down, across = (_resampling(own, wanted) for own, wanted in zip(values.shape[1:], grid, strict=True))
    return (down @ values @ across.T).astype(np.float32)


def _resampling(own: int, wanted: int) -> NDArray[np.float64]:
    """How much each of `own` values weighs in each of `wanted`: (wanted, own), rows that sum to 1."""
    if wanted <= own:
        edges = np.linspace(0, own, wanted + 1)
        starts, ends = edges[:-1, None], edges[1:, None]
        overlap = np.minimum(ends, np.arange(1, own + 1)) - np.maximum(starts, np.arange(own))
        return np.clip(overlap, 0, None) / (ends - starts)
    centres = np.clip((np.arange(wanted) + 0.5) * own / wanted - 0.5, 0, own - 1)
    return np.clip(1 - np.abs(centres[:, None] - np.arange(own)), 0, None)


def num_colors(images: np.ndarray) -> int:
    """The channels that are colours: one more, the last of 2 or 4, tells what is padding and is never changed."""
    return images.shape[3] - (images.shape[3] in (2, 4))


def target_probabilities(
    answer: Answer,
    images: Iterable[np.ndarray],
    targets: Iterable[int],
    shape: tuple[int, ...],
    probabilities: Probabilities = softmax,
) -> NDArray[np.float64]:
    """The probability of its target that each image has, whatever their number: a batch of them is made at a time.

    images (H, W, C) of `shape`, uint8, one after the other, with a class each. The engine may batch further.
    """
    batch_size = max(1, _BATCH_VALUES // int(np.prod(shape)))
    found: list[NDArray[np.float64]] = []
    waiting = iter(targets)
    for batch in _batches(images, batch_size):
        rows = probabilities(answer(batch))
        found.append(rows[np.arange(len(rows)), list(islice(waiting, len(rows)))])
    return np.concatenate(found)


def _batches(images: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    waiting = iter(images)
    while batch := list(islice(waiting, size)):
        yield np.stack(batch)


def check_images(images: np.ndarray, maps: np.ndarray, targets: np.ndarray) -> None:
    """Raise DataError for images (N, H, W, C), maps (N, rows, columns) and targets (N,) that do not fit one another."""
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise DataError(f"Images {images.shape} of type {images.dtype} do not fit; give uint8 (N, H, W, C), at least 1")
    if maps.ndim != 3 or len(maps) != len(images) or targets.shape != (len(images),):
        raise DataError(
            f"Maps {maps.shape} and targets {targets.shape} do not fit {len(images)} images; "
            "give (images, rows, columns) and (images,)"
        )
