"""What the logits of a model are worth where an image may have several labels, or none: one decision a label."""

# Shapes: N images, K classes, S samples
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.evaluation.calibration import calibration_error, helps_on_others, lowest_temperature
from vitrail.evaluation.intervals import NUM_SAMPLES, bootstrap_mean, percentile_interval, wilson_interval
from vitrail.evaluation.paired import smallest_detectable_difference
from vitrail.evaluation.probabilities import checked_label_sets, checked_temperature, chunks, sigmoid

_BATCH_NUMBERS = 2**21  # 16 MiB of int64, of which a few arrays live at once
_MOST_NUMBERS = 10**8  # that the resamples of average precisions go through, about two seconds
_FEWEST_SAMPLES = 100


def multilabel_metrics(
    logits: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    *,
    temperature: float = 1.0,
    groups: ArrayLike | None = None,
    bootstrap_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The results of one split as plain numbers, ready for JSON; shares are fractions in 0..1.

    logits (N, K) float, labels (N, K) of 0 and 1, classes K names, groups (N,) as for `classification_metrics`. A label
    counts as given where its probability, the sigmoid of its logit, is above a half. The keys, in this order: images,
    groups and interval_method (only with groups), accuracy (images with exactly their labels, also called subset
    accuracy), accuracy_ci95 [low, high] (Wilson) and accuracy_bootstrap_ci95, label_accuracy (decisions that are right,
    one an image and class), mean_average_precision and its bootstrap interval mean_average_precision_ci95 (fewer
    resamples than asked for where images and classes are many, 100 at least), balanced_accuracy (mean
    over classes of the mean of the shares of images with and without the label that are right), micro_f1 (over all
    decisions) and macro_f1 (mean over classes), loss (mean binary cross-entropy in nats over images and classes) and
    ece (expected calibration error of the labels' probabilities) of the logits divided by the temperature,
    loss_uncalibrated and ece_uncalibrated (only where it is not 1), temperature, smallest_difference (in accuracy, that
    so many images show between two models), per_class (class, images, average_precision, precision, recall, f1,
    recall_ci95, precision_ci95).

    What has nothing to be computed from is None. Means over classes are over those that some image has. Raises
    DataError for no images, shapes that do not fit, labels other than 0 and 1, and logits that are not finite;
    ConfigError for settings that are not possible.
    """
    scores, truth = checked_label_sets(logits, labels, len(classes))
    given, num_images = scores > 0, len(scores)
    right = given == truth
    exact = right.all(axis=1)
    precisions = average_precisions(scores, truth)
    interval = percentile_interval(bootstrap_mean(exact.astype(np.int64), bootstrap_samples, seed, groups))
    metrics: dict[str, Any] = {"images": num_images}
    if groups is not None:
        metrics |= {"groups": len(np.unique(np.asarray(groups))), "interval_method": "bootstrap of groups"}
    metrics |= {
        "accuracy": float(exact.mean()),
        "accuracy_ci95": list(wilson_interval(int(exact.sum()), num_images)),
        "accuracy_bootstrap_ci95": list(interval),
        "label_accuracy": float(right.mean()),
        "mean_average_precision": _mean(precisions),
        "mean_average_precision_ci95": None,
    }
    if groups is not None:  # Wilson's takes each image for itself
        lows, highs = zip(metrics["accuracy_ci95"], interval, strict=True)
        metrics["accuracy_ci95"] = [min(lows), max(highs)]
    if truth.any():
        resampled = _resampled(scores, truth, bootstrap_samples, seed, groups)
        metrics["mean_average_precision_ci95"] = list(percentile_interval(resampled))
    metrics |= _averages(given, truth)
    metrics |= _calibration(scores, truth, checked_temperature(temperature))
    if temperature != 1:
        metrics |= {f"{key}_uncalibrated": value for key, value in _calibration(scores, truth, 1.0).items()}
    metrics["temperature"] = float(temperature)
    metrics["smallest_difference"] = smallest_detectable_difference(num_images, metrics["accuracy"])
    return {**metrics, "per_class": _per_class(given, truth, precisions, classes)}


def average_precisions(scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """The average precision of each class, (K,), NaN for one that no image has.

    scores (N, K) of any scale, labels (N, K) of 0 and 1. It is the mean, over images with the label, of the precision
    among the images that score at least as high: the area under steps of precision by recall, nothing interpolated, as
    scikit-learn's average_precision_score.
    """
    ones = np.ones((1, len(scores)), np.int64)
    columns = (_average_precision(ones, *_ranked(scores[:, k], labels[:, k] > 0))[0] for k in range(scores.shape[1]))
    return np.fromiter(columns, np.float64, scores.shape[1])


def mean_average_precision(scores: NDArray[Any], labels: NDArray[Any]) -> float | None:
    """The mean of the `average_precisions` of the classes that some image has; None if no image has any label."""
    return _mean(average_precisions(scores, labels))


def validated_sigmoid_temperature(logits: ArrayLike, labels: ArrayLike, num_folds: int = 5) -> float:
    """The temperature that logits are divided by for the least binary cross-entropy, in 0.05..20.

    logits (N, K), labels (N, K) of 0 and 1, of images that were not trained on. It is 1 where one that is fitted on
    some of these images does not help on the others, or where every decision is right, so that they cannot say how sure
    is too sure. Decisions do not change. Raises DataError for arrays that do not fit. As `validated_temperature`.
    """
    shape = np.shape(logits)
    scores, truth = checked_label_sets(logits, labels, shape[1] if len(shape) == 2 else 0)
    temperature = _fit(scores, truth)
    helps = temperature != 1 and helps_on_others(_fit, _cross_entropy, scores, truth, num_folds)
    return temperature if helps else 1.0


def _fit(scores: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    if bool(((scores > 0) == truth).all()):
        return 1.0
    return lowest_temperature(lambda temperature: _cross_entropy(scores, truth, temperature))


def _cross_entropy(scores: NDArray[Any], truth: NDArray[np.bool_], temperature: float) -> float:
    total = 0.0
    for part, values in chunks(scores):
        values /= temperature
        total += float(np.logaddexp(0, np.where(truth[part], -values, values)).sum())
    return total / scores.size


def _calibration(scores: NDArray[Any], truth: NDArray[np.bool_], temperature: float) -> dict[str, float]:
    probabilities = sigmoid(scores / temperature)
    ece = calibration_error(probabilities.ravel(), truth.ravel())
    return {"loss": _cross_entropy(scores, truth, temperature), "ece": ece}


def _averages(given: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, float | None]:
    hits, images, taken = (part.sum(axis=0) for part in (given & truth, truth, given))
    others = len(truth) - images
    recall = hits / np.where(images > 0, images, np.nan)
    rejected = ((others - (taken - hits)) / np.where(others > 0, others, np.nan))[images > 0]
    recall = recall[images > 0]
    f1 = (2 * hits / np.maximum(images + taken, 1))[images > 0]
    whole = int((images + taken).sum())
    return {
        "balanced_accuracy": _mean(np.where(np.isnan(rejected), recall, (recall + rejected) / 2)),
        "micro_f1": int(2 * hits.sum()) / whole if whole else None,
        "macro_f1": _mean(f1),
    }


def _per_class(
    given: NDArray[np.bool_], truth: NDArray[np.bool_], precisions: NDArray[np.float64], classes: Sequence[str]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    counts = ((given & truth).sum(axis=0), truth.sum(axis=0), given.sum(axis=0))
    columns = (column.tolist() for column in (*counts, precisions))
    for name, hits, images, taken, precision in zip(classes, *columns, strict=True):
        rows.append(
            {
                "class": str(name),
                "images": images,
                "average_precision": precision if images else None,
                "precision": hits / taken if taken else None,
                "recall": hits / images if images else None,
                "f1": 2 * hits / (images + taken) if images + taken else None,
                "recall_ci95": list(wilson_interval(hits, images)) if images else None,
                "precision_ci95": list(wilson_interval(hits, taken)) if taken else None,
            }
        )
    return rows


def _ranked(
    scores: NDArray[Any], there: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Images by falling score; of those with the label, the places in that order; and the last place of equal score."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.searchsorted(-falling, -falling, side="right") - 1
    places = np.flatnonzero(there[order])
    return order, places, last[places]


def _average_precision(
    weights: NDArray[np.int64], order: NDArray[np.intp], places: NDArray[np.intp], ends: NDArray[np.intp]
) -> NDArray[np.float64]:
    """One class in samples (S, N) that hold each image `weights` times: (S,), NaN where no image has the label."""
    ordered = weights[:, order]
    own = ordered[:, places]
    num_above = np.cumsum(ordered, axis=1)[:, ends]
    # Images with the label up to the end of each group of equal scores.
    hits = np.cumsum(own, axis=1)[:, np.searchsorted(places, ends, side="right") - 1]
    total = own.sum(axis=1)
    sums = (own * hits / np.maximum(num_above, 1)).sum(axis=1)
    return sums / np.where(total > 0, total, np.nan)


def _resampled(
    scores: NDArray[Any], truth: NDArray[np.bool_], num_samples: int, seed: int, groups: ArrayLike | None
) -> NDArray[np.float64]:
    """The mean average precision in each of so many resamples of the images, without those that have no label, (S,)."""
    count = min(num_samples, max(_FEWEST_SAMPLES, _MOST_NUMBERS // scores.size))
    ranked = [_ranked(scores[:, label], truth[:, label]) for label in np.flatnonzero(truth.any(axis=0)).tolist()]
    names = np.arange(len(scores)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    batches = [
        np.stack([_average_precision(weights, *ranks) for ranks in ranked]) for weights in _draw(names, count, seed)
    ]
    precisions = np.concatenate(batches, axis=1)
    precisions = precisions[:, ~np.isnan(precisions).all(axis=0)]
    return np.nanmean(precisions, axis=0)


def _draw(names: NDArray[np.int64], num_samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each image is drawn in each sample, (S, N) in batches, of groups with these numbers from 0 on."""
    rng = np.random.default_rng(seed)
    step = max(1, _BATCH_NUMBERS // len(names))
    num_groups = int(names.max()) + 1
    shares = np.full(num_groups, 1 / num_groups)
    for start in range(0, num_samples, step):
        yield rng.multinomial(num_groups, shares, size=min(step, num_samples - start))[:, names]


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None
