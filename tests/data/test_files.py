import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vitrail.data import decoding, streaming
from vitrail.data.content import content_hash
from vitrail.data.images import read_image
from vitrail.data.preprocess import Preprocess, prepare
from vitrail.data.records import ReadOptions
from vitrail.data.sources import open_dataset
from vitrail.errors import DataError

SIZE = Preprocess(image_size=(8, 8), channels=3, fit="crop")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def read_files(monkeypatch):
    """The names of the files that were decoded, in turn."""
    seen = []
    real = streaming.read_for
    monkeypatch.setattr(streaming, "read_for", lambda path, size, name: seen.append(name) or real(path, size, name))
    return seen


def test_images_are_as_prediction_prepares_them(tmp_path, write_tree):
    root = write_tree(tmp_path / "my photos", {"ant": 3, "bee": 2}, suffix=".jpg")
    images = open_dataset(root).prepared("all", SIZE)
    assert images.names == ("ant/000.jpg", "ant/001.jpg", "ant/002.jpg", "bee/000.jpg", "bee/001.jpg")
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    for name, pixels, content in zip(images.names, images.pixels, images.hashes, strict=True):
        image = read_image(root / name)
        np.testing.assert_array_equal(pixels, prepare(image, SIZE))
        assert content == content_hash(np.asarray(image))


def test_the_second_time_no_file_is_read(tmp_path, write_tree, read_files):
    root = write_tree(tmp_path / "photos", {"ant": 3, "bee": 2})
    first = open_dataset(root).prepared("all", SIZE)
    assert len(read_files) == 5
    second = open_dataset(root).prepared("all", SIZE)
    assert len(read_files) == 5
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (first.names, first.hashes) == (second.names, second.hashes)


def test_what_changed_is_read_again_and_nothing_else(tmp_path, write_tree, write_photo, read_files):
    root = write_tree(tmp_path / "photos", {"ant": 3, "bee": 3})
    open_dataset(root).prepared("all", SIZE)
    read_files.clear()
    write_photo(root / "ant" / "new.png", seed=77)
    write_photo(root / "bee" / "000.png", seed=78)
    (root / "bee" / "001.png").unlink()
    images = open_dataset(root).prepared("all", SIZE)
    assert sorted(read_files) == ["ant/new.png", "bee/000.png"]
    for name, pixels in zip(images.names, images.pixels, strict=True):
        np.testing.assert_array_equal(pixels, prepare(read_image(root / name), SIZE))


def test_broken_files_are_left_out_and_named(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"ant": 4, "bee": 4})
    (root / "ant" / "empty.jpg").write_bytes(b"")
    (root / "ant" / "text.png").write_text("not an image", encoding="utf-8")
    whole = (root / "bee" / "000.png").read_bytes()
    (root / "bee" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (root / "bee" / "really_a_png.jpg").write_bytes(whole)
    for _ in range(2):  # from the files, and from the cache
        dataset = open_dataset(root)
        images = dataset.prepared("all", SIZE)
        assert len(images) == 9
        assert "bee/really_a_png.jpg" in images.names
        reasons = dict(dataset.broken["all"])
        assert list(reasons) == ["ant/empty.jpg", "ant/text.png", "bee/torn.png"]
        assert reasons["ant/empty.jpg"] == "ant/empty.jpg is not an image that can be read: it is empty"
        assert "format that is known" in reasons["ant/text.png"]
        assert images.labels.tolist() == [0] * 4 + [1] * 5


def test_a_file_that_was_mended_is_read(tmp_path, write_tree, write_photo):
    root = write_tree(tmp_path / "photos", {"ant": 2, "bee": 2})
    (root / "ant" / "000.png").write_bytes(b"")
    assert len(open_dataset(root).prepared("all", SIZE)) == 3
    write_photo(root / "ant" / "000.png", seed=9)
    dataset = open_dataset(root)
    assert len(dataset.prepared("all", SIZE)) == 4
    assert dataset.broken["all"] == ()


def test_what_could_not_be_read_is_tried_again(tmp_path, write_tree, monkeypatch):
    root = write_tree(tmp_path / "photos", {"ant": 2, "bee": 2})

    def no_memory(path, size, name):
        raise DataError(f"{name} cannot be opened: Too many open files")

    with monkeypatch.context() as patch:
        real = streaming.read_for
        patch.setattr(streaming, "read_for", lambda *given: (no_memory if "ant/000" in given[2] else real)(*given))
        assert len(open_dataset(root).prepared("all", SIZE)) == 3
    assert len(open_dataset(root).prepared("all", SIZE)) == 4


def test_a_decompression_bomb_is_a_broken_file(tmp_path, write_tree, monkeypatch):
    root = write_tree(tmp_path / "photos", {"ant": 2, "bee": 2})
    Image.new("L", (100, 100)).save(root / "ant" / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    dataset = open_dataset(root)
    assert len(dataset.prepared("all", SIZE)) == 4
    assert "as a decompression bomb would" in dataset.broken["all"][0][1]


def test_a_split_that_cannot_be_read_at_all_is_refused(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"train/ant": 1, "train/bee": 1, "test/ant": 1})
    (root / "test" / "ant" / "000.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"^None of the 1 images of test in .* can be read; test/ant/000\.png is not an"
    ):
        open_dataset(root).prepared("test", SIZE)


def test_sizes_are_measured_without_reading_images(tmp_path, write_photo, read_files):
    for number, size in enumerate([(20, 30), (22, 30), (400, 500)]):
        write_photo(tmp_path / "photos" / "ant" / f"{number}.png", number, size, "L")
    write_photo(tmp_path / "photos" / "bee" / "0.png", 5, (24, 34), "L")
    assert open_dataset(tmp_path / "photos").shape == (23, 32, 1)
    write_photo(tmp_path / "photos" / "bee" / "1.png", 5, (24, 34), "RGB")
    assert open_dataset(tmp_path / "photos").shape[2] == 3
    assert read_files == []


def test_turned_photographs_are_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for label in ("ant", "bee"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(tmp_path / "photos" / label / "0.jpg", exif=exif)
    assert open_dataset(tmp_path / "photos").shape == (30, 20, 3)


def test_images_can_be_read_at_the_usual_size(tmp_path, write_photo):
    for number, size in enumerate([(20, 30), (20, 30), (10, 30)]):
        write_photo(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", number, size)
    images = open_dataset(tmp_path / "photos").read("all")
    assert images.pixels.shape == (3, 20, 30, 3)


def test_only_the_split_asked_for_is_read(tmp_path, write_tree, read_files):
    root = write_tree(tmp_path / "photos", {"train/ant": 1, "train/bee": 1, "test/ant": 1})
    open_dataset(root).prepared("train", SIZE)
    assert sorted(read_files) == ["train/ant/000.png", "train/bee/000.png"]


def test_more_workers_than_cores_are_not_used(tmp_path, write_tree, caplog):
    root = write_tree(tmp_path / "photos", {"ant": 2, "bee": 2})
    cores = decoding.num_cores()
    images = open_dataset(root, options=ReadOptions(num_workers=cores + 62)).prepared("all", SIZE)
    assert len(images) == 4
    assert (
        f"data.num_workers={cores + 62} is more than the {cores} cores that this process may use; {cores} are used"
        in caplog.text
    )


def test_long_reading_says_how_far_it_is(tmp_path, write_tree, caplog, monkeypatch):
    monkeypatch.setattr(decoding, "PROGRESS_SECONDS", -1.0)
    root = write_tree(tmp_path / "photos", {"ant": 2, "bee": 1})
    with caplog.at_level(logging.INFO, "vitrail"):
        open_dataset(root).prepared("all", SIZE)
    assert "Reading images: 2 of 3" in caplog.text


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_names_that_are_not_utf8_are_read_and_cached(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"ant": 2, "bee": 2})
    os.rename(root / "ant" / "000.png", os.fsencode(root / "ant") + b"/caf\xe9.png")
    for _ in range(2):
        images = open_dataset(root).prepared("all", SIZE)
        assert "ant/caf\udce9.png" in images.names
        assert len(images) == 4


def test_reading_needs_no_main_guard(tmp_path, write_tree):
    """A script without `if __name__ == "__main__"`: no process is started that would import it again."""
    root = write_tree(tmp_path / "photos", {"ant": 2, "bee": 2})
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "multiprocessing.set_start_method('spawn')\n"
        "from vitrail.data.preprocess import Preprocess\n"
        "from vitrail.data.sources import open_dataset\n"
        f"images = open_dataset({str(root)!r}).prepared('all', Preprocess(image_size=(8, 8), channels=3, fit='pad'))\n"
        "print(len(images))\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "4\n"
