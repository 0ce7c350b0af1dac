import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from vitrail.data.idx import holds_idx, open_idx, read_idx
from vitrail.errors import DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    values = {}
    for split, count in (("train", 6), ("t10k", 3)):
        values[f"{split}-images-idx3-ubyte"] = generator.integers(0, 256, (count, 4, 5), dtype=np.uint8)
        values[f"{split}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 3
    return values


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, array in arrays().items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_files_are_read_under_all_their_names(tmp_path, dotted, compressed):
    for name, array in arrays().items():
        name = name.replace("-idx", ".idx") if dotted else name
        data = gzip.compress(idx(array)) if compressed else idx(array)
        (tmp_path / (f"{name}.gz" if compressed else name)).write_bytes(data)
    dataset = open_idx(tmp_path, "small")
    assert (dataset.name, dataset.classes, dataset.published) == ("small", ("0", "1", "2"), ("train", "test"))
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = dataset.read(split)
        np.testing.assert_array_equal(images.pixels[..., 0], arrays()[f"{prefix}-images-idx3-ubyte"])
        np.testing.assert_array_equal(images.labels, arrays()[f"{prefix}-labels-idx1-ubyte"])
    assert images.names == ("test/00000", "test/00001", "test/00002")
    assert images.pixels.flags.writeable


def test_a_file_unpacked_under_its_old_suffix_is_read(folder):
    (folder / FILES[0]).rename(folder / f"{FILES[0]}.gz")
    assert len(open_idx(folder, "small").read("train")) == 6


def test_reading_training_images_opens_no_test_file(folder):
    for name in FILES[2:]:
        (folder / name).write_bytes(b"not to be opened")
    dataset = open_idx(folder, "small")
    assert len(dataset.read("train")) == 6
    with pytest.raises(DataError, match="t10k"):
        dataset.read("test")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert holds_idx(folder)
    with pytest.raises(DataError, match=f"{name} is missing, also with .gz; the other IDX files are there"):
        open_idx(folder, "small")


def test_a_folder_without_idx_files_is_told_apart(tmp_path):
    assert not holds_idx(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it begins with '', not '00000803', or ends there"),
        (
            idx(np.zeros((2, 2), np.uint8)),
            "is not an IDX file of unsigned bytes in 3 dimensions: it begins with '00000802'",
        ),
        (b"\0\0\x0d\3" + bytes(12), "it begins with '00000d03'"),
        (b"\0\0\x08\3" + bytes(8), "or ends there"),
        (b"<html>not found</html>", "it begins with '3c68746d', not '00000803'"),
        (
            idx(np.zeros((2, 3, 3), np.uint8))[:-1],
            "holds 17 bytes after its header, which promises 18; download it again",
        ),
        (idx(np.zeros((2, 3, 3), np.uint8)) + b"x", "holds 19 bytes after its header, which promises 18"),
        (
            gzip.compress(idx(np.zeros((2, 3, 3), np.uint8)), mtime=0)[:-12],
            "is damaged or ends too early; download it again",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\3 damaged", "is damaged or ends too early"),
        (b"\x1f\x8bdamaged", "cannot be read|is damaged"),
        (gzip.compress(b"abc", mtime=0)[:-8] + bytes(8), "cannot be read|is damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: "):
        read_idx(tmp_path, 3)


def test_counts_of_images_and_labels_must_agree(folder):
    (folder / FILES[1]).write_bytes(idx(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match="train-images-idx3-ubyte holds 6 images, train-labels-idx1-ubyte 5 labels"):
        open_idx(folder, "small").read("train")


def test_labels_outside_the_classes_are_refused(folder):
    dataset = open_idx(folder, "small", ("a", "b"))
    assert dataset.classes == ("a", "b")
    with pytest.raises(
        DataError, match="train-labels-idx1-ubyte: the label of image 2 is 2; 2 classes have labels from 0"
    ):
        dataset.read("train")


def test_files_without_images_are_refused(folder):
    (folder / FILES[0]).write_bytes(idx(np.zeros((0, 4, 5), np.uint8)))
    (folder / FILES[1]).write_bytes(idx(np.zeros(0, np.uint8)))
    with pytest.raises(DataError, match="train-images-idx3-ubyte holds no image"):
        open_idx(folder, "small").read("train")


@pytest.mark.parametrize(
    ("split", "md5"),
    # of the uncompressed files as published, headers included
    [("train", "6bbc9ace898e44ae57da46a324031adb"), ("test", "2646ac647ad5339dbf082846283269ea")],
)
def test_mnist_has_the_published_bytes(split, md5, data_folder):
    pixels = open_idx(data_folder("mnist"), "mnist").read(split).pixels
    assert hashlib.md5(idx(pixels[..., 0])).hexdigest() == md5
