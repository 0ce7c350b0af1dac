import os

import numpy as np
import pytest

from vitrail.data.building import Building
from vitrail.data.cache import ImageCache, Known
from vitrail.data.cache_entries import clear_cache, list_entries, make_room, parse_bytes, show_bytes
from vitrail.data.preprocess import Preprocess
from vitrail.data.thumbnails import KEPT_BYTES
from vitrail.errors import ConfigError

SIZE = Preprocess(image_size=(4, 6), channels=3, fit="pad")


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Three sets of images, "0" unused for longest, and one that was never finished."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    made = []
    for number in range(4):
        cache = ImageCache(str(number), SIZE)
        cache.folder.mkdir(parents=True)
        building = Building(cache, ["a"], [(1, 1, 1)])
        building.append(Known(["a"], [(1, 1, 1)], ["ab" * 32], [bytes(KEPT_BYTES)]), [np.zeros(SIZE.shape, np.uint8)])
        if number == 3:
            building.close()
        else:
            cache.write(building.known, building.finish())
        for path in cache.folder.iterdir():
            os.utime(path, (number + 1, number + 1))
        made.append(cache)
    return made


def test_all_sets_are_listed_the_latest_used_first(caches):
    entries = list_entries()
    assert [entry.source for entry in entries] == ["(not whole)", "2", "1", "0"]
    assert [entry.num_images for entry in entries] == [0, 1, 1, 1]
    assert entries[1].image_size == "6x4"
    assert entries[1].num_bytes == sum(path.stat().st_size for path in caches[2].folder.iterdir())


def test_what_was_unused_for_longest_goes_first(caches):
    entries = list_entries()
    total = sum(entry.num_bytes for entry in entries)
    assert clear_cache(total) == (0, 0)
    assert clear_cache(total - 1) == (1, entries[3].num_bytes)
    assert [entry.source for entry in list_entries()] == ["(not whole)", "2", "1"]
    assert clear_cache(0, keep=caches[2].folder)[0] == 2
    assert [entry.source for entry in list_entries()] == ["2"]
    assert clear_cache()[0] == 1
    assert list_entries() == []


def test_what_is_being_made_stays(caches):
    with caches[0].locked():
        assert clear_cache()[0] == 3
    assert [entry.source for entry in list_entries()] == ["0"]


def test_room_is_made_for_a_new_set(caches):
    total = sum(entry.num_bytes for entry in list_entries())
    make_room(100, total + 100, caches[2].folder)
    assert len(list_entries()) == 4
    make_room(total, total + 100, caches[2].folder)
    assert [entry.source for entry in list_entries()] == ["2"]
    with pytest.raises(OSError, match=r"they take 1\.00 GB, and 0\.00 GB are allowed there"):
        make_room(10**9, total, caches[2].folder)
    with pytest.raises(OSError, match=r"are allowed there|is not free there"):
        make_room(10**18, None, caches[2].folder)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("10GB", 10**10), ("500 mb", 5 * 10**8), ("1.5g", 15 * 10**8), ("1000", 1000), ("0", 0), ("2TB", 2 * 10**12)],
)
def test_sizes_are_written_as_people_write_them(text, num_bytes):
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "ten", "GB", "-1GB", "10 GiB", "1e3", "nan"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="is not a size; write it as 500MB or 10GB"):
        parse_bytes(text)


def test_sizes_are_shown_in_a_unit_that_suits_them():
    shown = [show_bytes(number) for number in (0, 999, 1000, 12_345_678, 10**9, 2 * 10**12)]
    assert shown == ["0 bytes", "999 bytes", "1.0 kB", "12.3 MB", "1.0 GB", "2.0 TB"]
