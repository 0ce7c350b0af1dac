import numpy as np

from vitrail.data.copies import exact_copies, near_copies
from vitrail.data.dataset import ImageSet


def image_set(split, values, labels):
    pixels = np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    names = tuple(f"{split}/{index}" for index in range(len(values)))
    return ImageSet(pixels, np.array(labels, np.int64), names)


def test_copies_are_told_within_and_across_splits():
    images = {"train": image_set("train", [1, 2, 1, 3], [0, 0, 0, 1]), "test": image_set("test", [3, 1, 5], [0, 0, 1])}
    found = [(one.kind, one.split, one.images, one.sentence) for one in exact_copies(images, ["ant", "bee"])]
    assert found == [
        (
            "shared_between_splits",
            "train/test",
            ("train/0", "train/2", "test/1"),
            "train/0, train/2, test/1 have equal pixels, in train and in test",
        ),
        (
            "shared_between_splits",
            "train/test",
            ("train/3", "test/0"),
            "train/3, test/0 have equal pixels, in train and in test",
        ),
        ("exact_duplicate", "train", ("train/0", "train/2"), "train/0, train/2 have equal pixels"),
        (
            "conflicting_labels",
            "train/test",
            ("train/3", "test/0"),
            "train/3, test/0 have equal pixels under different labels, bee, ant",
        ),
    ]


def test_a_conflict_within_a_split_is_not_told_again_across():
    images = {"train": image_set("train", [1, 1], [0, 1]), "test": image_set("test", [1], [0])}
    found = [one for one in exact_copies(images, ["ant", "bee"]) if one.kind == "conflicting_labels"]
    assert [(one.split, one.details["classes"]) for one in found] == [("train", ["ant", "bee"])]


def test_images_of_several_labels_conflict_where_any_differs():
    images = image_set("all", [1, 1, 2, 2], [0, 0, 0, 0])
    several = ImageSet(images.pixels, np.array([[1, 0], [1, 1], [0, 0], [0, 0]]), images.names)
    found = [one for one in exact_copies({"all": several}, ["ant", "bee"]) if one.kind == "conflicting_labels"]
    assert [one.details["classes"] for one in found] == [[["ant"], ["ant", "bee"]]]
    assert found[0].sentence == "all/0, all/1 have equal pixels under different labels, ant, ant + bee"


def test_of_near_copies_only_what_is_not_equal_is_told():
    images = {"train": image_set("train", [1, 1, 2, 9], [0, 0, 0, 1]), "test": image_set("test", [1, 9, 8], [0, 1, 0])}
    groups = [np.array([0, 1, 2, 4]), np.array([3, 5, 6])]
    found = [(one.kind, one.split, one.images) for one in near_copies(images, ["ant", "bee"], groups)]
    assert found == [
        ("shared_between_splits", "train/test", ("train/0", "train/2", "test/0")),
        ("shared_between_splits", "train/test", ("train/3", "test/1", "test/2")),
        ("near_duplicate", "train", ("train/0", "train/2")),
        ("near_duplicate", "test", ("test/1", "test/2")),
        ("conflicting_labels", "test", ("test/1", "test/2")),
    ]
    assert near_copies(images, ["ant", "bee"], [np.array([0, 1, 4])]) == []
