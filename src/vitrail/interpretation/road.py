"""ROAD: what an answer owes to parts of an image, where the parts that are taken out leave no trace of their shape.

A hole of one colour tells the model where it is, and the network may answer by that. Here the pixels of a hole are
linear mixtures of those around it, with a little noise, so that nothing is left that could be read. Rong et al. 2022.
"""

# Shapes: N images, H rows and W columns of pixels, C channels, P shares, M missing pixels
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError, DataError
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

SHARES = (0.2, 0.4, 0.6, 0.8)
NOISE = 0.01 * 255  # the deviation, in steps of uint8

# To each side a sixth, to each corner a twelfth: (rows down, columns right, weight), one direction of each pair.
_NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))


class Road(NamedTuple):
    """The probability of the target of each image without some of its cells."""

    shares: NDArray[np.float64]
    """(P,), the share of cells that is missing, as wanted; the number of cells is rounded"""
    most: NDArray[np.float64]
    """(N, P) without those with the most evidence (MoRF); low is good"""
    least: NDArray[np.float64]
    """(N, P) without those with the least (LeRF); high is good"""

    @property
    def scores(self) -> NDArray[np.float64]:
        """Mean of `least` less `most` over the shares, (N,) in -1..1: 0 of a map that says nothing."""
        return (self.least - self.most).mean(axis=1)


def road(
    answer: Answer,
    images: np.ndarray,
    maps: ArrayLike,
    targets: ArrayLike,
    shares: Sequence[float] = SHARES,
    seed: int = 0,
    probabilities: Probabilities = softmax,
) -> Road:
    """The probabilities that are left without each share of the cells, those with most or least evidence.

    images uint8 (N, H, W, C), maps (N, rows, columns), at least two cells and at most one for a pixel, targets (N,).
    Raises DataError for arrays that do not fit, ConfigError for shares that leave nothing or everything.
    """
    values, classes = np.asarray(maps), np.asarray(targets)
    check_images(images, values, classes)
    if not shares or not all(0 < share < 1 for share in shares):
        raise ConfigError(f"shares={tuple(shares)} are not all between 0 and 1; use such as {SHARES}")
    places, cells = ranked(values, seed), cells_of(values.shape[1:], images.shape[1:3])
    num_cells = places.shape[1]
    if num_cells < 2:
        raise DataError("A map of one cell has no order; give maps of at least two")
    # At least one cell is missing, and one is left.
    counts = np.clip(np.rint(np.multiply(shares, num_cells)), 1, num_cells - 1).astype(np.int64)

    def changed() -> Iterator[np.ndarray]:
        numbers = np.random.default_rng(seed)
        for image, place in zip(images, places, strict=True):
            order = place[cells]
            for count in counts.tolist():
                yield impute(image, order < count, numbers)
            for count in counts.tolist():
                yield impute(image, order >= num_cells - count, numbers)

    repeated = np.repeat(classes, 2 * len(counts)).tolist()
    found = target_probabilities(answer, changed(), repeated, images.shape[1:], probabilities)
    found = found.reshape(len(images), 2, len(counts))
    return Road(np.asarray(shares, dtype=np.float64), found[:, 0], found[:, 1])


def impute(
    image: np.ndarray, missing: NDArray[np.bool_], numbers: np.random.Generator, noise: float = NOISE
) -> np.ndarray:
    """The image uint8 (H, W, C) with the pixels that are `missing` (H, W) made from those around them.

    Each is the weighted mean of its eight neighbours, missing ones included, and noise drawn from `numbers`, of a
    deviation of `noise`. A channel that tells what is padding stays as it is.
    """
    colors = num_colors(image[None])
    filled = image.copy()
    values = linear_imputation(image[..., :colors].astype(np.float64), missing)
    values += noise * numbers.standard_normal(values.shape)
    filled[missing, :colors] = np.clip(np.rint(values), 0, 255)
    return filled


def linear_imputation(image: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The missing pixels (M, C) of an image (H, W, C), each the weighted mean of its neighbours, solved all at once.

    `missing` is (H, W). Raises DataError where no pixel is left to begin with.
    """
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import splu

    known = np.flatnonzero(~missing)
    unknown = np.flatnonzero(missing)
    pixels = image.reshape(missing.size, -1)
    if not len(unknown):
        return pixels[:0]
    if not len(known):
        raise DataError("All pixels are missing; leave at least one to make the others from")
    weights, totals = _neighbours(*missing.shape)
    rows = weights[unknown]
    system = (diags_array(totals[unknown]) - rows[:, unknown]).tocsc()
    # The system is symmetric and positive definite, so that this order, which keeps it sparse, needs no pivots.
    solver = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return solver.solve(rows[:, known] @ pixels[known])


@lru_cache(maxsize=4)
def _neighbours(num_rows: int, num_columns: int) -> tuple[Any, NDArray[np.float64]]:
    """The weights of each pixel's neighbours as a sparse (H*W, H*W), and their sums, which are less at the borders."""
    from scipy.sparse import csr_array

    places = np.arange(num_rows * num_columns).reshape(num_rows, num_columns)
    pairs: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    for down, right, weight in _NEIGHBOURS:
        first = places[: num_rows - down, max(0, -right) : num_columns - max(0, right)].ravel()
        second = places[down:, max(0, right) : num_columns + min(0, right)].ravel()
        pairs += [np.stack([first, second]), np.stack([second, first])]
        weights += [np.full(2 * len(first), weight)]
    table = csr_array((np.concatenate(weights), tuple(np.concatenate(pairs, axis=1))), shape=(places.size, places.size))
    return table, np.asarray(table.sum(axis=1))
