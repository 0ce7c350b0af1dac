import hashlib

import numpy as np

from vitrail.data.content import content_hash, content_hashes


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
