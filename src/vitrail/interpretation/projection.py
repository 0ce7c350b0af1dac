"""Principal components: the directions in which vectors differ most."""

# Shapes: N vectors, D their width, K components

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import DataError


class Components(NamedTuple):
    """The directions in which vectors vary most, first the one of most variance."""

    mean: NDArray[np.float64]
    """of the vectors, (D,)"""
    directions: NDArray[np.float64]
    """unit vectors (K, D), each at right angles to the others; the largest value of each is positive"""
    explained: NDArray[np.float64]
    """part of the vectors' variance that lies along each, (K,) fractions in 0..1"""
    points: NDArray[np.float64]
    """the vectors along these directions, from their mean, (N, K)"""


def principal_components(vectors: NDArray[Any], count: int) -> Components:
    """The first `count` principal components of vectors (N, D), or all there are if these are fewer.

    Raises DataError for fewer than two vectors or values that are not finite. Pearson 1901; as scikit-learn's PCA, from
    the eigenvectors of the smaller of two matrices, (D, D) or (N, N), which is many times as fast where one is long.
    """
    if vectors.ndim != 2 or len(vectors) < 2 or not vectors.shape[1]:
        raise DataError(f"Vectors {vectors.shape} have no principal components; give (vectors, width), two or more")
    values = np.asarray(vectors, np.float64)
    if not np.isfinite(values).all():
        raise DataError("Some vectors hold values that are not finite; the model that made them is damaged")
    mean = values.mean(axis=0)
    centred = values - mean
    number, width = centred.shape
    count = min(count, number - 1, width)
    wide = width > number
    variances, found = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)  # smallest first
    variances = np.maximum(variances[::-1], 0)
    found = found[:, ::-1][:, :count]
    if wide:
        found = centred.T @ found
        found /= np.maximum(np.linalg.norm(found, axis=0), np.finfo(np.float64).tiny)
    directions = found.T
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.where(directions[np.arange(count), largest] < 0, -1.0, 1.0)[:, None]
    total = float(variances.sum())
    explained = variances[:count] / total if total > 0 else np.zeros(count)
    return Components(mean, directions, explained, centred @ directions.T)
