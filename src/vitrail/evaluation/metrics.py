"""What a classifier's logits are worth against the labels."""

# Shapes: N images, K classes, S samples
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.evaluation.calibration import calibration_error
from vitrail.evaluation.coverage import answered_curve, answered_metrics, listed_points
from vitrail.evaluation.intervals import (
    NUM_SAMPLES,
    ClassCounts,
    bootstrap_confusions,
    percentile_interval,
    wilson_interval,
)
from vitrail.evaluation.paired import smallest_detectable_difference
from vitrail.evaluation.probabilities import checked_logits, checked_temperature, chunks

# What is resampled: the keys of the results, and the keys of their intervals.
_RESAMPLED = {
    "accuracy": "accuracy_bootstrap_ci95",
    "balanced_accuracy": "balanced_accuracy_ci95",
    "macro_precision": "macro_precision_ci95",
    "macro_f1": "macro_f1_ci95",
}


def classification_metrics(
    logits: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    temperature: float = 1.0,
    reject_threshold: float | None = None,
    groups: ArrayLike | None = None,
    bootstrap_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The results of one split as plain numbers, ready for JSON; shares are fractions in 0..1.

    logits (N, K) float, labels (N,) integers in 0..K-1, classes K names; groups (N,) says which images belong together,
    such as photographs of one object. The keys, in this order: images, groups and interval_method (only with groups:
    their number, "bootstrap of groups"), accuracy, accuracy_ci95 [low, high] (Wilson), accuracy_bootstrap_ci95,
    balanced_accuracy (mean recall over classes, also called macro recall), macro_precision and macro_f1, each of these
    three followed by its bootstrap interval under <key>_ci95, loss (mean cross-entropy in nats) and ece (expected
    calibration error) of the logits divided by the temperature, loss_uncalibrated and ece_uncalibrated (only where it
    is not 1), temperature, top5_accuracy (only with more than 5 classes), smallest_difference (in accuracy, which so
    many images show between two models), answered (only with a reject threshold: images, coverage, accuracy,
    accuracy_ci95), accuracy_coverage (up to 20 points: coverage, accuracy, threshold), per_class (class, images,
    precision, recall, f1, recall_ci95, precision_ci95), confusion (K lists of K counts: rows true, columns predicted).

    Bootstrap intervals are of resampled images, or of resampled groups; Wilson's take each image for itself and are too
    narrow for groups, so that of accuracy then reaches at least as far as the bootstrap of groups does. What has
    nothing to be computed from is None: recall and its interval for a class without images, precision and its interval
    for a class never predicted, f1 where both hold. Means over classes are over those with images; one that is never
    predicted counts with a precision of 0. Of equal logits the first class counts as predicted. Raises DataError for no
    images, shapes that do not fit, labels that are no class, and logits that are not finite; ConfigError for settings
    that are not possible.
    """
    scores, truth = checked_logits(logits, labels, len(classes))
    images = _images(scores, truth, checked_temperature(temperature))
    num_images, num_classes = scores.shape
    correct = images.predictions == truth
    samples = bootstrap_confusions(truth, images.predictions, num_classes, bootstrap_samples, seed, groups)
    pairs = np.bincount(truth * num_classes + images.predictions, minlength=num_classes**2)
    confusion = pairs.reshape(num_classes, num_classes)
    counts = ClassCounts(confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0))

    metrics: dict[str, Any] = {"images": num_images}
    if groups is not None:
        metrics |= {"groups": len(np.unique(np.asarray(groups))), "interval_method": "bootstrap of groups"}
    metrics |= _averages_with_intervals(counts, samples)
    if groups is not None:
        lows, highs = zip(metrics["accuracy_ci95"], metrics["accuracy_bootstrap_ci95"], strict=True)
        metrics["accuracy_ci95"] = [min(lows), max(highs)]
    metrics |= _calibration(images, correct)
    if temperature != 1:
        uncalibrated = _calibration(_images(scores, truth, 1.0), correct)
        metrics |= {f"{key}_uncalibrated": value for key, value in uncalibrated.items()}
    metrics["temperature"] = float(temperature)
    if num_classes > 5:
        metrics["top5_accuracy"] = float((images.ranks < 5).mean())
    metrics["smallest_difference"] = smallest_detectable_difference(num_images, metrics["accuracy"])
    if reject_threshold is not None:
        metrics["answered"] = answered_metrics(images.confidence, correct, reject_threshold)
    metrics["accuracy_coverage"] = listed_points(answered_curve(images.confidence, correct))
    return {**metrics, "per_class": _per_class(counts, classes), "confusion": confusion.tolist()}


class _Images(NamedTuple):
    """What is kept of each image's logits, (N,) each."""

    predictions: NDArray[np.int64]
    confidence: NDArray[np.float64]
    losses: NDArray[np.float64]
    ranks: NDArray[np.int64]
    """classes that stand before the true one"""


def _images(scores: NDArray[Any], truth: NDArray[np.int64], temperature: float) -> _Images:
    from scipy.special import log_softmax, softmax

    num_images = len(scores)
    images = _Images(
        np.empty(num_images, np.int64), np.empty(num_images), np.empty(num_images), np.empty(num_images, np.int64)
    )
    for part, values in chunks(scores):
        labels = truth[part, None]
        own = np.take_along_axis(values, labels, axis=1)
        # Ties fall as they do in argmax.
        first_of_equals = np.arange(values.shape[1]) < labels
        images.ranks[part] = ((values > own) | ((values == own) & first_of_equals)).sum(axis=1)
        images.predictions[part] = values.argmax(axis=1)
        values /= temperature
        images.confidence[part] = softmax(values, axis=1).max(axis=1)
        images.losses[part] = -np.take_along_axis(log_softmax(values, axis=1), labels, axis=1)[:, 0]
    return images


def _calibration(images: _Images, correct: NDArray[np.bool_]) -> dict[str, float]:
    loss = float(images.losses.mean()) + 0.0  # never -0.0
    return {"loss": loss, "ece": calibration_error(images.confidence, correct)}


def _averages(counts: ClassCounts) -> dict[str, NDArray[np.float64]]:
    """The results that follow from counts by class (..., K), each (...)."""
    hits, images, predicted = counts
    num_present = (images > 0).sum(axis=-1)

    # A class without images has no hits, so that it adds nothing.
    def mean_over_classes(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
        return (part / np.maximum(whole, 1)).sum(axis=-1) / num_present

    return {
        "accuracy": hits.sum(axis=-1) / images.sum(axis=-1),
        "balanced_accuracy": mean_over_classes(hits, images),
        "macro_precision": mean_over_classes(hits, predicted),
        "macro_f1": mean_over_classes(2 * hits, images + predicted),
    }


def _averages_with_intervals(counts: ClassCounts, samples: Iterable[ClassCounts]) -> dict[str, Any]:
    """Accuracy with Wilson's interval too, as the first two keys; then every key before its bootstrap interval."""
    resampled = [_averages(batch) for batch in samples]
    averages = {key: float(value) for key, value in _averages(counts).items()}
    hits, num_images = int(counts.hits.sum()), int(counts.images.sum())
    metrics: dict[str, Any] = {
        "accuracy": averages["accuracy"],
        "accuracy_ci95": list(wilson_interval(hits, num_images)),
    }
    for key, interval_key in _RESAMPLED.items():
        interval = percentile_interval(np.concatenate([batch[key] for batch in resampled]))
        metrics |= {key: averages[key], interval_key: list(interval)}
    return metrics


def _per_class(counts: ClassCounts, classes: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name, hits, images, predicted in zip(classes, *(column.tolist() for column in counts), strict=True):
        rows.append(
            {
                "class": str(name),
                "images": images,
                "precision": _share(hits, predicted),
                "recall": _share(hits, images),
                "f1": _share(2 * hits, images + predicted),
                "recall_ci95": list(wilson_interval(hits, images)) if images else None,
                "precision_ci95": list(wilson_interval(hits, predicted)) if predicted else None,
            }
        )
    return rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
