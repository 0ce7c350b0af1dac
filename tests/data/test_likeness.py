import numpy as np
import pytest
from photographs import photographs

from vitrail.data.likeness import unlikeness
from vitrail.data.thumbnails import make_thumbnails


def compare(first, second):
    images = make_thumbnails([np.stack([first, second])]).grey
    return float(unlikeness(images, np.array([0]), np.array([1]))[0])


@pytest.mark.parametrize("size", [32, 64])
def test_what_is_moved_scaled_and_brightened_is_alike(size):
    for image in photographs(5, size + 8):
        cut = image[4:-4, 4:-4]
        assert compare(cut, cut) < 1e-3
        assert compare(cut, image[4:-4, 5:-3]) < 0.2
        assert compare(cut, (cut * 0.8 + 20).astype(np.uint8)) < 0.01


def test_other_images_and_negatives_are_not():
    images = photographs(20, 32)
    first, second = np.triu_indices(20, 1)
    assert (unlikeness(make_thumbnails([images]).grey, first, second) > 0.5).all()
    assert compare(images[0], 255 - images[0]) == 1
    assert compare(images[0], images[0][:, ::-1]) > 0.5


def test_both_directions_count_the_same():
    images = photographs(6, 40)
    thumbnails = make_thumbnails([np.concatenate([images[:, 1:-1, 1:-1], images[:, 2:, 2:]])]).grey
    first = np.arange(6)
    np.testing.assert_array_equal(unlikeness(thumbnails, first, first + 6), unlikeness(thumbnails, first + 6, first))
