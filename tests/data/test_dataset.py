import numpy as np
import pytest

from vitrail.data.dataset import Dataset, ImageSet, check_labels, number_names
from vitrail.errors import ConfigError, DataError


def image_set(count: int = 4) -> ImageSet:
    pixels = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2, 1)
    return ImageSet(pixels, np.arange(count, dtype=np.int64), number_names("train", count))


def test_taking_images_keeps_what_belongs_together():
    taken = image_set().take(np.array([3, 1]))
    assert len(taken) == 2
    assert taken.pixels[:, 0, 0, 0].tolist() == [12, 4]
    assert taken.labels.tolist() == [3, 1]
    assert taken.names == ("train/00003", "train/00001")


def test_taken_images_are_copies():
    images = image_set()
    images.take(np.array([0])).pixels[:] = 99
    assert images.pixels[0, 0, 0, 0] == 0


def test_a_split_is_read_once_and_only_when_asked_for():
    asked = []

    def reader(split: str) -> ImageSet:
        asked.append(split)
        return image_set()

    dataset = Dataset("set", ("a", "b"), ("train", "test"), reader)
    assert asked == []
    assert dataset.read("train") is dataset.read("train")
    assert asked == ["train"]


def test_an_unknown_split_is_refused():
    dataset = Dataset("set", ("a",), ("train", "test"), lambda _: image_set())
    with pytest.raises(ConfigError, match=r"^set has no split 'tset'\. Did you mean 'test'\? It has train, test$"):
        dataset.read("tset")


@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_outside_the_classes_are_refused(wrong):
    check_labels(np.array([0, 2, 1]), 3, "labels.csv")
    with pytest.raises(
        DataError, match=rf"^labels\.csv: the label of image 1 is {wrong}; 3 classes have labels from 0"
    ):
        check_labels(np.array([0, wrong, 1]), 3, "labels.csv")
