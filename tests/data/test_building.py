import logging

import numpy as np
import pytest

from vitrail.data.building import Building
from vitrail.data.cache import ImageCache, Known
from vitrail.data.preprocess import Preprocess
from vitrail.data.thumbnails import KEPT_BYTES

SIZE = Preprocess(image_size=(4, 6), channels=3, fit="pad")
NAMES = [f"{number}.png" for number in range(6)]
STAMPS = [(number, 2, 3) for number in range(6)]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, *SIZE.shape), dtype=np.uint8)


def part(first, last, errors=()):
    contents = [None if NAMES[n] in errors else f"{n:02d}" * 32 for n in range(first, last)]
    small = [bytes(KEPT_BYTES)] * (last - first)
    return Known(NAMES[first:last], STAMPS[first:last], contents, small, dict.fromkeys(errors, "it is empty"))


def rows(first, last, without=()):
    return [PIXELS[n] for n in range(first, last) if NAMES[n] not in without]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that a killed start left after four images, one of them broken."""
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    cache = ImageCache("here", SIZE)
    cache.folder.mkdir(parents=True)
    building = Building(cache, NAMES, STAMPS)
    building.append(part(0, 2), rows(0, 2))
    building.append(part(2, 4, {"3.png"}), rows(2, 4, {"3.png"}))
    building.close()
    return cache


def finish(cache, building):
    first = len(building.known.names)
    broken = {"3.png"} if first <= 3 else set()
    building.append(part(first, 6, broken), rows(first, 6, broken))
    cache.write(building.known, building.finish())
    cache = ImageCache("here", SIZE)
    np.testing.assert_array_equal(cache.pixels, PIXELS[[0, 1, 2, 4, 5]])
    assert cache.known.names == NAMES
    assert cache.known.errors == {"3.png": "it is empty"}


def test_a_later_start_goes_on(cache, caplog):
    with caplog.at_level(logging.INFO, "vitrail"):
        building = Building(cache, NAMES, STAMPS)
    assert building.known.names == NAMES[:4]
    assert "4 images were decoded by an earlier start; going on from there" in caplog.text
    np.testing.assert_array_equal(building.rows().reshape(-1, *SIZE.shape), PIXELS[:3])
    finish(cache, building)


@pytest.mark.parametrize(
    ("damage", "num_left"),
    [
        ("half a line", 2),
        ("short pixels", 2),
        ("spare pixels", 4),
        ("other pixels", 2),
        ("no pixels", 0),
        ("other line", 2),
        ("empty", 0),
    ],
)
def test_what_was_half_written_is_done_again(cache, damage, num_left):
    journal, pixels = cache.folder / "building.jsonl", cache.folder / "building.pixels"
    lines = journal.read_text(encoding="ascii").splitlines(keepends=True)
    if damage == "half a line":
        journal.write_text("".join(lines)[:-20], encoding="ascii")
    elif damage == "other line":
        journal.write_text("".join(lines[:2]) + "{}\n", encoding="ascii")
    elif damage == "empty":
        journal.write_text("", encoding="ascii")
    elif damage == "short pixels":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "other pixels":
        pixels.write_bytes(pixels.read_bytes()[:-4] + bytes(4))
    elif damage == "spare pixels":
        pixels.write_bytes(pixels.read_bytes() + bytes(100))
    else:
        pixels.unlink()
    building = Building(cache, NAMES, STAMPS)
    assert len(building.known.names) == num_left
    building.append(part(num_left, num_left + 1), rows(num_left, num_left + 1))
    building.close()
    building = Building(cache, NAMES, STAMPS)  # nothing damaged is left between what was good and what was added
    assert len(building.known.names) == num_left + 1
    finish(cache, building)


def test_other_images_begin_anew(cache):
    building = Building(cache, NAMES, [(9, 9, 9), *STAMPS[1:]])
    assert building.known.names == []
    building.abandon()
    assert list(cache.folder.iterdir()) == []
