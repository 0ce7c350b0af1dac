"""Wilson intervals."""

import math

import numpy as np
import pytest

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import wilson_interval


def _written_out(successes: int, num_images: int, z: float) -> tuple[float, float]:
    share = successes / num_images
    denominator = 1 + z**2 / num_images
    centre = (share + z**2 / (2 * num_images)) / denominator
    half = z / denominator * math.sqrt(share * (1 - share) / num_images + z**2 / (4 * num_images**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@pytest.mark.parametrize(
    ("successes", "num_images"), [(0, 1), (1, 1), (0, 7), (7, 7), (3, 10), (9713, 10000), (999, 1000)]
)
@pytest.mark.parametrize(("confidence", "z"), [(0.95, 1.959963984540054), (0.99, 2.5758293035489004)])
def test_equals_the_formula(successes: int, num_images: int, confidence: float, z: float) -> None:
    expected = _written_out(successes, num_images, z)
    assert wilson_interval(successes, num_images, confidence) == pytest.approx(expected, abs=1e-12)


# Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score without continuity correction).
@pytest.mark.parametrize(
    ("successes", "num_images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_values(successes: int, num_images: int, low: float, high: float) -> None:
    assert wilson_interval(successes, num_images) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_covers_the_truth_about_as_often_as_promised(share: float) -> None:
    counts = np.random.default_rng(0).binomial(100, share, size=4000)
    intervals = {count: wilson_interval(int(count), 100) for count in np.unique(counts)}
    covered = np.mean([intervals[count][0] <= share <= intervals[count][1] for count in counts])
    assert 0.93 < covered < 0.98


def test_stays_within_the_possible_and_holds_the_share() -> None:
    for successes in range(31):
        low, high = wilson_interval(successes, 30)
        assert 0 <= low <= successes / 30 <= high <= 1
        assert (type(low), type(high)) == (float, float)
    assert wilson_interval(0, 30)[0] == 0
    assert wilson_interval(30, 30)[1] == 1


def test_narrows_with_more_images() -> None:
    widths = [high - low for low, high in (wilson_interval(9 * n, 10 * n) for n in (1, 10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)


def test_takes_counts_of_numpy() -> None:
    assert wilson_interval(np.int64(3), np.int64(10)) == wilson_interval(3, 10)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("successes", "num_images"), [(0, 0), (5, 4), (-1, 4)])
def test_refuses_impossible_counts(successes: int, num_images: int) -> None:
    with pytest.raises(DataError, match=r"num_images=0|successes="):
        wilson_interval(successes, num_images)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_refuses_impossible_confidence(confidence: float) -> None:
    with pytest.raises(ConfigError, match="confidence="):
        wilson_interval(1, 2, confidence)
