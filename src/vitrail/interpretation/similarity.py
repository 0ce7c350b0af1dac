"""How alike what two layers make of the same tokens is."""

# Shapes: N tokens of some images, L layers, D width of a layer

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import DataError

LEAST_TOKENS = 4  # that the unbiased estimate can be made of


def linear_cka(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The linear CKA of two layers' tokens (N, D), widths may differ: 1 for the same up to rotation and scale, 0 for
    nothing in common.

    Raises DataError for numbers of tokens that differ, or fewer than four.
    """
    return float(layer_similarity([first, second])[0, 1])


def layer_similarity(layers: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """The linear CKA of any two layers' tokens, each (N, D) of the same tokens in one order: (L, L), 1 on the diagonal.

    Kornblith et al. 2019, with the unbiased estimate of HSIC (Song et al. 2012, equation 5; Nguyen et al. 2021,
    section 3): the usual one finds vectors of independent noise alike where they have about as many values as there are
    tokens. So values may be a little below 0. Raises DataError as `linear_cka`.
    """
    counts = {len(tokens) for tokens in layers}
    if len(counts) != 1 or min(counts) < LEAST_TOKENS:
        raise DataError(
            f"Layers of {sorted(counts)} tokens cannot be compared; give the same {LEAST_TOKENS} or more of each"
        )
    number = counts.pop()
    likeness = np.empty((len(layers), number * number))
    sums = np.empty((len(layers), number))
    for place, tokens in enumerate(layers):
        gram = _gram(np.asarray(tokens, np.float64))
        likeness[place], sums[place] = gram.ravel(), gram.sum(axis=1)
    totals = sums.sum(axis=1)
    hsic = likeness @ likeness.T
    hsic += np.outer(totals, totals) / ((number - 1) * (number - 2))
    hsic -= 2 / (number - 2) * (sums @ sums.T)
    own = np.sqrt(np.maximum(np.diag(hsic), np.finfo(np.float64).tiny))
    found = hsic / np.outer(own, own)
    np.fill_diagonal(found, 1.0)
    return found


def _gram(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products (N, N) of tokens from their mean, at one scale for all layers; 0 of each with itself."""
    centred = tokens - tokens.mean(axis=0)
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0.0)
    return gram / max(float(np.linalg.norm(gram)), np.finfo(np.float64).tiny)
