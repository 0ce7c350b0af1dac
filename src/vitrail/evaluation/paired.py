"""Two models on the same images: whether one is better, and by how much."""

# Shapes: N images
# scipy brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation.intervals import NUM_SAMPLES, bootstrap_mean, check_confidence, percentile_interval

_SPREAD = 8  # standard deviations; what lies beyond has no weight


class McNemar(NamedTuple):
    """The exact test of whether two models are right equally often."""

    only_a: int
    """images that the first model alone gets right"""
    only_b: int
    """images that the second model alone gets right"""
    p_value: float
    """two-sided, from the binomial distribution"""


def mcnemar_exact(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """The exact McNemar test of two models on the same images.

    correct_a, correct_b (N,) bool: whether the model is right. Images that both get right or both get wrong say
    nothing; without others p is 1. Raises DataError for arrays that do not fit. McNemar 1947.
    """
    return _mcnemar(*_checked(correct_a, correct_b))


def paired_bootstrap(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> tuple[float, float, float]:
    """The accuracy of the first model less that of the second, and its 95 % interval (difference, low, high).

    correct_a, correct_b (N,) bool; the same resampled images for both. Groups as in `bootstrap_confusions`. Raises
    DataError for arrays that do not fit, ConfigError for no samples.
    """
    a, b = _checked(correct_a, correct_b)
    gains = a.astype(np.int64) - b
    low, high = percentile_interval(bootstrap_mean(gains, num_samples, seed, groups))
    return float(gains.mean()), low, high


def smallest_detectable_difference(
    num_images: int, accuracy: float, power: float = 0.8, confidence: float = 0.95
) -> float | None:
    """The smallest difference in accuracy that the exact McNemar test of two models shows on so many images.

    `power` is the chance that it shows it, 1 - `confidence` that it shows one where there is none. The models have
    about this accuracy and err independently, so that they disagree on 2p(1-p) of the images; of models that err alike
    smaller ones are shown. None where no difference can be shown, at 95 % with fewer than 6 images. The power is summed
    over all numbers of disagreements, which the formula of Connor 1987 comes near to with many images. Raises DataError
    without images, ConfigError for an accuracy outside 0..1, a confidence that is none, and a power not above
    1 - confidence.
    """
    if num_images < 1:
        raise DataError(f"num_images={num_images}: a comparison needs at least one image")
    if not 0 <= accuracy <= 1:
        raise ConfigError(f"accuracy={accuracy} is not between 0 and 1; give a fraction, such as 0.95")
    check_confidence(confidence)
    if not 1 - confidence < power < 1:
        raise ConfigError(
            f"power={power} is not between {1 - confidence:g}, which chance gives, and 1; use 0.8 for 4 times of 5"
        )
    return _smallest_difference(num_images, 2 * accuracy * (1 - accuracy), power, confidence)


def paired_comparison(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> dict[str, Any]:
    """All that is said of two models on the same images, as plain numbers, ready for JSON.

    correct_a, correct_b (N,) bool. The keys, in this order: images, accuracy_a, accuracy_b, difference (a less b),
    difference_ci95 [low, high] (paired bootstrap), mcnemar_p (exact, two-sided), only_a, only_b (images that one alone
    gets right), smallest_difference (what so many images show with 80 % power at 5 %, of models that disagree as often
    as these; None below 6 images). With groups the interval is by groups, while mcnemar_p still takes every image for
    itself. Raises DataError for arrays that do not fit, ConfigError for no samples.
    """
    a, b = _checked(correct_a, correct_b)
    difference, low, high = paired_bootstrap(a, b, num_samples, seed, groups)
    test = _mcnemar(a, b)
    return {
        "images": len(a),
        "accuracy_a": float(a.mean()),
        "accuracy_b": float(b.mean()),
        "difference": difference,
        "difference_ci95": [low, high],
        "mcnemar_p": test.p_value,
        "only_a": test.only_a,
        "only_b": test.only_b,
        "smallest_difference": _smallest_difference(len(a), (test.only_a + test.only_b) / len(a), 0.8, 0.95),
    }


def _mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> McNemar:
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)

    from scipy.stats import binomtest

    return McNemar(only_a, only_b, float(binomtest(only_a, only_a + only_b, 0.5).pvalue))


def _smallest_difference(num_images: int, discordant: float, power: float, confidence: float) -> float | None:
    """Where the power, which grows with the difference, reaches what is wanted; `discordant` is a share of images."""
    from scipy.optimize import brentq

    # So many images that one model alone gets right are the fewest with 2 * 0.5**m below 1 - confidence: 6 at 95 %.
    fewest = int(np.floor(np.log2(2 / (1 - confidence)))) + 1
    if num_images < fewest:
        return None

    def excess(difference: float) -> float:
        return _power(num_images, max(discordant, difference), difference, 1 - confidence) - power

    difference: Any = brentq(excess, 0.0, 1.0, xtol=1e-7)
    return max(float(difference), fewest / num_images)


def _power(num_images: int, discordant: float, difference: float, significance: float) -> float:
    """The chance that the exact test is significant, over all numbers of images on which the models disagree."""
    if discordant == 0:
        return 0.0

    from scipy.stats import binom

    counts, weights, most = _significant(num_images, discordant, significance)
    share_a = (discordant + difference) / (2 * discordant)
    shown = binom.cdf(most, counts, share_a) + binom.cdf(most, counts, 1 - share_a)
    return float(weights @ shown)


@lru_cache(maxsize=4)  # the search asks for most differences with the same share
def _significant(num_images: int, discordant: float, significance: float) -> tuple[NDArray[np.float64], ...]:
    """Numbers of disagreements, their probabilities, and the most that the weaker model may win to be shown weaker."""
    from scipy.stats import binom

    mean, deviation = num_images * discordant, np.sqrt(num_images * discordant * (1 - discordant))
    first, last = np.floor(mean - _SPREAD * deviation) - 1, np.ceil(mean + _SPREAD * deviation) + 1
    counts = np.arange(max(0, first), min(num_images, last) + 1, dtype=np.float64)
    # Below 0 where there are too few disagreements for any result to be significant.
    most = binom.ppf(significance / 2, counts, 0.5) - 1
    return counts, binom.pmf(counts, num_images, discordant), most


def _checked(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise DataError(
            f"The answers of two models of shapes {a.shape} and {b.shape} do not fit; "
            "give (images,) and (images,), for the same images, at least one"
        )
    if a.dtype != np.bool_ or b.dtype != np.bool_:
        raise DataError(f"Answers are of types {a.dtype} and {b.dtype}; give bool, whether each image is right")
    return a, b
