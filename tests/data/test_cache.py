import json
import os

import numpy as np
import pytest

from vitrail.data.cache import Entry, ImageCache, stamp_of
from vitrail.data.preprocess import Preprocess

SIZE = Preprocess(image_size=(4, 6), channels=3, fit="pad")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """What two readable files and a broken one leave in the cache."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache dir"))
    entries = {
        "a.png": Entry((1, 2, 3), "aa", (40, 60, 3)),
        "caf\udce9.png": Entry((4, 5, 6), None, None, "it is empty"),
        "b.png": Entry((7, 8, 9), "bb", (44, 66, 1)),
    }
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    ImageCache("here", SIZE).write(entries, pixels)
    return entries, pixels


def test_what_is_kept_comes_back(kept):
    entries, pixels = kept
    cache = ImageCache("here", SIZE)
    assert cache.entries == entries
    assert cache.rows == {"a.png": 0, "b.png": 1}
    np.testing.assert_array_equal(cache.pixels, pixels)


def test_another_source_or_size_has_its_own(kept):
    for source, preprocess in (
        ("there", SIZE),
        ("here", SIZE.model_copy(update={"fit": "crop"})),
        ("here", SIZE.model_copy(update={"image_size": (6, 4)})),
    ):
        assert ImageCache(source, preprocess).entries == {}


def test_old_pixels_are_taken_away(kept):
    entries, pixels = kept
    cache = ImageCache("here", SIZE)
    cache.write({"a.png": entries["a.png"]}, pixels[:1])
    assert len(list(cache.folder.glob("*.npy"))) == 1
    assert ImageCache("here", SIZE).pixels.shape == (1, 4, 6, 3)


@pytest.mark.parametrize("damage", ["no index", "torn index", "no pixels", "torn pixels", "other pixels", "no folder"])
def test_a_damaged_cache_is_empty(kept, damage):
    folder = ImageCache("here", SIZE).folder
    index, pixels = folder / "index.json", next(folder.glob("*.npy"))
    if damage == "no index":
        index.unlink()
    elif damage == "torn index":
        index.write_text(index.read_text(encoding="utf-8")[:50], encoding="utf-8")
    elif damage == "no pixels":
        pixels.unlink()
    elif damage == "torn pixels":
        pixels.write_bytes(pixels.read_bytes()[:150])
    elif damage == "other pixels":
        np.save(pixels, np.zeros((5, 4, 6, 3), np.uint8))
    else:
        index.unlink()
        pixels.unlink()
        folder.rmdir()
    cache = ImageCache("here", SIZE)
    assert (cache.entries, cache.rows, cache.pixels) == ({}, {}, None)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "file"))
    ImageCache("here", SIZE).write({"a.png": Entry((1, 2, 3), "aa", (1, 1, 3))}, np.zeros((1, 4, 6, 3), np.uint8))
    assert "Decoded images are not kept in" in caplog.text


def test_no_objects_are_unpickled(kept):
    folder = ImageCache("here", SIZE).folder
    path = next(folder.glob("*.npy"))
    np.save(path, np.array([{}, {}], object), allow_pickle=True)
    assert ImageCache("here", SIZE).pixels is None


def test_the_index_is_text_that_every_system_reads(kept):
    folder = ImageCache("here", SIZE).folder
    assert "caf\udce9.png" in json.loads((folder / "index.json").read_bytes().decode("ascii"))["entries"]


def test_a_stamp_changes_with_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = stamp_of(path)
    assert stamp_of(path) == first
    os.utime(path, ns=(1, 1))
    assert stamp_of(path) != first
    with pytest.raises(OSError, match="gone"):
        stamp_of(tmp_path / "gone")
