"""Wilson intervals, and intervals from resampled images."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import confusion_matrix

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import bootstrap_confusions, wilson_interval
from vitrail.evaluation.intervals import ClassCounts, bootstrap_mean, percentile_interval


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


def test_equals_scipy() -> None:
    for successes, num_images in [(0, 5), (5, 5), (2, 9), (297, 372), (9_500, 10_000)]:
        theirs = binomtest(successes, num_images).proportion_ci(0.95, method="wilson")
        assert wilson_interval(successes, num_images) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


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


def _case(num_images: int, num_classes: int, accuracy: float = 0.7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal classes, and predictions."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.5, num_images) - 1, num_classes - 1)
    return labels, np.where(rng.random(num_images) < accuracy, labels, rng.integers(0, num_classes, num_images))


def _gathered(labels: np.ndarray, predictions: np.ndarray, num_classes: int, **settings) -> ClassCounts:
    batches = list(bootstrap_confusions(labels, predictions, num_classes, **settings))
    return ClassCounts(*(np.concatenate(column) for column in zip(*batches, strict=True)))


def _accuracy(counts: ClassCounts) -> np.ndarray:
    return counts.hits.sum(axis=-1) / counts.images.sum(axis=-1)


def _balanced_accuracy(counts: ClassCounts) -> np.ndarray:
    recalls = np.where(counts.images > 0, counts.hits / np.maximum(counts.images, 1), np.nan)
    return np.nanmean(recalls, axis=-1)


def _mean_recall(labels: np.ndarray, predictions: np.ndarray) -> float:
    return float(np.mean([(predictions[labels == label] == label).mean() for label in np.unique(labels)]))


def test_bootstrap_equals_scipy() -> None:
    labels, predictions = _case(120, 3)
    ours = _gathered(labels, predictions, 3, num_samples=20_000, seed=1)

    def compare(statistic, samples: np.ndarray) -> None:
        theirs = bootstrap(
            (labels, predictions),
            statistic,
            paired=True,
            vectorized=False,
            n_resamples=3000,
            method="percentile",
            rng=np.random.default_rng(2),
        )
        assert samples.std() == pytest.approx(theirs.standard_error, rel=0.06)
        # An end of theirs has a standard error of about a twentieth of the samples' deviation; one image is 1/120.
        interval = theirs.confidence_interval
        assert percentile_interval(samples) == pytest.approx((interval.low, interval.high), abs=0.2 * samples.std())

    compare(lambda labels, predictions: (labels == predictions).mean(), _accuracy(ours))
    compare(_mean_recall, _balanced_accuracy(ours))


def test_samples_are_confusions_of_as_many_images() -> None:
    labels, predictions = _case(200, 4)
    counts = _gathered(labels, predictions, 4, num_samples=4000)
    confusion = confusion_matrix(labels, predictions)
    for column, expected in zip(
        counts, (confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)), strict=True
    ):
        assert column.shape == (4000, 4)
        # Means of 4,000 samples, whose deviation is at most the root of the count.
        assert np.abs(column.mean(axis=0) - expected).max() < 5 * math.sqrt(200 / 4000)
    assert (counts.images.sum(axis=1) == 200).all()
    assert (counts.predicted.sum(axis=1) == 200).all()
    assert (counts.hits <= np.minimum(counts.images, counts.predicted)).all()


def test_bootstrap_is_seeded_and_blind_to_the_order_of_images() -> None:
    labels, predictions = _case(80, 4)
    order = np.random.default_rng(1).permutation(80)
    groups = np.arange(80) // 4
    for settings in ({}, {"groups": groups}):
        turned = {key: value[order] for key, value in settings.items()}
        first = _gathered(labels, predictions, 4, num_samples=50, seed=7, **settings)
        second = _gathered(labels[order], predictions[order], 4, num_samples=50, seed=7, **turned)
        other = _gathered(labels, predictions, 4, num_samples=50, seed=8, **settings)
        assert all((a == b).all() for a, b in zip(first, second, strict=True))
        assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_batches_hold_all_samples_in_bounded_memory() -> None:
    labels = np.arange(1000)
    batches = list(bootstrap_confusions(labels, labels, 1000, num_samples=2000))
    assert len(batches) > 1
    assert sum(len(batch.hits) for batch in batches) == 2000
    assert all(batch.hits.size <= 2**21 for batch in batches)


def test_a_group_per_image_equals_no_groups() -> None:
    labels, predictions = _case(300, 4)
    names = [f"object {index}" for index in np.random.default_rng(0).permutation(300)]
    first = _gathered(labels, predictions, 4, num_samples=100)
    second = _gathered(labels, predictions, 4, num_samples=100, groups=names)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_groups_that_agree_widen_the_interval() -> None:
    labels, predictions = (np.repeat(column, 10) for column in _case(50, 3))
    groups = np.repeat(np.arange(50), 10)
    alone, together = (
        _accuracy(_gathered(labels, predictions, 3, **settings)) for settings in ({}, {"groups": groups})
    )
    # Ten images that agree are worth one.
    assert together.std() == pytest.approx(math.sqrt(10) * alone.std(), rel=0.1)


def test_groups_equal_drawing_them_by_hand() -> None:
    labels, predictions = _case(60, 3)
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, size=60)  # of unequal size
    names = np.unique(groups)
    by_hand = []
    for _ in range(4000):
        drawn = np.concatenate([np.flatnonzero(groups == name) for name in rng.choice(names, len(names))])
        by_hand.append(_mean_recall(labels[drawn], predictions[drawn]))
    ours = _balanced_accuracy(_gathered(labels, predictions, 3, num_samples=4000, groups=groups))
    assert ours.mean() == pytest.approx(np.mean(by_hand), abs=0.1 * ours.std())
    assert ours.std() == pytest.approx(np.std(by_hand), rel=0.06)


def test_mean_equals_the_bootstrap_of_confusions() -> None:
    labels, predictions = _case(60, 2)
    values = (labels == predictions).astype(np.int64) - 1
    groups = np.arange(60) // 3
    for settings in ({}, {"groups": groups}):
        means = bootstrap_mean(values, 4000, 0, **settings)
        accuracies = _accuracy(_gathered(labels, predictions, 2, num_samples=4000, **settings)) - 1
        assert means.mean() == pytest.approx(accuracies.mean(), abs=0.1 * means.std())
        assert means.std() == pytest.approx(accuracies.std(), rel=0.06)


@pytest.mark.parametrize(("num_images", "accuracy"), [(372, 0.8), (10_000, 0.95)])
def test_intervals_cover_the_truth_in_2000_repeats(num_images: int, accuracy: float) -> None:
    repeats = np.random.default_rng(0).binomial(num_images, accuracy, size=2000)
    covered = {"wilson": 0, "bootstrap": 0}
    for count, times in zip(*np.unique(repeats, return_counts=True), strict=True):
        labels = np.zeros(num_images, dtype=np.int64)
        predictions = (np.arange(num_images) >= count).astype(np.int64)
        samples = _accuracy(_gathered(labels, predictions, 2, seed=int(count)))
        intervals = {"wilson": wilson_interval(int(count), num_images), "bootstrap": percentile_interval(samples)}
        for name, (low, high) in intervals.items():
            covered[name] += int(times) * (low <= accuracy <= high)
    for name, times in covered.items():
        assert 0.93 <= times / 2000 <= 0.97, name


def test_percentile_interval_is_the_middle() -> None:
    assert percentile_interval(np.arange(1001), 0.9) == pytest.approx((50, 950))
    assert percentile_interval(np.arange(1001)) == pytest.approx((25, 975))
    with pytest.raises(ConfigError, match="confidence=95"):
        percentile_interval([1.0], 95)


@pytest.mark.parametrize(
    ("labels", "predictions", "groups", "message"),
    [
        ([0, 1], [0], None, "do not fit"),
        ([], [], None, "at least one"),
        ([[0]], [[0]], None, "do not fit"),
        ([0, 1], [0, 1], [7], "do not fit 2 images"),
        ([0, 2], [0, 1], None, "from 0 to 2 are not of 2 classes"),
        ([0, 1], [0, -1], None, "from -1 to 1 are not of 2 classes"),
    ],
)
def test_bootstrap_refuses_what_does_not_fit(labels: list, predictions: list, groups: list | None, message: str):
    with pytest.raises(DataError, match=message):
        bootstrap_confusions(labels, predictions, 2, groups=groups)


def test_bootstrap_refuses_no_samples() -> None:
    with pytest.raises(ConfigError, match="num_samples=0"):
        bootstrap_confusions([0], [0], 1, num_samples=0)
