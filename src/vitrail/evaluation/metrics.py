"""What a classifier's logits are worth against the labels."""

# Shapes: N images, K classes
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.evaluation.calibration import expected_calibration_error
from vitrail.evaluation.intervals import wilson_interval


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities over the last axis, float64, for logits of any size.

    (..., K) -> (..., K), in 0..1, summing to 1. Raises DataError for logits that are not finite.
    """
    from scipy.special import softmax as scipy_softmax

    return scipy_softmax(_finite(logits), axis=-1)


def classification_metrics(logits: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """The results of one split as plain numbers, ready for JSON; shares are fractions in 0..1.

    logits (N, K) float, labels (N,) integers in 0..K-1, classes K names. The keys, in this order:
    images, accuracy, accuracy_ci95 [low, high] (Wilson), balanced_accuracy (mean recall over classes), loss (mean
    cross-entropy in nats), ece (expected calibration error), top5_accuracy (only with more than 5 classes), per_class
    (class, images, precision, recall, f1, recall_ci95), confusion (K lists of K counts: rows true, columns predicted).

    What has nothing to be computed from is None: recall and its interval for a class without images, which is also left
    out of balanced_accuracy; precision for a class never predicted; f1 where both hold. Of equal logits the first
    class counts as predicted. Raises DataError for no images, shapes that do not fit, labels that are no class,
    and logits that are not finite.
    """
    scores, truth = _checked(logits, labels, len(classes))

    from scipy.special import log_softmax

    num_images, num_classes = scores.shape
    predictions = scores.argmax(axis=1)
    num_correct = int((predictions == truth).sum())
    pairs = np.bincount(truth * num_classes + predictions, minlength=num_classes**2)
    confusion = pairs.reshape(num_classes, num_classes)
    per_class = _per_class(confusion, classes)
    own_log_probability = log_softmax(scores, axis=1)[np.arange(num_images), truth]
    metrics: dict[str, Any] = {
        "images": num_images,
        "accuracy": num_correct / num_images,
        "accuracy_ci95": list(wilson_interval(num_correct, num_images)),
        "balanced_accuracy": float(np.mean([row["recall"] for row in per_class if row["images"]])),
        "loss": float(-own_log_probability.mean()) + 0.0,  # never -0.0
        "ece": expected_calibration_error(softmax(scores), truth),
    }
    if num_classes > 5:
        metrics["top5_accuracy"] = _top_accuracy(scores, truth, 5)
    return {**metrics, "per_class": per_class, "confusion": confusion.tolist()}


def _per_class(confusion: NDArray[np.int64], classes: Sequence[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(classes):
        hits, images, predicted = (
            int(count) for count in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
        )
        rows.append(
            {
                "class": str(name),
                "images": images,
                "precision": _share(hits, predicted),
                "recall": _share(hits, images),
                "f1": _share(2 * hits, images + predicted),
                "recall_ci95": list(wilson_interval(hits, images)) if images else None,
            }
        )
    return rows


def _top_accuracy(logits: NDArray[Any], labels: NDArray[Any], num_best: int) -> float:
    """Counts the classes that stand before the true one, so that ties fall as they do in argmax."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    first_of_equals = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & first_of_equals)).sum(axis=1)
    return float((rank < num_best).mean())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _finite(logits: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(scores).all():
        num_bad = int((~np.isfinite(scores)).sum())
        raise DataError(f"{num_bad} of {scores.size} logits are not finite; train again with a lower learning rate")
    return scores


def _checked(logits: ArrayLike, labels: ArrayLike, num_classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """float64 logits and int64 labels that fit one another and the classes."""
    scores, truth = np.asarray(logits), np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] != num_classes or truth.shape != scores.shape[:1]:
        raise DataError(
            f"Logits {scores.shape} and labels {truth.shape} do not fit {num_classes} classes; "
            f"give (images, {num_classes}) and (images,)"
        )
    if scores.size == 0:
        raise DataError("There are no images to evaluate; choose a split that has some")
    if not np.issubdtype(truth.dtype, np.integer):
        raise DataError(f"Labels are of type {truth.dtype}; give integers, the places of the classes")
    outside = truth[(truth < 0) | (truth >= num_classes)]
    if outside.size:
        raise DataError(
            f"Label {outside[0]} is none of the {num_classes} classes; labels go from 0 to {num_classes - 1}"
        )
    return _finite(scores), truth.astype(np.int64)
