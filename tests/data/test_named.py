import numpy as np
from sklearn.datasets import load_digits

from vitrail.data.named import NAMED, read_digits


def test_digits_are_scikit_learns_scaled_to_255():
    theirs, images = load_digits(), read_digits()
    assert images.pixels.shape == (1797, 8, 8, 1)
    expected = np.array([round(value * 255 / 16) for value in range(17)])[theirs.images.astype(int)]
    np.testing.assert_array_equal(images.pixels[..., 0], expected)
    np.testing.assert_array_equal(images.labels, theirs.target)
    assert images.labels.dtype == np.int64
    assert (images.pixels.min(), images.pixels.max()) == (0, 255)
    assert images.names[0] == "all/00000"


def test_the_table_names_these_sets_and_ten_classes():
    assert list(NAMED) == ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"]
    for name in ("digits", "mnist", "fashion_mnist", "cifar10"):
        assert len(set(NAMED[name].classes)) == 10
