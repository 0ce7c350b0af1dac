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


@pytest.mark.parametrize(
    "damage",
    [
        "torn index",
        "other index",
        "no text",
        "no pixels",
        "torn pixels",
        "long pixels",
        "other pixels",
        "no names",
        "other names",
        "no numbers",
        "torn numbers",
        "other numbers",
    ],
)
def test_a_damaged_cache_is_empty_and_that_is_said(kept, damage, caplog):
    folder = ImageCache("here", SIZE).folder
    index, pixels = folder / "index.json", next(folder.glob("pixels-*"))
    if damage == "torn index":
        index.write_text(index.read_text(encoding="utf-8")[:50], encoding="utf-8")
    elif damage == "other index":
        index.write_text("[]", encoding="utf-8")
    elif damage == "no text":
        index.write_bytes(b"\xff")
    else:
        how, what = damage.split()
        file = {"pixels": pixels, "names": next(folder.glob("images-*.json")), "numbers": next(folder.glob("*.bin"))}[
            what
        ]
        data = file.read_bytes()
        if how == "no":
            file.unlink()
        else:
            file.write_bytes({"torn": data[:130], "long": data + b"more", "other": data[:-9] + b"1" + data[-8:]}[how])
    cache = ImageCache("here", SIZE)
    assert (cache.known.names, cache.rows, cache.pixels) == ([], {}, None)
    cache.read()
    assert len(caplog.messages) == 1
    assert "are damaged" in caplog.text
    assert "made anew" in caplog.text


def test_an_older_cache_is_empty_and_that_is_said(kept, caplog, monkeypatch):
    monkeypatch.setattr(cache_module, "VERSION", cache_module.VERSION + 1)
    assert ImageCache("here", SIZE).known.names == []
    assert "are of another version; they are made anew" in caplog.text


def test_pixels_of_an_older_cache_are_replaced(kept, monkeypatch):
    cache = ImageCache("here", SIZE)
    before = {path.name for path in cache.folder.iterdir() if path.name != ".lock"}
    monkeypatch.setattr(cache_module, "VERSION", cache_module.VERSION + 1)
    cache = ImageCache("here", SIZE)
    building = Building(cache, NAMES, STAMPS)
    building.append(known_images(), [255 - row for row in kept])  # of the same size and content hashes
    cache.write(building.known, building.finish())
    np.testing.assert_array_equal(cache.pixels, 255 - kept)
    np.testing.assert_array_equal(ImageCache("here", SIZE).pixels, 255 - kept)
    after = {path.name for path in cache.folder.iterdir() if path.name != ".lock"}
    assert before & after == {"index.json"}  # what is mapped cannot be replaced everywhere
    assert len(after) == 4


def test_the_pixels_of_a_large_set_are_not_summed(kept, monkeypatch):
    monkeypatch.setattr(cache_module, "CHECKED_BYTES", 100)
    cache = ImageCache("here", SIZE)
    cache.write(known_images(), None)
    building = Building(cache, NAMES, STAMPS)
    building.append(known_images(), list(kept))
    cache.write(building.known, building.finish())
    pixels = next(cache.folder.glob("pixels-*"))
    pixels.write_bytes(bytes(kept.nbytes))
    assert not np.any(ImageCache("here", SIZE).pixels)


def test_a_disk_that_refuses_the_index_leaves_the_old_one(kept, files_of_at_most):
    cache = ImageCache("here", SIZE)
    before = {path.name for path in cache.folder.iterdir()}
    building = Building(cache, NAMES, STAMPS)
    building.append(known_images(), list(kept))
    pixels = building.finish()
    with files_of_at_most(1000), pytest.raises(OSError, match="large"):
        cache.write(building.known, pixels)
    building.abandon()
    assert {path.name for path in cache.folder.iterdir()} == before
    np.testing.assert_array_equal(ImageCache("here", SIZE).pixels, kept)


def test_pixels_that_are_not_whole_are_refused(kept):
    cache = ImageCache("here", SIZE)
    building = Building(cache, NAMES, STAMPS)
    building.append(known_images(), [kept[0]])
    with pytest.raises(OSError, match=r"has 72 bytes in place of 144"):
        cache.write(building.known, building.finish())


@pytest.mark.skipif(os.name == "nt", reason="there is no /dev/null")
def test_a_folder_that_cannot_be_is_nothing_to_speak_of(monkeypatch, caplog):
    monkeypatch.setenv("VITRAIL_CACHE", "/dev/null/x")
    assert ImageCache("here", SIZE).known.names == []
    assert caplog.text == ""


def test_an_index_that_may_not_be_read_is_nothing_to_speak_of(kept, monkeypatch, caplog):
    def refused(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache_module.Path, "read_text", refused)
    assert ImageCache("here", SIZE).known.names == []
    assert caplog.text == ""


def test_no_cache_is_nothing_to_speak_of(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "none"))
    assert ImageCache("here", SIZE).pixels is None
    assert caplog.text == ""


def test_the_index_is_text_that_every_system_reads(kept):
    folder = ImageCache("here", SIZE).folder
    assert json.loads((folder / "index.json").read_bytes().decode("ascii"))["num_images"] == 3
    names = next(folder.glob("images-*.json")).read_bytes().decode("ascii")
    assert json.loads(names) == {"names": NAMES, "errors": {"caf\udce9.png": "it is empty"}}


def test_the_index_stays_small(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    number = 1000
    names = [f"{place:04d}.png" for place in range(number)]
    known = Known(names, [(1, 2, 3)] * number, ["ab" * 32] * number, [bytes(KEPT_BYTES)] * number)
    cache = ImageCache("here", SIZE)
    cache.folder.mkdir(parents=True)
    cache.write(known, None)
    assert (cache.folder / "index.json").stat().st_size < 1000
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) < number * (KEPT_BYTES + 80)
    assert ImageCache("here", SIZE).known.names == names


@pytest.mark.parametrize("gone", [False, True])
def test_what_another_process_makes_anew_meanwhile_is_not_damaged(kept, gone, monkeypatch, caplog):
    other, real = ImageCache("here", SIZE), ImageCache._read_known

    def late(self, values):
        monkeypatch.setattr(ImageCache, "_read_known", real)
        if gone:
            for path in self.folder.iterdir():
                path.unlink()
        else:
            other.write(known_images(), None)
        return real(self, values)

    monkeypatch.setattr(ImageCache, "_read_known", late)
    assert ImageCache("here", SIZE).known.names == ([] if gone else NAMES)
    assert caplog.text == ""


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
