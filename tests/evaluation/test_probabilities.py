"""Softmax, and the checks of logits and probabilities."""

import numpy as np
import pytest
import torch

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import softmax
from vitrail.evaluation.probabilities import checked_logits, checked_temperature, chunks, surest


def test_equals_torch() -> None:
    logits = np.random.default_rng(0).normal(0, 5, size=(7, 4))
    np.testing.assert_allclose(softmax(logits), torch.softmax(torch.from_numpy(logits), dim=1).numpy(), rtol=1e-12)


def test_softmax_is_float64_and_sums_to_one() -> None:
    probabilities = softmax(np.random.default_rng(0).normal(0, 30, size=(2, 5, 9)).astype(np.float32))
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-14)
    assert softmax([0.0, np.log(3)]) == pytest.approx([0.25, 0.75])


def test_huge_logits_are_safe() -> None:
    logits = np.array([[3e38, -3e38], [1e4, 0]], dtype=np.float32)
    assert softmax(logits).tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_logits_that_are_not_finite(bad: float) -> None:
    logits = np.zeros((10, 3))
    logits[2, 1] = bad
    with pytest.raises(DataError, match="1 of 30 logits are not finite"):
        softmax(logits)
    with pytest.raises(DataError, match="1 of 30 logits are not finite"):
        checked_logits(logits, np.zeros(10, dtype=np.int64), 3)


def test_surest_is_the_largest_probability_and_whether_it_is_right() -> None:
    confidence, correct = surest([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]], [0, 0, 0])
    assert confidence.tolist() == [0.9, 0.6, 0.5]
    assert correct.tolist() == [True, False, True]  # of equal ones the first


def test_checked_logits_stay_as_they_are() -> None:
    logits = np.zeros((2, 3), dtype=np.float16)
    scores, labels = checked_logits(logits, [0, 2], 3)
    assert scores is logits
    assert (labels.dtype, labels.tolist()) == (np.int64, [0, 2])


@pytest.mark.parametrize(("most", "num_parts"), [(1, 5), (6, 3), (100, 1)])
def test_chunks_are_all_rows_in_order(monkeypatch: pytest.MonkeyPatch, most: int, num_parts: int) -> None:
    monkeypatch.setattr("vitrail.evaluation.probabilities._CHUNK_LOGITS", most)
    logits = np.arange(15, dtype=np.float16).reshape(5, 3)
    parts = list(chunks(logits))
    assert len(parts) == num_parts
    np.testing.assert_array_equal(np.concatenate([values for _, values in parts]), logits)
    for part, values in parts:
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, logits[part])
        values += 1  # a copy: the caller may change it
    assert logits[0, 0] == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_impossible_temperatures(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature="):
        checked_temperature(temperature)
