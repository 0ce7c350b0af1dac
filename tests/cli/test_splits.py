"""Groups and folds, as users ask for them."""

import json
import logging
from pathlib import Path

import pytest

from vitrail.data.sources import open_dataset
from vitrail.data.splits import make_splits, read_splits

OPTIONS = ("--recipe", "digits", "--epochs", "1", "--set", "model.embed_dim=16", "--set", "model.depth=1")
FAST = (*OPTIONS, "--set", "training.batch_size=16", "--set", "model.image_size=8")


@pytest.fixture
def patients(write_tree) -> Path:
    """./clinic, two classes, ten patients of 3 images of each."""
    folders = {f"{label}/patient{number}": 3 for label in ("ill", "well") for number in range(10)}
    return write_tree(Path("clinic"), folders)


def homes(run):
    """The splits in which each patient has images."""
    found = {}
    for split, part in read_splits(Path(run, "splits.json")).parts.items():
        for name in part.members.names:
            found.setdefault(name.split("/")[-2], set()).add(split)
    return found


@pytest.mark.parametrize("group", ["folder", r"regex:(patient\d+)"])
def test_groups_stay_together_and_intervals_are_of_groups(vitrail, patients, group):
    if group != "folder":  # without it, the classes are the topmost folders that hold images
        for label in ("ill", "well"):
            (patients / label / "note.png").write_bytes((patients / label / "patient0" / "000.png").read_bytes())
    done = vitrail("train", patients, *FAST, "--set", f"data.group={group}", "--out", "run", "--json")
    assert done.code == 0, done.err
    assert [row["class"] for row in done.json["test"]["per_class"]] == ["ill", "well"]
    found = homes("run")
    assert all(len(splits) == 1 for name, splits in found.items() if name.startswith("patient"))
    tested = done.json["test"]
    num_groups = len([name for name, splits in found.items() if "test" in splits])
    assert (tested["groups"], tested["interval_method"]) == (num_groups, "bootstrap of groups")
    again = vitrail("evaluate", "run", "--json")
    assert again.json["test"] == tested
    assert f"{tested['images']} images of {num_groups} groups" in vitrail("evaluate", "run").out


def test_added_patients_move_no_other(vitrail, patients, write_tree):
    vitrail("train", patients, *FAST, "--set", "data.group=folder", "--out", "before")
    write_tree(patients, {f"well/patient{number}": 2 for number in (20, 21, 22)}, first=500)
    vitrail("train", patients, *FAST, "--set", "data.group=folder", "--out", "after")
    after = homes("after")
    assert all(after[name] == splits for name, splits in homes("before").items())


def test_published_groups_keep_others_of_them_out_of_training(vitrail, write_tree, caplog):
    counts = {f"train/{label}/p{number}": 2 for label in ("ill", "well") for number in range(6)}
    write_tree(Path("set"), {**counts, "test/ill/p1": 2, "test/well/p1": 2})
    with caplog.at_level(logging.INFO, "vitrail"):
        done = vitrail("train", "set", *FAST, "--set", "data.group=folder", "--out", "run", "--json")
    assert "Left out of train: 4 images that test has, too (4 of its groups)" in caplog.text
    assert done.json["test"]["images"] == 4
    assert homes("run")["p1"] == {"test"}


def test_copies_of_test_images_leave_the_training_of_idx_files(vitrail, small, caplog):
    arguments = small("photos")
    train, test = (Path("photos", f"{name}-images-idx3-ubyte") for name in ("train", "t10k"))
    content = bytearray(train.read_bytes())
    pixels = (len(content) - 16) // int.from_bytes(content[4:8], "big")
    content[16 : 16 + pixels] = test.read_bytes()[16 : 16 + pixels]
    train.write_bytes(content)
    with caplog.at_level(logging.INFO, "vitrail"):
        done = vitrail("train", *arguments, "--json", "--out", "run")
    assert done.code == 0, done.err
    assert "Left out of train: 1 image that test has, too (1 equal)" in caplog.text
    parts = json.loads(Path("run/splits.json").read_text(encoding="utf-8"))["splits"]
    assert 0 not in parts["train"]["indices"] + parts["validation"]["indices"]
    assert parts["test"]["indices"] is None
    assert vitrail("evaluate", "run", "--json").json["test"] == done.json["test"]


def test_the_folds_of_digits_test_every_image_once(vitrail, caplog):
    with caplog.at_level(logging.INFO, "vitrail"):
        done = vitrail("train", "digits", *OPTIONS, "--set", "data.fold=3/3", "--out", "run", "--json")
    assert "Of 3 folds, fold 3 is test and fold 1 is validation" in caplog.text
    assert json.loads(Path("run/splits.json").read_text(encoding="utf-8"))["fold"] == "3/3"
    digits = open_dataset("digits")
    folds = [make_splits(digits, 0.1, 0.2, 0, fold=f"{fold}/3").parts for fold in (1, 2)]
    folds.append(read_splits("run/splits.json").parts)
    tested, validated = ([parts[split].indices.tolist() for parts in folds] for split in ("test", "validation"))
    assert sorted(index for fold in tested for index in fold) == list(range(1797))
    assert validated == [*tested[1:], tested[0]]
    assert done.json["test"]["images"] == len(tested[2])
    assert len({*folds[2]["train"].indices.tolist(), *tested[2], *validated[2]}) == 1797


def test_a_published_test_stays_the_test_of_every_fold(vitrail, small, caplog):
    with caplog.at_level(logging.INFO, "vitrail"):
        for fold in ("1/2", "2/2"):
            vitrail("train", *small("photos"), "--set", f"data.fold={fold}", "--out", fold[0])
    assert "Of 2 folds, fold 2 is validation; the published test stays" in caplog.text
    first, second = (read_splits(f"{run}/splits.json").parts for run in "12")
    assert first["train"].indices.tolist() == second["validation"].indices.tolist()
    assert first["test"].indices is None


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (["data.fold=0/5"], 2, "data.fold=0/5 is none of 5 folds; use 1/5 to 5/5"),
        (["data.fold=1/1"], 2, "data.fold=1/1 is no fold; use 2/5 for the second of five, or another of two or more"),
        (["data.fold=1/2"], 2, "data.fold=1/2 leaves no fold to train on, as one is the test and one validation; use "),
        (["data.fold=half"], 2, "data.fold='half' is not possible: "),
        (["data.group=foldr"], 2, "data.group=foldr is not possible. Did you mean 'folder'? Use one of folder, "),
        (["data.group=regex:("], 2, "data.group=regex:( is no regular expression: missing ), "),
        (["data.group=column"], 2, "data.group=column is for tables, and clinic is none; leave it out"),
        (["data.group=exif_time"], 2, "data.group=exif_time finds a group for none of the 60 images (ill/patient0/000"),
        (
            ["data.group=regex:(p)a"],
            1,
            "Class 'ill/patient0' has images of 1 group (p); 3 are needed, one for each of ",
        ),
    ],
)
def test_wishes_that_cannot_be_granted_are_refused(vitrail, patients, settings, code, message):
    done = vitrail("train", patients, *FAST, *(f"--set={setting}" for setting in settings))
    assert (done.code, done.error[: len(message)]) == (code, message)
