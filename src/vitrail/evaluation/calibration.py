"""How far predicted probabilities can be taken at their word."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError, DataError


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> float:
    """The mean gap between confidence and accuracy, in 0..1; 0 is perfectly calibrated.

    probabilities (N, K) with rows that sum to 1, labels (N,) in 0..K-1. Confidence is the largest probability
    of an image; images are put into `num_bins` equally wide bins by it, and each bin counts by its share of images.
    Raises DataError for probabilities that are none, ConfigError for num_bins below 1. Guo et al. 2017, equation 3.
    """
    if num_bins < 1:
        raise ConfigError(f"num_bins={num_bins} is too few; use 1 or more, 15 is usual")
    probabilities = np.asarray(probabilities, dtype=np.float64)
    labels = np.asarray(labels)
    if probabilities.ndim != 2 or probabilities.size == 0 or labels.shape != probabilities.shape[:1]:
        raise DataError(
            f"Probabilities {probabilities.shape} and labels {labels.shape} do not fit; "
            "give (images, classes) and (images,)"
        )
    # Half-precision rows sum to 1 only within about a hundredth.
    if not (probabilities.min() >= 0 and np.allclose(probabilities.sum(axis=1), 1, rtol=0, atol=1e-2)):
        raise DataError(
            "Some rows are no probabilities, which are at least 0 and sum to 1; give logits to softmax first"
        )

    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    inner_edges = np.linspace(0, 1, num_bins + 1)[1:-1]
    # A bin holds its upper edge, as in the paper.
    bins: NDArray[np.intp] = np.digitize(confidence, inner_edges, right=True)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))
