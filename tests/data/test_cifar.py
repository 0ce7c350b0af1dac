import re

import numpy as np
import pytest

from vitrail.data.sources import open_dataset
from vitrail.errors import DataError


def records(count, num_labels, num_classes, seed):
    numbers = np.random.default_rng(seed)
    rows = numbers.integers(0, 256, (count, num_labels + 3072), dtype=np.uint8)
    rows[:, num_labels - 1] = np.arange(count) % num_classes
    return rows


@pytest.fixture
def cifar100(tmp_path):
    """CIFAR-100's binary files, with three classes and a few images."""
    folder = tmp_path / "cifar100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    rows = {"train": records(12, 2, 3, 0), "test": records(6, 2, 3, 1)}
    for split, content in rows.items():
        (folder / f"{split}.bin").write_bytes(content.tobytes())
    (folder / "fine_label_names.txt").write_text("apple\naquarium_fish\nbaby\n\n", encoding="utf-8")
    (folder / "coarse_label_names.txt").write_text("fruit\nfish\npeople\n", encoding="utf-8")
    return tmp_path, rows


@pytest.fixture
def cifar10(tmp_path):
    """CIFAR-10's, unpacked into the set's own folder."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    batches = [records(4, 1, 2, number) for number in range(6)]
    for number, content in enumerate(batches[:5], 1):
        (folder / f"data_batch_{number}.bin").write_bytes(content.tobytes())
    (folder / "test_batch.bin").write_bytes(batches[5].tobytes())
    (folder / "batches.meta.txt").write_text("airplane\nautomobile\n\n", encoding="utf-8")
    return tmp_path, {"train": np.concatenate(batches[:5]), "test": batches[5]}


@pytest.mark.parametrize(("name", "num_labels"), [("cifar10", 1), ("cifar100", 2)])
def test_pixels_stand_where_the_format_says(name, num_labels, request, monkeypatch):
    root, rows = request.getfixturevalue(name)
    monkeypatch.setenv("VITRAIL_DATA", str(root))
    dataset = open_dataset(name)
    assert dataset.published == ("train", "test")
    assert dataset.classes == (("airplane", "automobile") if name == "cifar10" else ("apple", "aquarium_fish", "baby"))
    for split, expected in rows.items():
        images = dataset.read(split)
        assert images.pixels.shape == (len(expected), 32, 32, 3)
        assert images.labels.tolist() == expected[:, num_labels - 1].tolist()
        for row, column, channel in ((0, 0, 0), (0, 31, 1), (17, 5, 2), (31, 31, 2)):
            place = num_labels + 1024 * channel + 32 * row + column
            np.testing.assert_array_equal(images.pixels[:, row, column, channel], expected[:, place])


def refused(root, message):
    with pytest.raises(DataError, match=message):
        open_dataset(root / "cifar100").read("train")


def test_what_is_missing_is_named(cifar100):
    root, _ = cifar100
    (root / "cifar100" / "cifar-100-binary" / "test.bin").unlink()
    refused(root, r"cifar100 has no test\.bin, which belongs to its other files; unpack the whole archive there$")


def test_a_torn_file_is_refused(cifar100):
    root, rows = cifar100
    (root / "cifar100" / "cifar-100-binary" / "train.bin").write_bytes(rows["train"].tobytes()[:-1])
    refused(root, r"train\.bin has 36,887 bytes, not a multiple of the 3,074 that an image takes; it is torn")


def test_labels_beyond_the_classes_are_refused(cifar100):
    root, rows = cifar100
    rows["train"][3, 1] = 77
    (root / "cifar100" / "cifar-100-binary" / "train.bin").write_bytes(rows["train"].tobytes())
    refused(root, re.escape("the label of image 3 is 77; 3 classes have labels from 0 to 2"))


def test_pickles_are_not_read(tmp_path):
    (tmp_path / "cifar100" / "cifar-100-python").mkdir(parents=True)
    refused(tmp_path, r"holds CIFAR as pickles \(cifar-100-python\), which can run any program when they are read; dow")
