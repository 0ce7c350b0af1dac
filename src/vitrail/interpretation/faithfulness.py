"""Deletion and insertion: what a model's answer owes to the parts of an image that a map calls its evidence."""

# Shapes: N images, H rows and W columns of pixels, C channels, S points of a curve
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError
from vitrail.evaluation import softmax
from vitrail.interpretation.cells import (
    Answer,
    Probabilities,
    cells_of,
    check_images,
    num_colors,
    ranked,
    target_probabilities,
)

NUM_STEPS = 20
_BLUR_RATE = 1 / 8  # of the shorter side: what is left are shades, no shapes
_LEAST_BLUR = 2.0  # pixels, for images of a few


class Curves(NamedTuple):
    """The probability of the target of each image, as its cells change in the order of the map's evidence."""

    shares: NDArray[np.float64]
    """(S,), the share of cells that has changed, from 0 to 1"""
    probabilities: NDArray[np.float64]
    """(N, S)"""

    @property
    def areas(self) -> NDArray[np.float64]:
        """The area under the curve of each image by the trapezoidal rule, (N,) in 0..1."""
        heights = (self.probabilities[:, 1:] + self.probabilities[:, :-1]) / 2
        return heights @ np.diff(self.shares)


def deletion_curves(
    answer: Answer,
    images: np.ndarray,
    maps: ArrayLike,
    targets: ArrayLike,
    fill: ArrayLike,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
    probabilities: Probabilities = softmax,
) -> Curves:
    """How the probability falls as the cells with the most evidence are painted over first; a small area is good.

    images uint8 (N, H, W, C), maps (N, rows, columns) of at most a cell for a pixel, targets (N,), `fill` the colour
    (C,) in 0..255 that stands for nothing: the model's mean. Cells change in `num_steps` equal steps, or one at a time
    where there are fewer. Raises DataError for arrays that do not fit. Petsiuk et al. 2018.
    """
    empty = _filled(images, fill)
    return _curves(answer, images, empty, maps, targets, num_steps, seed, probabilities)


def insertion_curves(
    answer: Answer,
    images: np.ndarray,
    maps: ArrayLike,
    targets: ArrayLike,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
    probabilities: Probabilities = softmax,
) -> Curves:
    """How the probability rises as the cells with the most evidence become sharp first; a large area is good.

    It begins with the image blurred by a Gaussian of an eighth of its shorter side, at least 2 pixels, as a cell on an
    even ground shows edges that no image has. Arguments as in `deletion_curves`. Petsiuk et al. 2018.
    """
    return _curves(answer, blurred(images), images, maps, targets, num_steps, seed, probabilities)


def blurred(images: np.ndarray) -> np.ndarray:
    """Images uint8 (N, H, W, C) of which only shades are left; a channel that tells what is padding is as it was."""
    from scipy.ndimage import gaussian_filter

    colors, changed = num_colors(images), images.copy()
    sigma = max(_LEAST_BLUR, _BLUR_RATE * min(images.shape[1:3]))
    for image in changed:
        smooth = gaussian_filter(image[..., :colors].astype(np.float32), (sigma, sigma, 0), mode="nearest")
        image[..., :colors] = np.rint(smooth)
    return changed


def _filled(images: np.ndarray, fill: ArrayLike) -> np.ndarray:
    """The images without any content: all of one colour, but for the channel that tells what is padding."""
    empty, colors = images.copy(), num_colors(images)
    empty[..., :colors] = np.clip(np.rint(np.asarray(fill, dtype=np.float64)), 0, 255)[:colors]
    return empty


def _curves(
    answer: Answer,
    start: np.ndarray,
    finish: np.ndarray,
    maps: ArrayLike,
    targets: ArrayLike,
    num_steps: int,
    seed: int,
    probabilities: Probabilities,
) -> Curves:
    values, classes = np.asarray(maps), np.asarray(targets)
    check_images(start, values, classes)
    if num_steps < 1:
        raise ConfigError(f"num_steps={num_steps} is too few; use 1 or more, {NUM_STEPS} is usual")
    places, cells = ranked(values, seed), cells_of(values.shape[1:], start.shape[1:3])
    num_cells = places.shape[1]
    counts = np.rint(np.linspace(0, num_cells, min(num_steps, num_cells) + 1)).astype(np.int64)

    def changed() -> Iterator[np.ndarray]:
        for before, after, place in zip(start, finish, places, strict=True):
            order = place[cells][..., None]
            for count in counts.tolist():
                yield np.where(order < count, after, before)

    found = target_probabilities(
        answer, changed(), np.repeat(classes, len(counts)).tolist(), start.shape[1:], probabilities
    )
    return Curves(counts / num_cells, found.reshape(len(start), len(counts)))
