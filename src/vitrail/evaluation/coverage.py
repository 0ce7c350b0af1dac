"""What a model is worth on the images it is sure of, and from which probability on it is sure enough."""

# Shapes: N images, K classes, P points

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError
from vitrail.evaluation.intervals import wilson_interval
from vitrail.evaluation.probabilities import surest

NOTHING_ANSWERED = 1.0  # no probability is above it
_LISTED = np.arange(20, 0, -1) / 20  # the coverages of `listed_points`


class AccuracyCoverage(NamedTuple):
    """Accuracy against coverage: three arrays (P,), from all images answered to the surest few."""

    coverage: NDArray[np.float64]
    """the share of images answered"""
    accuracy: NDArray[np.float64]
    """the share of those that is right"""
    threshold: NDArray[np.float64]
    """images with a probability above it are answered"""


def accuracy_coverage_curve(probabilities: ArrayLike, labels: ArrayLike) -> AccuracyCoverage:
    """The accuracy of the images answered, for every share of them that a threshold can give.

    probabilities (N, K) with rows that sum to 1, labels (N,) in 0..K-1. An image is answered if its largest probability
    is above the threshold. Images of equal probability are answered together; thresholds are halfway between
    neighbours, the first is 0. Raises DataError for probabilities that are none. Geifman and El-Yaniv 2017.
    """
    return answered_curve(*surest(probabilities, labels))


def answered_curve(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> AccuracyCoverage:
    """`accuracy_coverage_curve` of images whose `confidence` (N,) and correctness (N,) are known already."""
    order = np.argsort(confidence)
    values, first = np.unique(confidence[order], return_index=True)
    answered = len(confidence) - first
    hits = np.cumsum(correct[order][::-1])[::-1][first]
    below, above = values[:-1], values[1:]
    halfway = below + (above - below) / 2
    # Between two numbers with none between them, halfway may be the upper one, which is not above itself.
    halfway = np.where(halfway < above, halfway, below)
    return AccuracyCoverage(answered / len(confidence), hits / answered, np.concatenate([[0.0], halfway]))


def reject_threshold(probabilities: ArrayLike, labels: ArrayLike, accuracy: float = 0.95) -> tuple[float, float]:
    """The lowest threshold with at least this accuracy of the images answered, and the share of images it answers.

    probabilities (N, K), labels (N,); an image is answered if its largest probability is above the threshold. Where
    all images together reach the accuracy it is 0; where no threshold does it is 1, and nothing is answered. It is
    chosen for these images: fit it on validation, on others expect the accuracy only about. Raises DataError for
    probabilities that are none, ConfigError for an accuracy outside 0..1.
    """
    if not 0 < accuracy <= 1:
        raise ConfigError(f"accuracy={accuracy} is not above 0 and up to 1; use 0.95 for 95 right of 100 answered")
    curve = accuracy_coverage_curve(probabilities, labels)
    reached = np.flatnonzero(curve.accuracy >= accuracy)
    if not reached.size:
        return NOTHING_ANSWERED, 0.0
    return float(curve.threshold[reached[0]]), float(curve.coverage[reached[0]])


def listed_points(curve: AccuracyCoverage) -> list[dict[str, float]]:
    """At most 20 points of a curve, ready for JSON: the one next at or above each of 100 %, 95 %, ... 5 % coverage."""
    # Coverages fall; a rounding error must not take the point next to the one that is meant.
    at_or_above = (curve.coverage[:, None] >= _LISTED - 1e-9).sum(axis=0) - 1
    return [
        {name: float(column[index]) for name, column in curve._asdict().items()}
        for index in np.unique(at_or_above).tolist()
    ]


def answered_metrics(confidence: NDArray[np.float64], correct: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    """The images above a reject threshold, ready for JSON: images, coverage, accuracy, accuracy_ci95 (Wilson).

    confidence (N,) and correct (N,). The last two are None where nothing is answered. Raises ConfigError for a
    threshold outside 0..1.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"reject_threshold={threshold} is no probability; use 0 to 1, or None to answer every image")
    answered = confidence > threshold
    images, hits = int(answered.sum()), int((answered & correct).sum())
    return {
        "images": images,
        "coverage": images / len(confidence),
        "accuracy": hits / images if images else None,
        "accuracy_ci95": list(wilson_interval(hits, images)) if images else None,
    }
