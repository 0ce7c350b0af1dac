import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vitrail.data import flat_images
from vitrail.data.flat_images import find_copy, make_copy

VALUES = [b"one", None, b"", "ä.png", b"\x00two"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoded"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"x")
    return path


def copy(source, column="image", values=VALUES):
    return make_copy(source, column, len(values), 100, iter([values[:2], values[2:]]))


def test_a_copy_gives_what_was_put_in(source):
    assert find_copy(source, "image", 5) is None
    for images in (copy(source), find_copy(source, "image", 5)):
        assert [images.read(row) for row in (4, 0, 1, 2, 3)] == [VALUES[row] for row in (4, 0, 1, 2, 3)]
        assert len(images) == 5
    assert find_copy(source, "photo", 5) is None


def test_nothing_but_none(source):
    assert [copy(source, values=[None, None]).read(row) for row in range(2)] == [None, None]


def test_a_copy_of_what_was_changed_is_taken_away(source, folder):
    copy(source)
    copy(source, "photo")
    os.utime(source, ns=(1, 1))
    assert find_copy(source, "image", 5) is None
    copy(source)
    assert len([*folder.glob("*.bin")]) == len([*folder.glob("*.npy")]) == 2
    assert find_copy(source, "image", 5).read(0) == b"one"


def test_a_copy_that_was_not_opened_for_long_is_taken_away(source, folder, monkeypatch):
    copy(source)
    monkeypatch.setattr(flat_images, "KEPT_SECONDS", -1.0)
    copy(source, "photo")
    assert len([*folder.glob("*.bin")]) == 1


def test_a_copy_that_is_not_whole_is_made_anew(source, folder):
    copy(source)
    (file,) = folder.glob("*.bin")
    file.write_bytes(file.read_bytes()[:-1])
    assert find_copy(source, "image", 5) is None
    assert copy(source).read(4) == b"\x00two"
    (places,) = folder.glob("*.npy")
    places.write_bytes(b"")
    assert find_copy(source, "image", 5) is None
    assert find_copy(source, "image", 6) is None


def test_what_breaks_off_leaves_nothing(source, folder):
    def parts():
        yield [b"one"]
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        make_copy(source, "image", 5, 100, parts())
    assert [path.suffix for path in folder.iterdir()] in ([], [".lock"])
    assert find_copy(source, "image", 5) is None


def test_a_disk_that_has_too_little_room_is_left_alone(source, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 801, 199))
    with pytest.raises(OSError, match=r"they take 0\.00 GB, more than half of the 0\.00 GB that are free"):
        copy(source)


def test_two_at_once_make_one_copy(source):
    made = []
    both = threading.Barrier(2)

    def parts():
        made.append(1)
        yield VALUES

    def make(_):
        both.wait()
        return make_copy(source, "image", 5, 100, parts()).read(3)

    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(make, range(2))] == ["ä.png"] * 2
    assert made == [1]


def test_progress_is_told(source, monkeypatch, caplog):
    monkeypatch.setattr(flat_images, "PROGRESS_SECONDS", -1.0)
    caplog.set_level("INFO", "vitrail")
    copy(source)
    assert [record.message for record in caplog.records][1:] == [
        f"Copying the images of {source}: {count} of 5" for count in (2, 5)
    ]
