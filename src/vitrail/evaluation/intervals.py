"""Confidence intervals: of one share by Wilson's formula, of anything else by resampling images."""

# Shapes: N images, K classes, U kinds of groups, S samples
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError, DataError

NUM_SAMPLES = 2000
_BATCH_NUMBERS = 2**21  # 16 MiB of int64, of which a few arrays live at once


class ClassCounts(NamedTuple):
    """What the usual results need of a confusion matrix: counts by class, (..., K)."""

    hits: NDArray[np.int64]
    """its diagonal"""
    images: NDArray[np.int64]
    """sums of its rows: images that are of the class"""
    predicted: NDArray[np.int64]
    """sums of its columns: images that are taken for it"""


def wilson_interval(successes: int, num_images: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval (low, high) of the share `successes / num_images`, both as fractions in 0..1.

    Honest where the usual plus-or-minus is not: few images, or a share near 0 or 1.
    Raises DataError without images or with an impossible count, ConfigError for a confidence outside 0..1.
    Wilson 1927, without continuity correction.
    """
    if num_images < 1:
        raise DataError(f"num_images={num_images}: an interval needs at least one image")
    if not 0 <= successes <= num_images:
        raise DataError(f"successes={successes} is not possible among {num_images} images; use 0 to {num_images}")
    check_confidence(confidence)

    # Written out, as scipy computes a test beside it, which takes seconds for a thousand classes.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, shrinkage = successes / num_images, z**2 / num_images
    centre = (share + shrinkage / 2) / (1 + shrinkage)
    half = math.sqrt(shrinkage * (share * (1 - share) + shrinkage / 4)) / (1 + shrinkage)
    # At the ends the bound is exact; a rounding error must not move it.
    low = 0.0 if successes == 0 else float(centre - half)
    high = 1.0 if successes == num_images else float(centre + half)
    return low, high


def bootstrap_confusions(
    labels: ArrayLike,
    predictions: ArrayLike,
    num_classes: int,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> Iterator[ClassCounts]:
    """The confusion matrices of `num_samples` resamples of the images, as counts by class, a batch (S, K) at a time.

    labels and predictions (N,) in 0..K-1. With `groups` (N,), such as the object that a photograph shows, whole groups
    are drawn with replacement, as images of one group are right or wrong together; else images are. The same seed
    gives the same samples, whatever the order of the images. Raises DataError for arrays that do not fit, ConfigError
    for no samples. Efron 1979; Field and Welsh 2007 for groups.
    """
    truth, taken = np.asarray(labels), np.asarray(predictions)
    if truth.ndim != 1 or truth.shape != taken.shape or not truth.size:
        raise DataError(
            f"Labels {truth.shape} and predictions {taken.shape} do not fit; give (images,) and (images,), at least one"
        )
    lowest, highest = min(truth.min(), taken.min()), max(truth.max(), taken.max())
    if lowest < 0 or highest >= num_classes:
        raise DataError(
            f"Labels and predictions from {lowest} to {highest} are not of {num_classes} classes; "
            f"they go from 0 to {num_classes - 1}"
        )

    from scipy.sparse import csr_array

    # Resampling images is drawing from the cells of the confusion matrix that are not empty; of groups, from their
    # kinds. So the cost grows with different kinds, not with images.
    kinds, num_groups = _kinds(truth.astype(np.int64) * num_classes + taken, groups)
    row = np.repeat(np.arange(len(kinds)), [len(kind) for kind in kinds])
    label, prediction = np.divmod(np.concatenate(kinds), num_classes)

    def table(members: NDArray[np.bool_], classes: NDArray[np.int64]) -> Any:
        entries = (np.ones(members.sum(), dtype=np.int64), (row[members], classes[members]))
        return csr_array(entries, shape=(len(kinds), num_classes))

    every = np.ones(len(label), dtype=np.bool_)
    tables = (table(label == prediction, label), table(every, label), table(every, prediction))
    batches = _draw(num_groups, num_samples, seed, width=max(len(kinds), 3 * num_classes))
    return (ClassCounts(*(drawn @ counts for counts in tables)) for drawn in batches)


def bootstrap_mean(
    values: NDArray[np.int64], num_samples: int = NUM_SAMPLES, seed: int = 0, groups: ArrayLike | None = None
) -> NDArray[np.float64]:
    """The mean of small integers (N,), one an image, in each of `num_samples` resamples of the images: (S,).

    Groups as in `bootstrap_confusions`. Raises DataError for groups that do not fit, ConfigError for no samples.
    """
    lowest = int(values.min())
    kinds, num_groups = _kinds(values - lowest, groups)
    sizes = np.array([len(kind) for kind in kinds])
    sums = np.array([kind.sum() for kind in kinds])
    return np.concatenate(
        [drawn @ sums / (drawn @ sizes) + lowest for drawn in _draw(num_groups, num_samples, seed, width=len(kinds))]
    )


def percentile_interval(samples: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """The interval (low, high) that the middle `confidence` of bootstrap samples lies in.

    Raises ConfigError for a confidence outside 0..1. Efron 1981, the percentile method.
    """
    check_confidence(confidence)
    low, high = np.quantile(np.asarray(samples), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def check_confidence(confidence: float) -> None:
    """Raise ConfigError for a confidence outside 0..1."""
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence} is not between 0 and 1; use 0.95 for an interval of 95 %")


def _kinds(codes: NDArray[np.int64], groups: ArrayLike | None) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """The different groups there are, each as the sorted codes of its images, and how many of each; codes from 0 on."""
    if groups is None:
        different, counts = np.unique(codes, return_counts=True)
        return list(different[:, None]), counts
    names = np.asarray(groups)
    if names.shape != codes.shape:
        raise DataError(f"Groups {names.shape} do not fit {len(codes)} images; give one group an image")
    _, place = np.unique(names, return_inverse=True)
    order = np.lexsort((codes, place))
    ends = np.cumsum(np.bincount(place))[:-1]
    # As big-endian bytes they sort like numbers: groups of one image come in the order they have without groups.
    tally = Counter(part.tobytes() for part in np.split(codes[order].astype(">i8"), ends))
    kinds = sorted(tally)
    return [np.frombuffer(kind, ">i8").astype(np.int64) for kind in kinds], np.array([tally[kind] for kind in kinds])


def _draw(num_groups: NDArray[np.int64], num_samples: int, seed: int, width: int) -> Iterator[NDArray[np.int64]]:
    """How often each kind is drawn in each sample, (S, U) in batches; `width` numbers are needed for one sample."""
    if num_samples < 1:
        raise ConfigError(f"num_samples={num_samples} is too few; use 1 or more, 2000 is usual")
    rng = np.random.default_rng(seed)
    total = int(num_groups.sum())
    step = max(1, _BATCH_NUMBERS // width)
    starts = range(0, num_samples, step)
    return (rng.multinomial(total, num_groups / total, size=min(step, num_samples - start)) for start in starts)
