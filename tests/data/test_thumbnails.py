import numpy as np
import pytest
from PIL import Image

from vitrail.data.thumbnails import (
    KEPT_BYTES,
    KEPT_SIDE,
    kept_thumbnails,
    make_thumbnails,
    pack_thumbnails,
    rough,
    shrink,
    to_grey,
    unpack_thumbnails,
)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("shape", "side"), [((64, 48), 24), ((200, 300), 32), ((28, 28), 14), ((6, 9), 8)])
def test_the_side_is_half_of_the_shorter_one(shape, side):
    found = make_thumbnails([noise(3, *shape, 3)])
    assert found.grey.shape == (3, side, side)
    assert found.colour is not None
    assert found.colour.shape == (3, 8, 8, 2)
    assert make_thumbnails([noise(3, *shape, 1)]).colour is None


def test_shrinking_agrees_with_pillow():
    images = noise(4, 48, 64)
    expected = [np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)) for image in images]
    assert np.abs(shrink(images, 16) - np.stack(expected)).max() <= 1


def test_grey_agrees_with_pillow():
    images = noise(4, 8, 8, 3)
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
    assert np.abs(to_grey(images).astype(int) - np.stack(expected)).max() <= 1


def test_blocks_and_neighbours_make_no_difference_to_the_bit():
    images = noise(50, 37, 41, 3)
    whole, parts = make_thumbnails([images]), make_thumbnails([images[:7], images[7:8], images[8:]])
    backwards = make_thumbnails([images[::-1]])
    for found in (parts, backwards.take(np.arange(50)[::-1])):
        np.testing.assert_array_equal(found.grey, whole.grey)
        np.testing.assert_array_equal(found.colour, whole.colour)


def test_padding_told_by_the_last_channel_is_not_looked_at():
    images = noise(3, 32, 32, 3)
    masked = np.concatenate([images, noise(3, 32, 32, 1, seed=1)], axis=3)
    np.testing.assert_array_equal(make_thumbnails([masked]).grey, make_thumbnails([images]).grey)


def test_no_images_have_no_thumbnails():
    assert len(make_thumbnails([])) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_kept_comes_back(channels):
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 24, channels), dtype=np.uint8)
    made = make_thumbnails([images], KEPT_SIDE)
    packed = pack_thumbnails(made)
    assert packed.shape == (5, KEPT_BYTES)
    back = unpack_thumbnails(packed)
    np.testing.assert_array_equal(back.grey, made.grey)
    expected = 0 if made.colour is None else made.colour - made.colour % 2
    np.testing.assert_array_equal(back.colour, np.zeros((5, 8, 8, 2)) + expected)
    roughs = [rough(Image.fromarray(image if channels == 3 else image[..., 0])) for image in images]
    roughs.insert(2, noise(20, 30, channels))  # one of another size among them
    kept = kept_thumbnails(roughs)
    assert kept[:2] + kept[3:] == [row.tobytes() for row in packed]
    assert len(kept[2]) == KEPT_BYTES


def test_what_is_kept_of_a_large_image_is_nearly_that_of_a_small_one():
    smooth = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    large = Image.fromarray(smooth).resize((900, 700), Image.Resampling.BICUBIC)
    kept = kept_thumbnails([rough(large), rough(large.resize((300, 200), Image.Resampling.BICUBIC))])
    grey = [np.frombuffer(thumbnail, np.uint8)[: KEPT_SIDE**2].astype(int) for thumbnail in kept]
    assert np.abs(grey[0] - grey[1]).max() <= 3
