import json
import logging
import os

import numpy as np
import pytest

from vitrail.data import cache as cache_module
from vitrail.data.building import Building
from vitrail.data.cache import ImageCache, Known, stamp_of
from vitrail.data.preprocess import Preprocess
from vitrail.data.thumbnails import KEPT_BYTES

SIZE = Preprocess(image_size=(4, 6), channels=3, fit="pad")
NAMES = ["a.png", "caf\udce9.png", "b.png"]
STAMPS = [(1, 2, 3), (4, 5, 6), (7, 2**62, 9)]
CONTENTS = ["aa" * 32, None, "bb" * 32]
SMALL = [bytes([number]) * KEPT_BYTES for number in (1, 0, 2)]


def known_images():
    return Known([*NAMES], [*STAMPS], [*CONTENTS], [*SMALL], {NAMES[1]: "it is empty"})


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """What two readable files and a broken one leave in the cache."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache dir"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    cache = ImageCache("here", SIZE)
    with cache.locked():
        building = Building(cache, NAMES, STAMPS)
        building.append(known_images(), list(pixels))
        cache.write(building.known, building.finish())
    return pixels


def test_what_is_kept_comes_back(kept):
    cache = ImageCache("here", SIZE)
    known = cache.known
    assert (known.names, known.stamps, known.contents, known.thumbnails) == (NAMES, STAMPS, CONTENTS, SMALL)
    assert known.errors == {NAMES[1]: "it is empty"}
    assert cache.rows == {"a.png": 0, "b.png": 1}
    assert isinstance(cache.pixels, np.memmap)
    np.testing.assert_array_equal(cache.pixels, kept)


def test_another_source_or_size_has_its_own(kept):
    for source, preprocess in (
        ("there", SIZE),
        ("here", SIZE.model_copy(update={"fit": "crop"})),
        ("here", SIZE.model_copy(update={"image_size": (6, 4)})),
    ):
        assert ImageCache(source, preprocess).known.names == []


def test_old_pixels_are_taken_away(kept):
    cache = ImageCache("here", SIZE)
    building = Building(cache, NAMES[:1], STAMPS[:1])
    building.append(Known(NAMES[:1], STAMPS[:1], CONTENTS[:1], SMALL[:1]), [kept[0]])
    cache.write(building.known, building.finish())
    assert len(list(cache.folder.glob("pixels-*"))) == 1
    assert list(cache.folder.glob("building.*")) == []
    assert ImageCache("here", SIZE).pixels.shape == (1, 4, 6, 3)


def test_hashes_alone_may_be_kept(kept):
    cache = ImageCache("here", SIZE)
    cache.write(known_images(), None)
    assert cache.pixels is None
    assert ImageCache("here", SIZE).known.contents == CONTENTS
    assert list(cache.folder.glob("pixels-*")) == []


@pytest.mark.parametrize("damage", ["torn index", "other index", "no pixels", "torn pixels", "long pixels"])
def test_a_damaged_cache_is_empty_and_that_is_said(kept, damage, caplog):
    folder = ImageCache("here", SIZE).folder
    index, pixels = folder / "index.json", next(folder.glob("pixels-*"))
    if damage == "torn index":
        index.write_text(index.read_text(encoding="utf-8")[:50], encoding="utf-8")
    elif damage == "other index":
        index.write_text("[]", encoding="utf-8")
    elif damage == "no pixels":
        pixels.unlink()
    elif damage == "torn pixels":
        pixels.write_bytes(pixels.read_bytes()[:130])
    else:
        pixels.write_bytes(pixels.read_bytes() + b"more")
    cache = ImageCache("here", SIZE)
    assert (cache.known.names, cache.rows, cache.pixels) == ([], {}, None)
    assert "are damaged" in caplog.text
    assert "made anew" in caplog.text


def test_an_older_cache_is_empty_and_that_is_said(kept, caplog, monkeypatch):
    monkeypatch.setattr(cache_module, "VERSION", cache_module.VERSION + 1)
    assert ImageCache("here", SIZE).known.names == []
    assert "are of another version; they are made anew" in caplog.text


def test_no_cache_is_nothing_to_speak_of(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "none"))
    assert ImageCache("here", SIZE).pixels is None
    assert caplog.text == ""


def test_the_index_is_text_that_every_system_reads(kept):
    folder = ImageCache("here", SIZE).folder
    assert "caf\udce9.png" in json.loads((folder / "index.json").read_bytes().decode("ascii"))["names"]


def test_a_cache_that_is_used_is_the_youngest(kept):
    index = ImageCache("here", SIZE).folder / "index.json"
    os.utime(index, ns=(1, 1))
    ImageCache("here", SIZE)
    assert index.stat().st_mtime_ns > 1


def test_another_process_is_waited_for(kept, caplog):
    import threading

    cache, order = ImageCache("here", SIZE), []

    def second():
        with ImageCache("here", SIZE).locked():
            order.append("second")

    with caplog.at_level(logging.INFO, "vitrail"), cache.locked():
        waiting = threading.Thread(target=second)
        waiting.start()
        while "Another process reads these images" not in caplog.text:
            pass
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_a_stamp_changes_with_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = stamp_of(path)
    assert stamp_of(path) == first
    os.utime(path, ns=(1, 1))
    assert stamp_of(path) != first
    with pytest.raises(OSError, match="gone"):
        stamp_of(tmp_path / "gone")
