"""How far predicted probabilities can be taken at their word, and the temperature that mends them."""

# Shapes: N images, K classes, B bins
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError
from vitrail.evaluation.probabilities import checked_logits, chunks, surest

NUM_BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


class ReliabilityBins(NamedTuple):
    """Images by their confidence, in equally wide bins from 0 to 1: three arrays (B,), NaN where a bin is empty."""

    confidence: NDArray[np.float64]
    """mean confidence of the bin's images"""
    accuracy: NDArray[np.float64]
    """the share of them that is right"""
    images: NDArray[np.int64]
    """how many they are"""


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, num_bins: int = NUM_BINS) -> float:
    """The mean gap between confidence and accuracy, in 0..1; 0 is perfectly calibrated.

    probabilities (N, K) with rows that sum to 1, labels (N,) in 0..K-1. Confidence is the largest probability
    of an image; images are put into `num_bins` equally wide bins by it, and each bin counts by its share of images.
    Raises DataError for probabilities that are none, ConfigError for num_bins below 1. Guo et al. 2017, equation 3.
    """
    return calibration_error(*surest(probabilities, labels), num_bins)


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, num_bins: int = NUM_BINS) -> ReliabilityBins:
    """What a reliability diagram shows, of the bins that `expected_calibration_error` has; raises the same."""
    confidence, correct = surest(probabilities, labels)
    bins = _bins(confidence, num_bins)
    images = np.bincount(bins, minlength=num_bins)
    filled = np.where(images > 0, images, np.nan)
    return ReliabilityBins(
        np.bincount(bins, weights=confidence, minlength=num_bins) / filled,
        np.bincount(bins, weights=correct, minlength=num_bins) / filled,
        images,
    )


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_], num_bins: int = NUM_BINS) -> float:
    """The expected calibration error of images whose `confidence` (N,) and correctness (N,) are known already."""
    gaps = np.bincount(_bins(confidence, num_bins), weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))


def _bins(confidence: NDArray[np.float64], num_bins: int) -> NDArray[np.intp]:
    if num_bins < 1:
        raise ConfigError(f"num_bins={num_bins} is too few; use 1 or more, 15 is usual")
    inner_edges = np.linspace(0, 1, num_bins + 1)[1:-1]
    # A bin holds its upper edge, as in the paper.
    return np.digitize(confidence, inner_edges, right=True)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature that logits are divided by for the least cross-entropy on these images, in 0.05..20.

    logits (N, K), labels (N,) in 0..K-1; take images that were not trained on. Never worse than 1 on them. Where no
    class stands before the true one of any image, the loss falls for ever as the temperature does, and the images
    cannot say how sure is too sure: there it is 1. Predicted classes do not change. Raises DataError for arrays that
    do not fit and logits that are not finite. Guo et al. 2017, section 4.2.
    """
    shape = np.shape(logits)
    scores, truth = checked_logits(logits, labels, shape[1] if len(shape) == 2 else 0)
    own = np.take_along_axis(scores, truth[:, None], axis=1)[:, 0]
    if bool((own >= scores.max(axis=1)).all()):
        return 1.0

    return lowest_temperature(lambda temperature: _cross_entropy(scores, truth, temperature))


def lowest_temperature(loss: Callable[[float], float]) -> float:
    """The temperature in 0.05..20 at which `loss` is lowest; 1 if it is no lower anywhere."""
    from scipy.optimize import minimize_scalar

    def of_logarithm(log_temperature: float) -> float:
        return loss(float(np.exp(log_temperature)))

    # Over the logarithm: halving and doubling are steps of one size, and the loss has a single valley.
    found = minimize_scalar(
        of_logarithm,
        bounds=(float(np.log(MIN_TEMPERATURE)), float(np.log(MAX_TEMPERATURE))),
        method="bounded",
        options={"xatol": 1e-5},
    )
    temperature = float(np.clip(np.exp(found.x), MIN_TEMPERATURE, MAX_TEMPERATURE))
    return temperature if loss(temperature) < loss(1.0) else 1.0


def validated_temperature(logits: ArrayLike, labels: ArrayLike, num_folds: int = 5) -> float:
    """`fit_temperature`, or 1 where a temperature fitted on some of these images does not help on the others.

    Fitted in turn on all but each of `num_folds` parts of the images, tried on that part. With few images a fitted
    temperature may do harm. Raises as `fit_temperature` does.
    """
    temperature = fit_temperature(logits, labels)
    scores, truth = np.asarray(logits), np.asarray(labels)
    helps = temperature != 1 and helps_on_others(fit_temperature, _cross_entropy, scores, truth, num_folds)
    return temperature if helps else 1.0


def helps_on_others(
    fit: Callable[[NDArray[Any], NDArray[Any]], float],
    loss: Callable[[NDArray[Any], NDArray[Any], float], float],
    scores: NDArray[Any],
    truth: NDArray[Any],
    num_folds: int,
) -> bool:
    """Whether temperatures that are fitted on all but one of `num_folds` parts make the loss of that part lower.

    `scores` and `truth` have an image a row; the loss is a mean over images. False for fewer than two images a part.
    """
    if len(truth) < 2 * num_folds:
        return False
    folds = np.arange(len(truth)) % num_folds
    fitted, plain = 0.0, 0.0
    for fold in range(num_folds):
        rest, part = folds != fold, folds == fold
        tried = fit(scores[rest], truth[rest])
        fitted += loss(scores[part], truth[part], tried) * int(part.sum())
        plain += loss(scores[part], truth[part], 1.0) * int(part.sum())
    return fitted < plain


def _cross_entropy(scores: NDArray[Any], truth: NDArray[np.int64], temperature: float) -> float:
    total = 0.0
    for part, values in chunks(scores):
        values -= values.max(axis=1, keepdims=True)  # exp never overflows
        values /= temperature
        own = values[np.arange(len(values)), truth[part]]
        total += float((np.log(np.exp(values).sum(axis=1)) - own).sum())
    return total / len(scores)
