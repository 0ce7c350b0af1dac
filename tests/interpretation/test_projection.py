import numpy as np
import pytest
from sklearn.decomposition import PCA

from vitrail.errors import DataError
from vitrail.interpretation.projection import principal_components


@pytest.mark.parametrize("shape", [(60, 12), (12, 60)])
def test_as_scikit_learn_has_it(shape):
    numbers = np.random.default_rng(0)
    vectors = numbers.normal(size=shape) * np.linspace(1, 3, shape[1]) + 5
    expected = PCA(4, svd_solver="full").fit(vectors)
    found = principal_components(vectors.astype(np.float64), 4)
    np.testing.assert_allclose(found.explained, expected.explained_variance_ratio_, rtol=1e-9)
    signs = np.sign((found.directions * expected.components_).sum(axis=1))
    np.testing.assert_allclose(found.directions, signs[:, None] * expected.components_, atol=1e-7)
    np.testing.assert_allclose(found.points, signs * expected.transform(vectors), atol=1e-7)
    np.testing.assert_allclose(found.mean, expected.mean_)
    largest = np.abs(found.directions).argmax(axis=1)
    assert (found.directions[np.arange(4), largest] > 0).all()


def test_no_more_components_than_there_are():
    vectors = np.random.default_rng(0).normal(size=(3, 5))
    found = principal_components(vectors, 9)
    assert (found.directions.shape, found.points.shape) == ((2, 5), (3, 2))
    assert found.explained.sum() == pytest.approx(1)


def test_equal_vectors_have_no_variance_to_explain():
    found = principal_components(np.ones((4, 3)), 2)
    assert found.explained.tolist() == [0, 0]
    assert not found.points.any()


@pytest.mark.parametrize("vectors", [np.zeros((1, 3)), np.zeros(3), np.zeros((4, 0))])
def test_too_few(vectors):
    with pytest.raises(DataError, match=r"have no principal components; give \(vectors, width\), two or more$"):
        principal_components(vectors, 2)


def test_values_that_are_not_finite():
    with pytest.raises(DataError, match="the model that made them is damaged"):
        principal_components(np.array([[1.0, np.nan], [0, 1]]), 1)
