import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.interpretation.similarity import layer_similarity, linear_cka


def tokens(number: int = 60, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(number, width))


def rotation(width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(1).normal(size=(width, width)))[0]


def test_a_layer_is_like_itself_however_turned_scaled_and_moved():
    own = tokens()
    assert linear_cka(own, own) == pytest.approx(1, abs=1e-12)
    assert linear_cka(own, 7 * own @ rotation(8) + 3) == pytest.approx(1, abs=1e-9)
    assert linear_cka(own, own * np.array([1, 10, 1, 1, 1, 1, 1, 1])) < 0.9  # stretched along one axis


def test_other_layers_stay_as_alike_when_one_is_turned_and_scaled():
    own = tokens()
    other = np.tanh(own @ np.random.default_rng(2).normal(size=(8, 5)))
    expected = linear_cka(own, other)
    assert 0.2 < expected < 0.95
    assert linear_cka(0.01 * own @ rotation(8), other) == pytest.approx(expected, abs=1e-9)
    assert linear_cka(other, own) == pytest.approx(expected, abs=1e-12)


def test_noise_is_like_nothing_even_where_it_is_wide():
    found = linear_cka(tokens(100, 100), tokens(100, 100, seed=1))
    assert abs(found) < 0.1


def test_of_many_tokens_it_is_what_the_paper_has():
    own = tokens(2000, 4)
    other = own @ np.random.default_rng(2).normal(size=(4, 6)) + tokens(2000, 6, seed=3)
    x, y = own - own.mean(axis=0), other - other.mean(axis=0)
    paper = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert linear_cka(own, other) == pytest.approx(paper, abs=2e-3)


def test_the_unbiased_estimate_by_its_definition():
    own, other = tokens(9, 3), tokens(9, 4, seed=1)

    def hsic(a, b):
        k, m = a @ a.T, b @ b.T
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        n, one = len(a), np.ones(len(a))
        middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ m) + middle - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    expected = hsic(own, other) / np.sqrt(hsic(own, own) * hsic(other, other))
    assert linear_cka(own, other) == pytest.approx(expected, abs=1e-10)


def test_all_layers_at_once():
    layers = [tokens(30, 5), tokens(30, 7, seed=1), tokens(30, 2, seed=2)]
    found = layer_similarity(layers)
    np.testing.assert_allclose(found, found.T)
    assert found.diagonal().tolist() == [1, 1, 1]
    assert found[0, 2] == pytest.approx(linear_cka(layers[0], layers[2]), abs=1e-12)


def test_a_layer_that_says_nothing():
    found = layer_similarity([tokens(), np.ones((60, 3))])
    assert np.isfinite(found).all()
    assert abs(found[0, 1]) < 1e-6


def test_tokens_that_do_not_fit():
    with pytest.raises(
        DataError, match=r"Layers of \[30, 60\] tokens cannot be compared; give the same 4 or more of each"
    ):
        linear_cka(tokens(), tokens(30))
    with pytest.raises(DataError, match="4 or more"):
        linear_cka(tokens(3), tokens(3))
