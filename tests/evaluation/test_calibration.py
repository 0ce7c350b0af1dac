"""Expected calibration error, reliability bins, and the temperature."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import (
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    softmax,
    validated_temperature,
)
from vitrail.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE


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


@pytest.mark.parametrize("num_bins", [5, 15])
def test_equals_torchmetrics(num_bins: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(7, 0.3), size=500)
    labels = rng.integers(0, 7, size=500)
    theirs = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=7, n_bins=num_bins, norm="l1"
    )
    assert expected_calibration_error(probabilities, labels, num_bins) == pytest.approx(theirs.item(), abs=1e-6)


def test_reliability_bins_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.5, 0.5]])
    bins = reliability_bins(probabilities, np.array([0, 1, 1, 0]), num_bins=4)
    assert bins.images.tolist() == [0, 1, 2, 1]
    assert bins.confidence == pytest.approx([np.nan, 0.5, 0.65, 0.9], nan_ok=True)
    assert bins.accuracy == pytest.approx([np.nan, 1, 0.5, 1], nan_ok=True)


def test_reliability_bins_are_those_of_the_error() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(4), size=200), rng.integers(0, 4, size=200)
    bins = reliability_bins(probabilities, labels)
    gaps = np.nan_to_num(np.abs(bins.confidence - bins.accuracy)) * bins.images / 200
    assert gaps.sum() == pytest.approx(expected_calibration_error(probabilities, labels))


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
    with pytest.raises(ConfigError, match="num_bins=0"):
        reliability_bins([[1.0]], [0], num_bins=0)


def _overconfident(num_images: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that would be calibrated after division by `temperature`, and labels."""
    rng = np.random.default_rng(seed)
    calibrated = rng.normal(0, 2, size=(num_images, 5))
    labels = (softmax(calibrated).cumsum(axis=1) < rng.random((num_images, 1))).sum(axis=1)
    return (temperature * calibrated).astype(np.float32), labels


def _loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double() / temperature, torch.from_numpy(labels)
    ).item()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_equals_the_best_of_a_fine_grid(temperature: float) -> None:
    logits, labels = _overconfident(400, temperature)
    grid = np.exp(np.linspace(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE), 3001))
    best = grid[np.argmin([_loss(logits, labels, value) for value in grid])]
    assert fit_temperature(logits, labels) == pytest.approx(best, rel=0.0011)  # half a step of the grid


def test_temperature_equals_lbfgs() -> None:
    logits, labels = _overconfident(400, 2.5)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        scaled = torch.from_numpy(logits).double() / log_temperature.exp()
        loss = torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels))
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    assert fit_temperature(logits, labels) == pytest.approx(log_temperature.exp().item(), rel=1e-4)


def test_temperature_is_found_and_mends_calibration() -> None:
    logits, labels = _overconfident(20_000, 3.0)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(3, rel=0.03)
    before, after = (expected_calibration_error(softmax(logits / value), labels) for value in (1, temperature))
    assert after < 0.02 < 0.1 < before


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1e-3, 0.3, 30.0, 1e30])
def test_temperature_is_within_its_bounds_and_never_worse_than_one(seed: int, scale: float) -> None:
    logits, labels = _overconfident(12, scale, seed)
    temperature = fit_temperature(logits, labels)
    assert MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
    assert _loss(logits, labels, temperature) <= _loss(logits, labels, 1.0) * (1 + 1e-12)


def test_temperature_is_one_where_nothing_is_wrong() -> None:
    labels = np.array([0, 1, 2, 1])
    assert fit_temperature(3 * np.eye(3)[labels], labels) == 1
    assert fit_temperature([[1.0, 1.0], [0.0, 2.0]], [1, 1]) == 1  # a tie is no mistake
    assert fit_temperature([[2.0], [3.0]], [0, 0]) == 1


def test_temperature_is_highest_where_everything_is_wrong() -> None:
    labels = np.array([0, 1, 2, 1])
    assert fit_temperature(-3 * np.eye(3)[labels], labels) == pytest.approx(MAX_TEMPERATURE, rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3)), [0], "do not fit"),
        (np.zeros(3), [0, 1, 2], "do not fit"),
        (np.zeros((0, 3)), np.zeros(0, dtype=np.int64), "no images"),
        (np.zeros((2, 3)), [0, 3], "Label 3"),
        ([[np.nan, 0.0]], [0], "not finite"),
    ],
)
def test_temperature_refuses_what_does_not_fit(logits: np.ndarray, labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_temperature(logits, labels)


def test_a_temperature_of_few_images_must_help_on_others() -> None:
    """Of 20 images of a model that is calibrated already, a temperature is fitted to chance; most such are refused."""
    losses = {"fitted": 0.0, "validated": 0.0}
    for seed in range(40):
        numbers = np.random.default_rng(seed)
        logits = 2 * numbers.normal(size=(400, 4))
        labels = np.array([numbers.choice(4, p=row) for row in softmax(logits)])
        few = slice(0, 20)
        for name, fit in (("fitted", fit_temperature), ("validated", validated_temperature)):
            scaled = logits[20:] / fit(logits[few], labels[few])
            losses[name] -= np.log(softmax(scaled)[np.arange(380), labels[20:]]).mean() / 40
    assert losses["validated"] < losses["fitted"] - 0.005


def test_a_temperature_of_many_images_is_the_fitted_one() -> None:
    numbers = np.random.default_rng(0)
    logits = numbers.normal(size=(400, 4))
    labels = np.array([numbers.choice(4, p=row) for row in softmax(logits)])
    assert validated_temperature(3 * logits, labels) == fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.3)
    assert validated_temperature(3 * logits[:8], labels[:8]) == 1  # too few to divide
