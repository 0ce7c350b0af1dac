import logging

import numpy as np
import pytest

from vitrail.data import near_copies as module
from vitrail.data.cache_entries import list_entries
from vitrail.data.dataset import ImageSet
from vitrail.data.named import read_digits
from vitrail.data.near_copies import near_copies
from vitrail.data.near_duplicates import near_thumbnails


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


def image_set(count=20, seed=0, side=24):
    """Noise of 4 x 4 in large pixels, the last one a little darker copy of the first."""
    rough = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1))
    pixels = rough.repeat(side // 4, 1).repeat(side // 4, 2)
    pixels[-1] = pixels[0] * 0.95
    return ImageSet(pixels.astype(np.uint8), np.zeros(count, np.int64), tuple(map(str, range(count))))


def test_near_copies_have_one_number_over_all_sets():
    first, second = image_set(), image_set(seed=1)
    numbers = near_copies("small", [first, second])
    assert numbers[0] == numbers[19]
    assert numbers[20] == numbers[39]
    assert len({*numbers.tolist()}) == 38


def test_sizes_of_models_make_no_difference():
    small, large = near_copies("small", [image_set(side=16)]), near_copies("small", [image_set(side=64)])
    np.testing.assert_array_equal(small, large)


def test_what_was_found_is_kept(monkeypatch):
    images = image_set()
    before = near_copies("small", [images])
    assert [entry.source for entry in list_entries()] == ["near copies in small"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "near_thumbnails", None)
        np.testing.assert_array_equal(near_copies("small", [images]), before)
        with pytest.raises(TypeError, match="not callable"):
            near_copies("small", [image_set(seed=1)])
    for damage in ("", "{}", '{"pairs": [[0, 99]]}', '{"pairs": 3}'):
        (list_entries()[-1].folder / "index.json").write_text(damage, encoding="utf-8")
        np.testing.assert_array_equal(near_copies("small", [images]), before)


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path):
    (tmp_path / "cache").write_bytes(b"")
    assert near_copies("small", [image_set()]) is not None


def test_large_sets_of_like_images_are_not_searched(monkeypatch, caplog):
    images = read_digits().take(np.arange(300))
    monkeypatch.setattr(module, "LARGE", 100)
    sampled = []

    def watched(thumbnails):
        sampled.append(len(thumbnails))
        return near_thumbnails(thumbnails)

    monkeypatch.setattr(module, "near_thumbnails", watched)
    monkeypatch.setattr(module, "NUM_SAMPLED", 200)
    with caplog.at_level(logging.INFO, "vitrail"):
        assert near_copies("digits", [images]) is None
    assert sampled == [200]
    assert caplog.messages == [
        "Images of digits look alike by nature: equal ones are looked for, nearly equal ones not"
    ]


def test_one_image_alone_has_no_copies():
    assert near_copies("small", [image_set(count=1)]) is None
