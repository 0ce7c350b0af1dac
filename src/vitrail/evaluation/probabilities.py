"""From logits to probabilities, and the checks of both."""

# Shapes: N images, K classes
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError, DataError

_CHUNK_LOGITS = 2**22  # 32 MiB as float64, of which a few copies live at once


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities over the last axis, float64, for logits of any size.

    (..., K) -> (..., K), in 0..1, summing to 1. Raises DataError for logits that are not finite.
    """
    from scipy.special import softmax as scipy_softmax

    scores = np.asarray(logits, dtype=np.float64)
    _check_finite(scores)
    return scipy_softmax(scores, axis=-1)


def sigmoid(logits: ArrayLike) -> NDArray[np.float64]:
    """The probability of each label for itself, float64, in 0..1. Raises DataError for logits that are not finite."""
    from scipy.special import expit

    scores = np.asarray(logits, dtype=np.float64)
    _check_finite(scores)
    return expit(scores)


def surest(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The largest probability of each image, and whether its class is the true one.

    probabilities (N, K) with rows that sum to 1, labels (N,) in 0..K-1 -> (N,) and (N,). Raises DataError for shapes
    that do not fit, no images, and rows that are no probabilities.
    """
    rows, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if rows.ndim != 2 or rows.size == 0 or truth.shape != rows.shape[:1]:
        raise DataError(
            f"Probabilities {rows.shape} and labels {truth.shape} do not fit; give (images, classes) and (images,)"
        )
    # Half-precision rows sum to 1 only within about a hundredth.
    if not (rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, rtol=0, atol=1e-2)):
        raise DataError(
            "Some rows are no probabilities, which are at least 0 and sum to 1; give logits to softmax first"
        )
    return rows.max(axis=1), rows.argmax(axis=1) == truth


def checked_logits(logits: ArrayLike, labels: ArrayLike, num_classes: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Logits (N, K) as they are and labels (N,) int64, which fit one another and the classes.

    Raises DataError where they do not, for no images, labels that are no class, and logits that are not finite.
    """
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
    _check_finite(scores)
    return scores, truth.astype(np.int64)


def checked_label_sets(
    logits: ArrayLike, labels: ArrayLike, num_classes: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Logits (N, K) as they are and labels (N, K), True where an image has the label.

    Raises DataError where they do not fit, for no images, labels other than 0 and 1, and logits that are not finite.
    """
    scores, truth = np.asarray(logits), np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] != num_classes or truth.shape != scores.shape:
        raise DataError(
            f"Logits {scores.shape} and labels {truth.shape} do not fit {num_classes} classes; "
            f"give (images, {num_classes}) for both"
        )
    if scores.size == 0:
        raise DataError("There are no images to evaluate; choose a split that has some")
    if not np.isin(truth, (0, 1)).all():
        raise DataError("Some labels are neither 0 nor 1; give 1 where an image has a label and 0 where not")
    _check_finite(scores)
    return scores, truth.astype(np.bool_)


def checked_temperature(temperature: float) -> float:
    """A temperature that logits can be divided by; raises ConfigError for another."""
    if not (np.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature={temperature} is not a number above 0; use 1 for logits as they are")
    return float(temperature)


def chunks(logits: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Rows of (N, K) a part at a time as float64, so that 50,000 images of 1,000 classes need no gigabytes."""
    step = max(1, _CHUNK_LOGITS // logits.shape[1])
    for start in range(0, len(logits), step):
        part = slice(start, min(start + step, len(logits)))
        yield part, logits[part].astype(np.float64)


def _check_finite(scores: NDArray[Any]) -> None:
    finite = np.isfinite(scores)
    if not finite.all():
        num_bad = int((~finite).sum())
        raise DataError(f"{num_bad} of {scores.size} logits are not finite; train again with a lower learning rate")
