"""How long tokens are, and which stand out: some large models keep notes in patches that show little."""

# Shapes: L layers, B images, P patches

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# The outliers of Darcet et al. 2024 are 3 to 10 times as long as other tokens, 2 % of them, and grow in the middle of a
# network. Where lengths merely spread, a ratio of 3 is beyond three deviations even where they spread by 35 %. The
# deviations are asked for besides for patches of two kinds, and the growth for images of strokes on nothing: their
# patches are 7 times as long as empty ones from the first layer on, as on MNIST, and stay so.
LEAST_RATIO = 3.0
LEAST_DEVIATIONS = 6.0
LEAST_SHARE = 0.005  # of the patches of a layer; fewer are not worth a warning
_TO_DEVIATION = 1.4826  # from the median absolute deviation of a normal distribution


class Outliers(NamedTuple):
    """Tokens that are far longer than others of their layer."""

    thresholds: NDArray[np.float64]
    """the norm above which a token may be one, (L,)"""
    medians: NDArray[np.float64]
    """of the norms, (L,)"""
    shares: NDArray[np.float64]
    """part of the patches that are outliers, (L,) fractions"""
    largest: NDArray[np.float64]
    """the largest norm in multiples of the median, (L,)"""
    layers: tuple[int, ...]
    """where there are enough to warn of: in the second half of the layers, half a percent of the patches or more"""
    places: NDArray[np.float64]
    """in the last of these layers, else the last of all: part of the images whose patch is an outlier, (P,)"""


def find_outliers(norms: NDArray[Any]) -> Outliers:
    """The outliers among norms (L, B, P) of patches after each layer; NaN for patches that take no part.

    An outlier is 3 times as long as the layer's median patch, 6 robust standard deviations longer, and has grown 3
    times as much since the first layer as the median patch.
    """
    values = np.asarray(norms, np.float64)
    flat = values.reshape(len(values), -1)
    medians = np.nanmedian(flat, axis=1)
    deviations = _TO_DEVIATION * np.nanmedian(np.abs(flat - medians[:, None]), axis=1)
    thresholds = np.maximum(LEAST_RATIO * medians, medians + LEAST_DEVIATIONS * deviations)
    growth = values / np.maximum(values[:1], np.finfo(np.float64).tiny)
    median_growth = np.nanmedian(growth.reshape(len(values), -1), axis=1)
    found = (values > thresholds[:, None, None]) & (growth > LEAST_RATIO * median_growth[:, None, None])
    known = np.isfinite(values)
    shares = found.sum(axis=(1, 2)) / np.maximum(known.sum(axis=(1, 2)), 1)
    largest = np.nanmax(flat, axis=1) / np.maximum(medians, np.finfo(np.float64).tiny)
    layers = tuple(layer for layer in range(len(values) // 2, len(values)) if shares[layer] >= LEAST_SHARE)
    shown = layers[-1] if layers else len(values) - 1
    places = found[shown].sum(axis=0) / np.maximum(known[shown].sum(axis=0), 1)
    return Outliers(thresholds, medians, shares, largest, layers, places)
