import numpy as np
import pytest

from vitrail.interpretation.norms import find_outliers


def lengths(spread: float = 0.2, layers: int = 6) -> np.ndarray:
    """Norms of 16 images of 49 patches, about 20 in the first layer and more in later ones, log-normal."""
    numbers = np.random.default_rng(0)
    scale = 20 * np.arange(1, layers + 1)[:, None, None]
    return scale * np.exp(numbers.normal(0, spread, (layers, 16, 49)))


def test_planted_outliers_are_found_where_they_are():
    norms = lengths()
    norms[4:, ::2, 10] *= 8  # in blocks 4 and 5, every other image has one
    found = find_outliers(norms)
    assert found.layers == (4, 5)
    np.testing.assert_allclose(found.shares, [0, 0, 0, 0, 8 / 784, 8 / 784])
    assert np.flatnonzero(found.places).tolist() == [10]
    assert found.places[10] == 0.5
    assert found.largest[5] > 5
    assert found.medians[0] == pytest.approx(20, rel=0.05)
    assert (found.thresholds >= 3 * found.medians).all()


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.35])
def test_lengths_that_merely_spread_are_none(spread):
    assert find_outliers(lengths(spread)).layers == ()


def test_two_kinds_of_patches_are_none():
    """Background of one length, and objects of another in every layer, as strokes on nothing are."""
    for times, part in ((2, 15), (7, 3)):
        norms = lengths(0.02)
        norms[:, :, :part] *= times
        found = find_outliers(norms)
        assert found.layers == ()
        assert not found.shares.any()


def test_early_layers_and_single_tokens_are_no_reason_to_warn():
    norms = lengths()
    norms[1, :, 3] *= 10
    norms[5, 0, 3] *= 10
    found = find_outliers(norms)
    assert found.layers == ()
    assert found.shares[1] > 0.02
    assert 0 < found.shares[5] < 0.005


def test_what_takes_no_part_is_left_out():
    norms = lengths()
    norms[4:, :, 10] *= 8
    padded = norms.copy()
    padded[:, :, 40:] = np.nan
    found = find_outliers(padded)
    assert found.shares[5] == pytest.approx(1 / 40)
    assert found.places[10] == 1
    assert not found.places[40:].any()
