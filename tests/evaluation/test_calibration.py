"""Expected calibration error."""

import numpy as np
import pytest

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import expected_calibration_error


def _looped(probabilities: np.ndarray, labels: np.ndarray, num_bins: int) -> float:
    """Equation 3 of Guo et al. 2017, bin by bin and image by image."""
    error = 0.0
    for bin_index in range(num_bins):
        low, high = np.linspace(0, 1, num_bins + 1)[bin_index : bin_index + 2]
        confidences, hits = [], []
        for row, label in zip(probabilities, labels, strict=True):
            if low < row.max() <= high:
                confidences.append(row.max())
                hits.append(row.argmax() == label)
        if hits:
            error += len(hits) / len(labels) * abs(np.mean(hits) - np.mean(confidences))
    return error


def test_by_hand() -> None:
    # Bin (0.5, 1]: confidences 0.9 0.7 0.6, of which two are right: |2/3 - 2.2/3| * 3/4. Bin (0, 0.5]: 0.5, right.
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.5, 0.5]])
    labels = np.array([0, 1, 1, 0])
    assert expected_calibration_error(probabilities, labels, num_bins=2) == pytest.approx(0.05 + 0.125)


@pytest.mark.parametrize("num_bins", [1, 5, 10, 15, 100])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_equals_the_loop(num_bins: int, num_classes: int) -> None:
    rng = np.random.default_rng(num_bins)
    probabilities = rng.dirichlet(np.full(num_classes, 0.5), size=150)
    probabilities[:40] = np.round(probabilities[:40], 1)  # onto the edges of bins
    probabilities[:40, 0] += 1 - probabilities[:40].sum(axis=1)
    probabilities = np.abs(probabilities) / np.abs(probabilities).sum(axis=1, keepdims=True)
    labels = rng.integers(0, num_classes, size=150)
    expected = _looped(probabilities, labels, num_bins)
    assert expected_calibration_error(probabilities, labels, num_bins) == pytest.approx(expected, abs=1e-12)


def test_extremes() -> None:
    certain = np.eye(3)[[0, 1, 2, 0]]
    assert expected_calibration_error(certain, np.array([0, 1, 2, 0])) == 0
    assert expected_calibration_error(certain, np.array([1, 2, 0, 1])) == 1


def test_small_for_labels_drawn_from_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), size=20_000)
    labels = (probabilities.cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    overconfident = probabilities**3 / (probabilities**3).sum(axis=1, keepdims=True)
    assert expected_calibration_error(probabilities, labels) < 0.02
    assert expected_calibration_error(overconfident, labels) > 0.1


def test_takes_half_precision() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(10), size=50)
    labels = rng.integers(0, 10, size=50)
    half = expected_calibration_error(probabilities.astype(np.float16), labels)
    assert half == pytest.approx(expected_calibration_error(probabilities, labels), abs=0.02)


@pytest.mark.parametrize("rows", [[[2.0, -1.0]], [[0.2, 0.2]], [[float("nan"), 1.0]], [[3.0, 5.0]]])
def test_refuses_what_are_no_probabilities(rows: list[list[float]]) -> None:
    with pytest.raises(DataError, match="softmax"):
        expected_calibration_error(rows, [0])


@pytest.mark.parametrize(("shape", "num_labels"), [((0, 3), 0), ((2, 3), 3), ((3,), 3)])
def test_refuses_shapes_that_do_not_fit(shape: tuple[int, ...], num_labels: int) -> None:
    with pytest.raises(DataError, match="do not fit"):
        expected_calibration_error(np.full(shape, 1 / 3), np.zeros(num_labels, dtype=np.int64))


def test_refuses_no_bins() -> None:
    with pytest.raises(ConfigError, match="num_bins=0"):
        expected_calibration_error([[1.0]], [0], num_bins=0)
