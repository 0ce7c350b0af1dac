"""Accuracy against coverage, and the reject threshold, held equal to trying every threshold."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import accuracy_coverage_curve, reject_threshold, wilson_interval
from vitrail.evaluation.coverage import answered_curve, answered_metrics, listed_points

# Few different values, so that many are equal; 1, which no threshold may be below; neighbours with no number between.
CONFIDENCES = st.sampled_from([0.5, math.nextafter(0.5, 1), 0.6, 0.7, 0.75, 0.9, math.nextafter(1, 0), 1.0])
IMAGES = st.lists(st.tuples(CONFIDENCES, st.booleans()), min_size=1, max_size=30)


def _arrays(images: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of two classes, the first with at least a half, and labels."""
    confidence = np.array([value for value, _ in images])
    return np.stack([confidence, 1 - confidence], axis=1), np.array([0 if right else 1 for _, right in images])


def _answered(images: list[tuple[float, bool]], threshold: float) -> tuple[int, int]:
    rights = [right for value, right in images if value > threshold]
    return len(rights), sum(rights)


@settings(deadline=None)
@given(IMAGES)
def test_curve_equals_answering_image_by_image(images: list[tuple[float, bool]]) -> None:
    curve = accuracy_coverage_curve(*_arrays(images))
    assert len(curve.coverage) == len({value for value, _ in images})
    assert (curve.coverage[0], curve.threshold[0]) == (1, 0)
    assert (np.diff(curve.coverage) < 0).all()
    assert (np.diff(curve.threshold) > 0).all()
    for coverage, accuracy, threshold in zip(*curve, strict=True):
        answered, rights = _answered(images, threshold)
        assert (answered / len(images), rights / answered) == (coverage, accuracy)


@settings(deadline=None)
@given(IMAGES, st.sampled_from([0.5, 0.75, 0.9, 0.95, 1.0]))
def test_threshold_equals_trying_all(images: list[tuple[float, bool]], accuracy: float) -> None:
    threshold, coverage = reject_threshold(*_arrays(images), accuracy)
    answered, rights = _answered(images, threshold)
    assert answered / len(images) == coverage
    # Every set of images that some threshold answers, the largest first.
    tried = [_answered(images, value) for value in [0.0, *sorted({value for value, _ in images})]]
    reached = [count for count, hits in tried if count and hits / count >= accuracy]
    assert answered == max(reached, default=0)
    if answered:
        assert rights / answered >= accuracy
    else:
        assert (threshold, coverage) == (1, 0)


def test_by_hand() -> None:
    # Surest first: right, right, wrong, right, wrong.
    images = [(0.95, True), (0.9, True), (0.8, False), (0.7, True), (0.6, False)]
    probabilities, labels = _arrays(images)
    curve = accuracy_coverage_curve(probabilities, labels)
    assert curve.coverage.tolist() == [1, 0.8, 0.6, 0.4, 0.2]
    assert curve.accuracy.tolist() == [3 / 5, 3 / 4, 2 / 3, 1, 1]
    assert curve.threshold == pytest.approx([0, 0.65, 0.75, 0.85, 0.925])
    assert reject_threshold(probabilities, labels, 0.6) == (0, 1)
    assert reject_threshold(probabilities, labels, 0.7) == pytest.approx((0.65, 0.8))
    assert reject_threshold(probabilities, labels) == pytest.approx((0.85, 0.4))
    assert reject_threshold(probabilities, 1 - labels) == pytest.approx((1, 0))  # the surest are wrong


def test_exactly_the_accuracy_is_enough() -> None:
    images = [(0.9, index > 0) for index in range(20)]
    assert reject_threshold(*_arrays(images), 0.95) == (0, 1)
    assert reject_threshold(*_arrays(images), 0.951) == (1, 0)


def test_certainty_can_be_answered() -> None:
    threshold, coverage = reject_threshold(*_arrays([(1.0, True), (math.nextafter(1, 0), False)]))
    assert threshold < 1
    assert coverage == 0.5


def test_does_not_depend_on_the_order_of_images() -> None:
    rng = np.random.default_rng(0)
    images = [(float(np.round(value, 2)), bool(right)) for value, right in zip(
        rng.uniform(0.5, 1, 300), rng.random(300) < 0.8, strict=True
    )]  # fmt: skip
    first = accuracy_coverage_curve(*_arrays(images))
    second = accuracy_coverage_curve(*_arrays(images[::-1]))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_listed_points_are_on_the_curve_and_few() -> None:
    rng = np.random.default_rng(0)
    curve = answered_curve(rng.uniform(0.3, 1, 1000), rng.random(1000) < 0.9)
    points = listed_points(curve)
    assert [point["coverage"] for point in points] == pytest.approx(np.arange(20, 0, -1) / 20)
    everything = list(zip(*(column.tolist() for column in curve), strict=True))
    assert all((point["coverage"], point["accuracy"], point["threshold"]) in everything for point in points)
    assert json.loads(json.dumps(points)) == points


def test_listed_points_of_few_images_are_listed_once() -> None:
    curve = answered_curve(np.array([0.9, 0.8, 0.7]), np.array([True, True, False]))
    assert [point["coverage"] for point in listed_points(curve)] == pytest.approx([1, 2 / 3, 1 / 3])
    assert len(listed_points(answered_curve(np.array([0.5, 0.5]), np.array([True, False])))) == 1


def test_answered_images_have_their_own_interval() -> None:
    confidence, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert answered_metrics(confidence, correct, 0.7) == {
        "images": 2, "coverage": 0.5, "accuracy": 0.5, "accuracy_ci95": list(wilson_interval(1, 2))
    }  # fmt: skip
    assert answered_metrics(confidence, correct, 1.0) == {
        "images": 0, "coverage": 0.0, "accuracy": None, "accuracy_ci95": None
    }  # fmt: skip


@pytest.mark.parametrize("accuracy", [0.0, -1.0, 1.01, 95.0, math.nan])
def test_refuses_impossible_accuracies(accuracy: float) -> None:
    with pytest.raises(ConfigError, match="accuracy="):
        reject_threshold([[1.0]], [0], accuracy)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_refuses_impossible_thresholds(threshold: float) -> None:
    with pytest.raises(ConfigError, match="reject_threshold="):
        answered_metrics(np.array([0.5]), np.array([True]), threshold)


@pytest.mark.parametrize(("shape", "num_labels"), [((0, 3), 0), ((2, 3), 3), ((3,), 3)])
def test_refuses_shapes_that_do_not_fit(shape: tuple[int, ...], num_labels: int) -> None:
    with pytest.raises(DataError, match="do not fit"):
        accuracy_coverage_curve(np.full(shape, 1 / 3), np.zeros(num_labels, dtype=np.int64))
    with pytest.raises(DataError, match="do not fit"):
        reject_threshold(np.full(shape, 1 / 3), np.zeros(num_labels, dtype=np.int64))
