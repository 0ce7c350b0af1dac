import logging
import threading

import numpy as np
import pytest

from vitrail.data import cache_entries, decoding, streaming
from vitrail.data.content import content_hash
from vitrail.data.decoding import records_dataset, sampled_shapes
from vitrail.data.images import read_image
from vitrail.data.preprocess import Preprocess, prepare
from vitrail.data.records import ReadOptions, Records
from vitrail.data.streaming import StreamedPixels
from vitrail.errors import DataError

SIZE = Preprocess(image_size=(8, 6), channels=3, fit="pad")
NUM_IMAGES = 40


@pytest.fixture(autouse=True)
def _small_blocks(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decoding, "BLOCK", 8)
    monkeypatch.setattr(decoding, "TASK", 3)


@pytest.fixture
def records(tmp_path, write_photo):
    """Forty images, of which two are damaged."""
    paths = [write_photo(tmp_path / "photos" / f"{n}.png", n, (10 + n, 12)) for n in range(NUM_IMAGES)]
    for number in (5, 17):
        paths[number].write_bytes(paths[number].read_bytes()[:60])
    names = [path.name for path in paths]
    groups = [f"group {n // 4}" for n in range(NUM_IMAGES)]
    labels = np.arange(NUM_IMAGES) % 3
    return Records("photos", names, labels, lambda n: paths[n], lambda n: (n, 0, paths[n].stat().st_mtime_ns), groups)


def opened(records, **options):
    return records_dataset("photos", ("a", "b", "c"), {"all": lambda: records}, ReadOptions(**options))


def check(images, records):
    readable = [n for n in range(NUM_IMAGES) if n not in (5, 17)]
    assert images.names == tuple(records.names[n] for n in readable)
    assert images.labels.tolist() == [n % 3 for n in readable]
    assert images.groups == tuple(f"group {n // 4}" for n in readable)
    expected = [read_image(records.read(n)) for n in readable]
    assert images.hashes == tuple(content_hash(np.asarray(image)) for image in expected)
    np.testing.assert_array_equal(images.pixels[:], [prepare(image, SIZE) for image in expected])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, np.memmap),
        ({"serving": "memory"}, np.memmap),  # in memory they are when training has loaded them
        ({"cache_gigabytes": 0.0}, np.ndarray),
        ({"cache_gigabytes": 0.0, "memory_gigabytes": 0.0}, StreamedPixels),
        ({"cache_gigabytes": 0.0, "serving": "mapped"}, StreamedPixels),
        ({"serving": "stream"}, StreamedPixels),
    ],
)
def test_images_are_the_same_whatever_serves_them(records, options, kind):
    for _ in range(2):
        dataset = opened(records, **options)
        images = dataset.prepared("all", SIZE)
        assert type(images.pixels) is kind
        check(images, records)
        assert [name for name, _ in dataset.broken["all"]] == ["5.png", "17.png"]
        some = images.take(np.array([30, 2]))
        np.testing.assert_array_equal(some.pixels[:], images.pixels[np.array([30, 2])])


def count_reads(monkeypatch):
    seen, real = [], streaming.read_for
    monkeypatch.setattr(streaming, "read_for", lambda *given: seen.append(given[2]) or real(*given))
    return seen


def test_a_stop_half_way_costs_what_was_under_way_only(records, monkeypatch, caplog):
    seen = count_reads(monkeypatch)
    real = decoding.Building.append

    def killed(self, part, rows):
        if len(self.known.names) >= 24:
            raise KeyboardInterrupt
        real(self, part, rows)

    with monkeypatch.context() as patch:
        patch.setattr(decoding.Building, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(records).prepared("all", SIZE)
    seen.clear()
    with caplog.at_level(logging.INFO, "vitrail"):
        check(opened(records).prepared("all", SIZE), records)
    assert set(seen) == {f"{n}.png" for n in range(24, 40)}
    assert "24 images were decoded by an earlier start" in caplog.text


def test_two_at_once_decode_once(records, monkeypatch):
    seen = count_reads(monkeypatch)
    results = []
    starts = [threading.Thread(target=lambda: results.append(opened(records).prepared("all", SIZE))) for _ in range(2)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    for images in results:
        check(images, records)
    # What is damaged is tried again by each.
    assert sorted(name for name in seen if name not in ("5.png", "17.png")) == sorted(
        name for name in records.names if name not in ("5.png", "17.png")
    )


def test_a_disk_that_is_full_decodes_in_memory(records, files_of_at_most, caplog):
    with files_of_at_most(2000):  # the rows of fourteen images
        images = opened(records).prepared("all", SIZE)
    assert type(images.pixels) is np.ndarray
    check(images, records)
    assert "Decoded images are not kept in" in caplog.text
    assert sum(entry.num_bytes for entry in cache_entries.list_entries()) == 0  # nothing half-way is left
    check(opened(records).prepared("all", SIZE), records)


def test_a_full_disk_and_a_full_memory_are_said(records, caplog):
    opened(records, cache_gigabytes=0.0, memory_gigabytes=0.0).prepared("all", SIZE)
    assert "they take 5.8 kB, and 0 bytes are allowed there" in caplog.text
    assert "of images have no room in memory; they are decoded as they are needed" in caplog.text


def test_a_damaged_cache_is_made_anew(records, caplog):
    opened(records).prepared("all", SIZE)
    folder = cache_entries.list_entries()[0].folder
    pixels = next(folder.glob("pixels-*"))
    pixels.write_bytes(pixels.read_bytes()[:-1])
    check(opened(records).prepared("all", SIZE), records)
    assert "are damaged" in caplog.text


def test_what_goes_away_while_it_streams_is_named(records, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "WAIT_SECONDS", 0.0)
    images = opened(records, serving="stream").prepared("all", SIZE)
    (tmp_path / "photos" / "3.png").unlink()
    with pytest.raises(DataError, match=r"^3\.png does not exist; it could be read when training began"):
        images.pixels[2:5]
    assert images.pixels[:3].shape == (3, 8, 6, 3)


def test_what_comes_back_while_it_streams_is_waited_for(records, tmp_path, monkeypatch):
    images = opened(records, serving="stream").prepared("all", SIZE)
    path = tmp_path / "photos" / "3.png"
    path.rename(path.with_suffix(".away"))
    monkeypatch.setattr(streaming.time, "sleep", lambda seconds: path.with_suffix(".away").rename(path))
    assert images.pixels[3:4].shape == (1, 8, 6, 3)


def test_shapes_are_sampled_from_headers(records):
    shapes, failed = sampled_shapes(records)
    assert shapes[:, 0].tolist() == [n + 10 for n in range(NUM_IMAGES) if n not in (5, 17)]
    assert [reason.partition(" ")[0] for reason in failed] == ["5.png", "17.png"]
    assert opened(records).shape == (30, 12, 3)


def test_where_nothing_can_be_read_a_reason_is_given(records):
    broken = Records("none", ["x"], np.array([0]), lambda index: b"", lambda index: (0, 0, 0))
    dataset = records_dataset("none", ("a",), {"all": lambda: broken})
    with pytest.raises(DataError, match=r"^None of 1 images can be read; x is not an image that can be read: it is n"):
        dataset.shape  # noqa: B018
    with pytest.raises(DataError, match=r"^None of the 1 images of all in none can be read; x is not an image"):
        dataset.prepared("all", SIZE)


def test_headers_are_read_by_name(records):
    headers = opened(records).headers("all")
    assert [*headers] == records.names  # what is damaged has a whole header
    assert (headers["3.png"].rows, headers["3.png"].columns, headers["3.png"].mode) == (13, 12, "RGB")


def test_what_stays_broken_does_not_write_the_cache_anew(records):
    opened(records).prepared("all", SIZE)
    folder = cache_entries.list_entries()[0].folder
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("pixels-*")}
    check(opened(records).prepared("all", SIZE), records)
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("pixels-*")} == before


def test_whoever_stops_waits_for_images_under_way_alone(records, monkeypatch):
    monkeypatch.setattr(decoding, "TASK", 40)
    seen, real = [], streaming.read_for

    def read(*given):
        seen.append(given[2])
        return real(*given)

    monkeypatch.setattr(streaming, "read_for", read)
    monkeypatch.setattr(decoding.Building, "append", lambda self, part, rows: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        opened(records, num_workers=1).prepared("all", SIZE)
    assert len(seen) < NUM_IMAGES
