import logging
import os
import types

import numpy as np
import pytest
from tar_shards import samples, write_shard

from vitrail.data import cache_entries
from vitrail.data.building import Building
from vitrail.data.cache import ImageCache, Known
from vitrail.data.cache_entries import (
    clear_cache,
    clear_shard_indexes,
    list_entries,
    make_room,
    parse_bytes,
    shard_indexes,
    show_bytes,
)
from vitrail.data.preprocess import Preprocess
from vitrail.data.shard_catalog import index_shards
from vitrail.data.shard_index import Columns
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
    assert clear_cache(0, keep={caches[2].folder})[0] == 2
    assert [entry.source for entry in list_entries()] == ["2"]
    assert clear_cache()[0] == 1
    assert list_entries() == []


def test_what_is_being_made_stays(caches):
    with caches[0].locked():
        assert clear_cache()[0] == 3
    assert [entry.source for entry in list_entries()] == ["0"]


@pytest.fixture
def unopened(caches, monkeypatch):
    """The same, as if another process had made them."""
    monkeypatch.setattr(cache_entries, "opened", set())
    return caches


def test_room_is_made_for_a_new_set_and_that_is_said(unopened, caplog):
    keep = unopened[2].folder
    sizes = {entry.source: entry.num_bytes for entry in list_entries()}
    others = sum(sizes.values()) - sizes["2"]  # the set that is made anew is not counted
    with caplog.at_level(logging.INFO, "vitrail"):
        make_room(100, others + 100, keep)
        assert (len(list_entries()), caplog.text) == (4, "")
        make_room(101, others + 100, keep)
        assert [entry.source for entry in list_entries()] == ["(not whole)", "2", "1"]
        make_room(others, others, keep)
    assert [entry.source for entry in list_entries()] == ["2"]
    assert caplog.messages == [
        f"Taken away for new ones: 1 set of decoded images unused for longest, {show_bytes(sizes['0'])}",
        f"Taken away for new ones: 2 sets of decoded images unused for longest, {show_bytes(others - sizes['0'])}",
    ]
    with pytest.raises(OSError, match=r"^they take 1\.0 GB, and 3\.5 kB are allowed there$"):
        make_room(10**9, 3500, keep)
    with pytest.raises(OSError, match=r"^they take 55\.3 kB, and 0 bytes are allowed there$"):
        make_room(55_296, 0, keep)
    with pytest.raises(OSError, match=r"are allowed there|is not free there"):
        make_room(10**18, None, keep)


def test_sets_in_use_make_no_room(unopened):
    total = sum(entry.num_bytes for entry in list_entries())
    keep = unopened[2].folder
    cache_entries.opened.add(unopened[0].folder)  # by this process, though long ago
    os.utime(unopened[1].folder / "index.json")  # used by another just now
    in_use = sum(entry.num_bytes for entry in list_entries() if entry.source in ("0", "1"))
    with pytest.raises(OSError, match=r"^they take ") as refused:
        make_room(total, total, keep)
    shown = f"they take {show_bytes(total)}, and sets in use have {show_bytes(in_use)} of the {show_bytes(total)}"
    assert str(refused.value) == f"{shown} allowed there"
    assert len(list_entries()) == 4  # nothing goes in vain
    make_room(total - in_use, total, keep)
    assert {entry.source for entry in list_entries()} == {"0", "1", "2"}


def test_by_default_sets_in_use_may_take_more_than_half(unopened, monkeypatch):
    for cache in unopened:
        cache_entries.opened.add(cache.folder)
    total = sum(entry.num_bytes for entry in list_entries())
    free = cache_entries.SPARE_BYTES + 1000
    monkeypatch.setattr(cache_entries.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
    make_room(1000, None, unopened[2].folder)
    with pytest.raises(OSError, match=r"^they take 1\.0 kB, and so much is not free there$"):
        make_room(1001, None, unopened[2].folder)
    assert sum(entry.num_bytes for entry in list_entries()) == total


def test_indexes_of_shards_are_counted_and_cleared(caches, tmp_path):
    assert shard_indexes() == (0, 0)
    places = [str(write_shard(tmp_path / f"{number}.tar", samples(3, first=3 * number))) for number in range(2)]
    index_shards(places, Columns(), 1)
    number, num_bytes = shard_indexes()
    assert (number, num_bytes > 100) == (2, True)
    assert clear_shard_indexes() == (number, num_bytes)
    assert clear_shard_indexes() == shard_indexes() == (0, 0)
    assert len(list_entries()) == 4


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
