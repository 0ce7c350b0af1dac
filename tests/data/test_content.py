import hashlib

import numpy as np
from PIL import Image

from vitrail.data.content import content_hash, content_hashes, thumbnails


def test_a_hash_is_of_shape_and_pixels():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3, 1)
    expected = hashlib.sha256(b"(4, 3, 1)" + pixels[1].tobytes()).hexdigest()
    assert content_hashes(pixels)[1] == expected
    assert content_hash(pixels[1, :, :, 0]) == expected  # grey with or without a channel
    assert content_hash(pixels[1].reshape(3, 4, 1)) != expected
    assert content_hash(np.asfortranarray(pixels[1])) == expected


def test_one_bit_changes_a_hash():
    pixels = np.zeros((1, 5, 5, 3), np.uint8)
    before = content_hashes(pixels)
    pixels[0, 4, 4, 2] ^= 1
    assert content_hashes(pixels) != before


def test_thumbnails_are_means_of_equal_areas():
    numbers = np.random.default_rng(0)
    even = numbers.integers(0, 256, (3, 32, 48, 1), dtype=np.uint8)
    means = even[..., 0].reshape(3, 16, 2, 16, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(thumbnails(even), means, atol=0.51)
    np.testing.assert_array_equal(thumbnails(even), thumbnails(even[..., 0]))
    for size in ((33, 50), (8, 8), (5, 301)):
        image = numbers.integers(0, 256, (*size, 3), dtype=np.uint8)
        grey = Image.fromarray(image).convert("L")
        box = grey.resize((16 * size[1], 16 * size[0]), Image.Resampling.NEAREST).resize((16, 16), Image.Resampling.BOX)
        np.testing.assert_allclose(thumbnails(image[None])[0], np.asarray(box), atol=1.6)
    flat = np.full((1, 7, 19, 3), 93, np.uint8)
    assert (thumbnails(flat) == 93).all()
