import json

import pytest

from vitrail.data.audit import audit_dataset, check_broken
from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.errors import DataError

SIZE = Preprocess(image_size=(8, 8), channels=3, fit="squash")


def audit(root):
    return audit_dataset(open_dataset(root), SIZE)


def test_images_are_counted_by_split_and_class(tmp_path, write_tree):
    found = audit(write_tree(tmp_path / "photos", {"train/ant": 3, "train/bee": 2, "test/bee": 1}))
    assert found.counts == {"train": (3, 2), "test": (0, 1)}
    assert found.sentences() == ["photos: 5 train, 1 test images of 2 classes (2 bee to 3 ant)"]


def test_equal_pixels_are_found_whatever_the_file(tmp_path, write_tree, write_photo):
    root = write_tree(tmp_path / "photos", {"ant": 3, "bee": 3})
    write_photo(root / "ant" / "copy.bmp", seed=1)  # another format, the same pixels
    write_photo(root / "bee" / "copy.png", seed=0)  # under another label
    found = audit(root)
    assert found.duplicates == {"all": (("ant/000.png", "bee/copy.png"), ("ant/001.png", "ant/copy.bmp"))}
    assert found.conflicts == {"all": (("ant/000.png", "bee/copy.png"),)}
    assert found.sentences()[1:] == [
        "Exact copies: 2 (ant/000.png = bee/copy.png, ant/001.png = ant/copy.bmp)",
        "Equal pixels under different labels: 1 (ant/000.png = bee/copy.png)",
    ]


def test_copies_between_splits_are_found(tmp_path, write_tree, write_photo):
    root = write_tree(tmp_path / "photos", {"train/ant": 3, "train/bee": 3, "test/ant": 2})
    write_photo(root / "test" / "ant" / "leak.png", seed=2)
    found = audit(root)
    assert found.shared == {"train/test": (("train/ant/002.png", "test/ant/leak.png"),)}
    assert "In train as well as in test: 1 image (train/ant/002.png = test/ant/leak.png)" in found.sentences()


def test_broken_and_other_files_are_named(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"ant": 3, "bee": 2})
    (root / "ant" / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("x", encoding="utf-8")
    found = audit(root)
    assert found.sentences()[1:] == [
        "Left out: 1 broken file: ant/empty.png is not an image that can be read: it is empty",
        "Training needs 3 images of a class or more, one for each split: bee (2)",
        "Over 1 % broken: training stops, unless data.max_broken_rate is raised",
        "Passed over, being no images in a class folder: notes.txt",
    ]
    told = json.loads(json.dumps(found.to_dict()))
    assert told["broken"]["all"] == [
        {"image": "ant/empty.png", "reason": "ant/empty.png is not an image that can be read: it is empty"}
    ]
    assert told["counts"] == {"all": {"ant": 3, "bee": 2}}
    assert told["ignored"] == ["notes.txt"]


def test_more_broken_files_than_allowed_stop(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"ant": 30, "bee": 29})
    (root / "bee" / "empty.png").write_bytes(b"")
    dataset = open_dataset(root)
    num_readable = len(dataset.prepared("all", SIZE))
    check_broken(dataset, "all", num_readable, 1 / 60)
    with pytest.raises(
        DataError,
        match=r"^1 of the 60 images of photos cannot be read \(bee/empty\.png .* it is empty\); mend or remove "
        r"them, or leave them out with --set data\.max_broken_rate=0\.02$",
    ):
        check_broken(dataset, "all", num_readable, 0.01)


def test_every_kind_of_set_can_be_audited():
    found = audit_dataset(open_dataset("digits"), Preprocess(image_size=(8, 8), channels=1, fit="pad"))
    assert sum(found.counts["all"]) == 1797
    assert found.duplicates == {"all": ()}


def test_copies_are_told_with_the_hash_that_corrections_take(tmp_path, write_tree, write_photo):
    root = write_tree(tmp_path / "photos", {"train/ant": 3, "train/bee": 2, "test/ant": 1})
    write_photo(root / "train" / "ant" / "copy.png", seed=1)
    write_photo(root / "test" / "ant" / "leak.png", seed=0)
    images = open_dataset(root).prepared("train", SIZE)
    contents = dict(zip(images.names, images.hashes, strict=True))
    told = audit(root).to_dict()
    names = ["train/ant/001.png", "train/ant/copy.png"]
    assert told["duplicates"]["train"] == [{"hash": contents[names[0]], "images": names}]
    assert told["shared"]["train/test"] == [
        {"image": "train/ant/000.png", "copy": "test/ant/leak.png", "hash": contents["train/ant/000.png"]}
    ]


def test_an_empty_class_folder_is_named(tmp_path, write_tree):
    root = write_tree(tmp_path / "photos", {"ant": 3, "bee": 3})
    (root / "wasp").mkdir()
    assert audit(root).sentences()[1] == "Passed over, being no images in a class folder: wasp/"


def test_one_class_is_no_task(tmp_path, write_tree):
    assert audit(write_tree(tmp_path / "photos", {"ant": 3})).sentences() == [
        "photos: 3 images of 1 class (3 each)",
        "Training needs two classes or more",
    ]
