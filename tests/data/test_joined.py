import numpy as np
import pytest

from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.data.splits import make_splits
from vitrail.errors import DataError

SIZE = Preprocess(image_size=(8, 8), channels=3, fit="squash")


def test_folders_are_joined_by_class_name(tmp_path, write_tree):
    write_tree(tmp_path / "one", {"ant": 2, "bee": 3})
    write_tree(tmp_path / "two", {"bee": 4, "cat": 1}, first=50)
    joined = open_dataset(tmp_path / "one", tmp_path / "two")
    images = joined.prepared("all", SIZE)
    assert (joined.name, joined.classes, joined.published) == ("one+two", ("ant", "bee", "cat"), ("all",))
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 2]
    assert images.names[0] == "one/ant/000.png"
    assert images.names[-1] == "two/cat/000.png"
    alone = open_dataset(tmp_path / "two").prepared("all", SIZE)
    np.testing.assert_array_equal(images.pixels[5:], alone.pixels)
    assert images.hashes[5:] == alone.hashes


def test_folders_of_one_name_keep_their_images_apart(tmp_path, write_tree):
    for number, place in enumerate(("a", "b")):
        write_tree(tmp_path / place / "photos", {"ant": 1, "bee": 1}, first=10 * number)
    names = open_dataset(tmp_path / "a" / "photos", tmp_path / "b" / "photos").prepared("all", SIZE).names
    assert names == ("photos/ant/000.png", "photos/bee/000.png", "photos-2/ant/000.png", "photos-2/bee/000.png")


def test_sets_without_splits_go_into_training(tmp_path, write_tree):
    write_tree(tmp_path / "old", {"train/ant": 3, "train/bee": 3, "test/ant": 2, "test/bee": 2})
    write_tree(tmp_path / "new", {"ant": 4, "bee": 1}, first=50)
    joined = open_dataset(tmp_path / "new", tmp_path / "old")
    assert joined.published == ("train", "test")
    assert [len(joined.prepared(split, SIZE)) for split in joined.published] == [11, 4]


def test_a_copy_of_a_test_image_does_not_train(tmp_path, write_tree, write_photo):
    write_tree(tmp_path / "old", {"train/ant": 9, "train/bee": 9, "test/ant": 2, "test/bee": 2})
    write_tree(tmp_path / "new", {"ant": 4, "bee": 3}, first=50)
    write_photo(tmp_path / "new" / "ant" / "leak.png", seed=18)  # test/ant/000.png
    joined = open_dataset(tmp_path / "old", tmp_path / "new")
    splits = make_splits(joined, 0.1, 0.2, 0, SIZE)
    names = {split: splits.images(joined, split, SIZE).names for split in splits.parts}
    assert "new/ant/leak.png" not in names["train"] + names["validation"]
    assert len(names["test"]) == 4
    assert len(names["train"]) + len(names["validation"]) == 25


def test_named_sets_and_folders_can_be_joined(tmp_path, write_photo):
    for label in "01":
        for number in range(2):
            write_photo(tmp_path / "mine" / label / f"{number}.png", int(label) * 10 + number, (9, 9), "L")
    joined = open_dataset("digits", tmp_path / "mine")
    assert joined.shape == (9, 9, 1)
    assert joined.classes == tuple("0123456789")
    grey = Preprocess(image_size=(8, 8), channels=1, fit="pad")
    assert len(joined.prepared("all", grey)) == 1801


def test_splits_without_training_images_are_refused(tmp_path, write_tree):
    for place in ("a", "b"):
        write_tree(tmp_path / place, {"test/ant": 2, "test/bee": 2})
    with pytest.raises(DataError, match=r"^a\+b has no images to train on, only test$"):
        _ = open_dataset(tmp_path / "a", tmp_path / "b").shape


def test_broken_and_passed_over_files_are_named_with_their_set(tmp_path, write_tree):
    write_tree(tmp_path / "one", {"ant": 2, "bee": 3})
    write_tree(tmp_path / "two", {"ant": 2, "bee": 3}, first=9)
    (tmp_path / "two" / "ant" / "broken.png").write_bytes(b"")
    (tmp_path / "one" / "notes.txt").write_bytes(b"")
    joined = open_dataset(tmp_path / "one", tmp_path / "two")
    joined.prepared("all", SIZE)
    assert joined.broken["all"][0][0] == "two/ant/broken.png"
    assert joined.ignored == ("one/notes.txt",)
