import os
import sys

import pytest

from vitrail.data.folders import holds_class_folders, list_class_folders
from vitrail.errors import ConfigError, DataError


def labels_of(root):
    listing = list_class_folders(root)
    return {split: dict(images) for split, images in listing.splits.items()}


def test_folders_are_classes(tmp_path, write_tree):
    write_tree(tmp_path, {"bee": 1, "ant": 2})
    listing = list_class_folders(tmp_path)
    assert listing.classes == ("ant", "bee")
    assert listing.splits == {"all": (("ant/000.png", "ant"), ("ant/001.png", "ant"), ("bee/000.png", "bee"))}
    assert listing.ignored == ()


def test_split_folders_hold_class_folders(tmp_path, write_tree):
    write_tree(tmp_path, {"Train/ant": 2, "Train/bee": 1, "val/ant": 1, "TEST/bee": 1})
    found = labels_of(tmp_path)
    assert list(found) == ["train", "validation", "test"]
    assert found["train"] == {"Train/ant/000.png": "ant", "Train/ant/001.png": "ant", "Train/bee/000.png": "bee"}
    assert found["validation"] == {"val/ant/000.png": "ant"}
    assert found["test"] == {"TEST/bee/000.png": "bee"}


def test_a_class_is_the_topmost_folder_with_images(tmp_path, write_tree):
    write_tree(tmp_path, {"cats": 1, "cats/2024/may": 1, "birds/owls": 1, "birds/owls/young": 1, "birds/ducks": 1})
    assert labels_of(tmp_path)["all"] == {
        "birds/ducks/000.png": "birds/ducks",
        "birds/owls/000.png": "birds/owls",
        "birds/owls/young/000.png": "birds/owls",
        "cats/000.png": "cats",
        "cats/2024/may/000.png": "cats",
    }


def test_a_class_may_be_called_train(tmp_path, write_tree):
    write_tree(tmp_path, {"car": 1, "train": 1})
    assert list_class_folders(tmp_path).classes == ("car", "train")


def test_what_is_no_image_is_named(tmp_path, write_tree):
    write_tree(tmp_path, {"ant": 1, "bee": 1, ".git": 1, "not_sure": 2, "bee/not_sure": 1})
    for name in (".DS_Store", "ant/Thumbs.db", "bee/.hidden.png", "bee/clip.mp4", "cover.txt"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_class_folders(tmp_path)
    assert listing.ignored == (
        ".DS_Store", ".git", "ant/Thumbs.db", "bee/.hidden.png", "bee/clip.mp4", "bee/not_sure", "cover.txt",
        "not_sure",
    )  # fmt: skip
    assert listing.classes == ("ant", "bee")


def test_images_beside_class_folders_are_named(tmp_path, write_tree, write_photo):
    write_tree(tmp_path, {"train/ant": 1, "train/bee": 1})
    write_photo(tmp_path / "train" / "stray.png")
    write_photo(tmp_path / "cover.png")
    assert list_class_folders(tmp_path).ignored == ("cover.png", "train/stray.png")


def test_order_does_not_depend_on_the_disk(tmp_path, write_tree):
    write_tree(tmp_path / "one", {"bee": 3, "ant": 2})
    write_tree(tmp_path / "two", {"ant": 2, "bee": 3})
    assert list_class_folders(tmp_path / "one").splits == list_class_folders(tmp_path / "two").splits


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is empty; a data set's folder holds a folder of images for each class$"):
        list_class_folders(tmp_path)


def test_files_without_class_folders_are_refused(tmp_path, write_tree):
    write_tree(tmp_path, {".": 7})
    with pytest.raises(DataError, match=r"holds 7 images but no class folders; put the images of each class into"):
        list_class_folders(tmp_path)
    write_tree(tmp_path / "split", {"train": 2, "test/ant": 1})
    with pytest.raises(DataError, match=r"split.train holds 2 images but no class folders"):
        list_class_folders(tmp_path / "split")


def test_splits_beside_classes_are_refused(tmp_path, write_tree):
    write_tree(tmp_path, {"train/ant": 1, "train/bee": 1, "extra/ant": 1})
    with pytest.raises(DataError, match=r"holds the split folder train and beside them images in extra; a data set's"):
        list_class_folders(tmp_path)


def test_classes_that_training_lacks_are_refused(tmp_path, write_tree):
    write_tree(tmp_path, {"train/ant": 1, "train/bee": 1, "test/ant": 1, "test/wasp": 1})
    with pytest.raises(DataError, match=r": test has 1 class that train has no image of: wasp; add training images"):
        list_class_folders(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_that_lead_back_end(tmp_path, write_tree):
    write_tree(tmp_path, {"ant": 1, "bee": 1})
    (tmp_path / "ant" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "bee" / "self").symlink_to("self")
    (tmp_path / "bee" / "gone").symlink_to("nowhere")
    listing = list_class_folders(tmp_path)
    assert [name for name, _ in listing.splits["all"]] == ["ant/000.png", "bee/000.png"]
    assert listing.ignored == ("ant/again", "bee/gone", "bee/self")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_to_folders_elsewhere_are_followed(tmp_path, write_tree):
    write_tree(tmp_path / "disk", {"wasp": 2})
    write_tree(tmp_path / "data", {"ant": 1})
    (tmp_path / "data" / "wasp").symlink_to(tmp_path / "disk" / "wasp", target_is_directory=True)
    assert list_class_folders(tmp_path / "data").classes == ("ant", "wasp")


def test_unreadable_folders_are_counted_and_named(tmp_path, write_tree, monkeypatch):
    write_tree(tmp_path, {"ant": 1, "bee": 1, "wasp": 1})
    real = os.scandir

    def scandir(place):
        if os.path.basename(place) in ("bee", "wasp"):
            raise PermissionError(13, "Permission denied", place)
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)  # root, as in containers, may read everything
    with pytest.raises(DataError, match=r": 2 folders cannot be read \(wasp, bee: Permission denied\); make them"):
        list_class_folders(tmp_path)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_names_that_are_not_utf8(tmp_path, write_tree):
    write_tree(tmp_path, {"ant": 1, "bee": 1})
    os.rename(tmp_path / "ant" / "000.png", os.fsencode(tmp_path / "ant") + b"/caf\xe9.png")
    assert list_class_folders(tmp_path).splits["all"][0] == ("ant/caf\udce9.png", "ant")
    os.rename(tmp_path / "bee", os.fsencode(tmp_path) + b"/b\xe9e")
    with pytest.raises(DataError, match=r"class folder 'b\\udce9e' in .* has a name that is not UTF-8; rename it"):
        list_class_folders(tmp_path)


def test_a_data_set_is_recognised(tmp_path, write_tree):
    assert not holds_class_folders(tmp_path)
    write_tree(tmp_path, {"ant": 1})
    assert not holds_class_folders(tmp_path)
    write_tree(tmp_path, {"bee": 1})
    assert holds_class_folders(tmp_path)
    write_tree(tmp_path / "split", {"train/ant": 1, "train/bee": 1})
    assert holds_class_folders(tmp_path / "split")
    write_tree(tmp_path / "run", {"figures": 3})
    assert not holds_class_folders(tmp_path / "run")
