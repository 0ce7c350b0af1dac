"""Commands on folders of photographs, as their users have them."""

import json
import logging
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

OPTIONS = ("--recipe", "digits", "--epochs", "2", "--set", "model.embed_dim=16", "--set", "model.depth=1")
FAST = (*OPTIONS, "--set", "training.batch_size=16", "--set", "model.image_size=8")


@pytest.fixture
def photos(tmp_path, write_tree) -> Path:
    """./my photos, three classes of small noise, without splits."""
    return write_tree(tmp_path / "my photos", {"ant": 20, "bee": 20, "été": 20}, suffix=".jpg")


def splits_of(run):
    content = json.loads(Path(run, "splits.json").read_text(encoding="utf-8"))["splits"]
    return {name: {*part["members"]["hashes"]} for name, part in content.items()}


def test_a_folder_is_trained_on_and_tested(vitrail, photos, caplog):
    (photos / ".DS_Store").write_bytes(b"")
    (photos / "ant" / "clip.mp4").write_bytes(b"")
    with caplog.at_level(logging.INFO, "vitrail"):
        done = vitrail("train", photos, *FAST, "--json")
    assert done.code == 0
    assert done.json["dataset"] == "my photos"
    assert sum(done.json[split]["images"] for split in ("validation", "test")) + 30 < 60
    assert [row["class"] for row in done.json["test"]["per_class"]] == ["ant", "bee", "été"]
    assert "my photos: 60 images of 3 classes (20 each)" in caplog.text
    assert "Passed over, being no images in a class folder: .DS_Store, ant/clip.mp4" in caplog.text
    run = Path(done.json["run"])
    assert run.name == "my_photos-digits-1"
    assert json.loads((run / "audit.json").read_text(encoding="utf-8"))["counts"]["all"]["été"] == 20
    again = vitrail("evaluate", "last", "--json")
    assert again.json["test"] == done.json["test"]
    predicted = vitrail("predict", "last", photos / "été", "--json")
    assert len(predicted.json["predictions"]) == 20


def test_predictions_of_test_images_are_those_of_training(vitrail, photos):
    vitrail("train", photos, *FAST, "--out", "run")
    import pyarrow.parquet as pq

    rows = pq.read_table("run/predictions/test.parquet").to_pylist()
    predicted = vitrail("predict", "run", *(photos / row["image"] for row in rows), "--json").json["predictions"]
    assert [row["prediction"] for row in rows] == [one["label"] for one in predicted]


def test_added_images_move_no_old_one(vitrail, photos, write_tree):
    vitrail("train", photos, *FAST, "--out", "before")
    write_tree(photos, {"ant": 35, "bee": 35, "wasp": 30}, suffix=".jpg", first=500)  # some replaced, some new
    vitrail("train", photos, *FAST, "--out", "after")
    before, after = splits_of("before"), splits_of("after")
    assert not before["test"] & (after["train"] | after["validation"])
    assert not before["train"] & (after["test"] | after["validation"])


def test_a_run_is_tested_on_its_own_images_when_others_were_added(vitrail, photos, write_tree):
    first = vitrail("train", photos, *FAST, "--out", "run", "--json").json
    write_tree(photos, {"aardvark": 9}, suffix=".jpg", first=900)
    write_tree(photos / "more", {"ant": 3}, suffix=".jpg", first=950)
    shutil.move(photos / "more" / "ant", photos / "ant" / "more")
    (photos / "more").rmdir()
    again = vitrail("evaluate", "run", "--json")
    assert again.json["test"] == first["test"]


def test_images_that_are_gone_or_moved_are_named(vitrail, photos):
    vitrail("train", photos, *FAST, "--out", "run")
    content = json.loads(Path("run/splits.json").read_text(encoding="utf-8"))["splits"]["test"]["members"]
    name = content["names"][0]
    (photos / name).rename(photos / "aside.jpg")
    done = vitrail("evaluate", "run")
    count = len(content["names"])
    assert (done.code, done.error) == (
        1,
        f"my photos changed: of the run's {count} test images 1 no longer there ({name}); put them back, "
        "start a new run, or evaluate all that this one was not trained on: vitrail evaluate RUN DATA",
    )
    other = "bee" if name.startswith("ant") else "ant"
    (photos / "aside.jpg").rename(photos / other / "moved.jpg")
    label = name.partition("/")[0]
    assert (
        f"test images 1 now of another class ({name} is {other!r} now, was {label!r})"
        in vitrail("evaluate", "run").error
    )


def test_an_interrupted_run_goes_on_when_images_were_added(vitrail, photos, write_tree, interrupted):
    whole = vitrail("train", photos, *FAST, "--out", "whole", "--json").json
    with interrupted(signal.SIGTERM):
        assert vitrail("train", photos, *FAST, "--out", "run").code == 143
    write_tree(photos, {"aardvark": 9}, suffix=".jpg", first=900)
    resumed = vitrail("train", "--resume", "--out", "run", "--json")
    assert resumed.code == 0
    assert resumed.json["test"] == whole["test"]
    assert Path("run/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_corrections_are_applied_and_kept(vitrail, photos):
    Path("fix.csv").write_text("été/000.jpg,drop,\nant/001.jpg,relabel,bee\nété,rename,summer\n", encoding="utf-8")
    done = vitrail("train", photos, *FAST, "--corrections", "fix.csv", "--out", "run", "--json")
    assert [row["class"] for row in done.json["test"]["per_class"]] == ["ant", "bee", "summer"]
    assert Path("run/corrections.csv").read_text(encoding="utf-8") == Path("fix.csv").read_text(encoding="utf-8")
    audit = json.loads(Path("run/audit.json").read_text(encoding="utf-8"))
    assert audit["counts"]["all"] == {"ant": 19, "bee": 21, "summer": 19}
    Path("fix.csv").unlink()
    assert vitrail("evaluate", "run", "--json").json["test"] == done.json["test"]
    assert len(list(photos.rglob("*.jpg"))) == 60


def test_a_run_is_evaluated_with_corrections(vitrail, photos):
    first = vitrail("train", photos, *FAST, "--out", "run", "--json").json
    members = json.loads(Path("run/splits.json").read_text(encoding="utf-8"))["splits"]["test"]["members"]
    Path("fix.csv").write_text(f"{members['names'][0]},drop,\n", encoding="utf-8")
    again = vitrail("evaluate", "run", "--corrections", "fix.csv", "--json")
    assert again.json["test"]["images"] == first["test"]["images"] - 1


def test_other_corrections_do_not_go_on_with_a_run(vitrail, photos, interrupted):
    Path("fix.csv").write_text("ant/000.jpg,drop,\n", encoding="utf-8")
    with interrupted(signal.SIGTERM):
        vitrail("train", photos, *FAST, "--corrections", "fix.csv", "--out", "run")
    Path("other.csv").write_text("ant/001.jpg,drop,\n", encoding="utf-8")
    done = vitrail("train", "--resume", "--out", "run", "--corrections", "other.csv")
    assert "has other settings (data.corrections" in done.error
    assert vitrail("train", "--resume", "--out", "run", "--corrections", "fix.csv").code == 0


def test_other_folders_are_evaluated_without_what_the_run_learned_from(vitrail, photos, write_tree, caplog):
    vitrail("train", photos, *FAST, "--out", "run")
    new = write_tree(Path("new"), {"ant": 4, "bee": 3}, suffix=".jpg", first=700)
    shutil.copy(photos / "ant" / "000.jpg", new / "ant" / "old.jpg")
    trained = splits_of("run")["train"] | splits_of("run")["validation"]
    with caplog.at_level(logging.INFO, "vitrail"):
        done = vitrail("evaluate", "run", "new", "--json")
    audit = vitrail("audit", photos, "--json").json
    assert audit["duplicates"] == {"all": []}
    left_out = done.json["test"]["images"] == 7
    assert left_out == ("1 images are left out" in caplog.text)
    assert left_out or len(trained) < 60
    write_tree(new, {"wasp": 3}, suffix=".jpg", first=800)
    assert vitrail("evaluate", "run", "new").error == (
        "new has a class that the model does not know, wasp; it knows ant, bee, été. "
        "Rename or merge them with --corrections"
    )


def test_data_are_joined(vitrail, photos, write_tree):
    write_tree(Path("more"), {"ant": 5, "été": 5}, suffix=".png", first=300)
    done = vitrail("train", photos, "more", *FAST, "--json")
    assert done.json["dataset"] == "my photos+more"
    assert vitrail("evaluate", "last", "--json").json["test"] == done.json["test"]


def test_published_splits_stay_and_copies_leave_training(vitrail, write_tree, write_photo, caplog):
    counts = {"train/ant": 12, "train/bee": 12, "val/ant": 4, "val/bee": 4, "test/ant": 5, "test/bee": 5}
    write_tree(Path("set"), counts)
    write_photo(Path("set/train/ant/leak.png"), seed=32)  # test/ant/000.png
    with caplog.at_level(logging.INFO, "vitrail"):
        done = vitrail("train", "set", *FAST, "--out", "run", "--json")
    assert (done.json["validation"]["images"], done.json["test"]["images"]) == (8, 10)
    assert "In train as well as in test: 1 image (train/ant/leak.png = test/ant/000.png)" in caplog.text
    assert len(splits_of("run")["train"]) == 24


def test_a_bare_command_beside_class_folders_asks(vitrail, write_tree):
    write_tree(Path(), {"ant": 2, "bee": 2})
    done = vitrail("train")
    assert (done.code, done.error) == (
        2,
        "This folder holds class folders; `vitrail train .` trains on them, `vitrail train digits` on the digits",
    )


def test_too_many_broken_files_stop_before_training(vitrail, photos):
    for number in range(3):
        (photos / "ant" / f"bad{number}.jpg").write_bytes(b"no")
    done = vitrail("train", photos, *FAST)
    assert done.code == 1
    assert done.error.startswith(
        "3 of the 63 images of my photos cannot be read (ant/bad0.jpg is not an image that can"
    )
    assert done.error.endswith("or leave them out with --set data.max_broken_rate=0.05")
    assert not Path("runs").exists()
    assert vitrail("train", photos, *FAST, "--set", "data.max_broken_rate=0.05").code == 0


@pytest.mark.parametrize(
    ("counts", "code", "message"),
    [
        ({}, 2, "set is empty; a data set's folder holds a folder of images for each class, the four IDX files of "),
        (
            {".": 3},
            1,
            "set holds 3 images but no class folders; put the images of each class into a folder of its name",
        ),
        ({"ant": 9}, 1, "set has one class, ant; a classifier needs two or more"),
        (
            {"ant": 9, "bee": 1},
            1,
            "Class 'bee' has 1 different image; 3 are needed, one for each of train, validation, ",
        ),
        ({"train/ant": 3, "train/bee": 3, "test/cat": 1}, 1, "set: test has 1 class that train has no image of: cat; "),
        ({"test/ant": 3, "test/bee": 3}, 1, "set has no images to train on, only test"),
    ],
)
def test_folders_that_cannot_be_trained_on(vitrail, write_tree, counts, code, message):
    Path("set").mkdir()
    write_tree(Path("set"), counts)
    done = vitrail("train", "set", *FAST)
    assert (done.code, done.error[: len(message)]) == (code, message)


def test_an_audit_in_words(vitrail, photos, write_photo):
    write_photo(photos / "ant" / "copy.jpg", seed=0)
    done = vitrail("audit", photos, "--no-labels")
    assert done.code == 0
    assert done.out.splitlines() == [
        "my photos: 61 images of 3 classes (20 bee to 21 ant)",
        "Exact copies: 1 (ant/000.jpg = ant/copy.jpg)",
        "Blur is not looked for, as images are prepared at less than 64 pixels",
        "",
        "class  images",
        "ant        21",
        "bee        20",
        "été        20",
    ]


def test_corrections_are_audited(vitrail, photos):
    Path("fix.csv").write_text("ant,merge,bee\n", encoding="utf-8")
    done = vitrail("audit", photos, "--corrections", "fix.csv", "--json")
    assert done.json["counts"] == {"all": {"bee": 40, "été": 20}}
    Path("fix.csv").write_text("ant/x.jpg,drop,\n", encoding="utf-8")
    done = vitrail("audit", photos, "--corrections", "fix.csv")
    assert (done.code, done.error[:54]) == (2, "1 correction names no image of my photos: 'ant/x.jpg' ")


def test_photographs_of_many_kinds_train(vitrail, tmp_path):
    for number, mode in enumerate(["RGB", "L", "RGBA", "P", "CMYK", "I;16", "1", "LA"] * 3):
        for label, value in (("dark", 10 + number), ("light", 200 + number)):
            folder = tmp_path / "kinds" / label
            folder.mkdir(parents=True, exist_ok=True)
            suffix = "tif" if mode in ("CMYK", "I;16") else "png"
            Image.new("L", (10 + number, 20), value).convert(mode).save(folder / f"{number}.{suffix}")
    done = vitrail("train", "kinds", *FAST, "--json")
    assert done.code == 0
    assert sum(json.loads(Path(done.json["run"], "audit.json").read_text())["counts"]["all"].values()) == 48


def test_a_test_folder_that_copies_training_leaves_nothing_to_train_on(vitrail, write_tree):
    write_tree(Path("set"), {"train/ant": 5, "train/bee": 5})
    shutil.copytree("set/train", "set/test")
    done = vitrail("train", "set", *FAST)
    assert (done.code, done.error) == (
        1,
        "set has no image to train on for 2 of its 2 classes (ant, bee): there are none, or all are in a validation or "
        "test split as well",
    )
    shutil.rmtree("set/test/bee")
    assert "for 1 of its 2 classes (ant)" in vitrail("train", "set", *FAST).error


def test_the_runs_own_corrections_can_be_given_again(vitrail, photos):
    Path("fix.csv").write_text("ant/000.jpg,drop,\nbee,rename,wasp\n", encoding="utf-8")
    first = vitrail("train", photos, *FAST, "--corrections", "fix.csv", "--out", "run", "--json").json
    again = vitrail("evaluate", "run", "--corrections", "fix.csv", "--json")
    assert again.json["test"] == first["test"]


def test_a_drawn_validation_split_is_evaluated_with_corrections(vitrail, write_tree):
    write_tree(Path("set"), {"train/ant": 20, "train/bee": 20, "test/ant": 5, "test/bee": 5})
    first = vitrail("train", "set", *FAST, "--out", "run", "--json").json
    Path("fix.csv").write_text("test/ant/000.png,drop,\n", encoding="utf-8")
    again = vitrail("evaluate", "run", "--split", "validation", "--corrections", "fix.csv", "--json")
    assert again.json["validation"] == first["validation"]


def test_corrections_that_empty_a_split_are_refused(vitrail, write_tree):
    write_tree(Path("set"), {"train/ant": 9, "train/bee": 9, "test/ant": 1})
    Path("fix.csv").write_text("test/ant/000.png,drop,\n", encoding="utf-8")
    done = vitrail("train", "set", *FAST, "--corrections", "fix.csv")
    assert (done.code, done.error) == (
        1, "The corrections leave no image in test of set; leave some of its lines out"
    )  # fmt: skip


def test_broken_files_of_other_data_are_not_passed_over_in_silence(vitrail, photos, write_tree, caplog):
    vitrail("train", photos, *FAST, "--set", "data.max_broken_rate=0.2", "--out", "run")
    new = write_tree(Path("new"), {"ant": 9, "bee": 9}, suffix=".jpg", first=700)
    (new / "ant" / "000.jpg").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "vitrail"):
        assert vitrail("evaluate", "run", "new", "--json").json["test"]["images"] == 17
    assert "Left out: 1 broken file: ant/000.jpg is not an image that can be read: it is empty" in caplog.text
    for number in range(1, 6):
        (new / "ant" / f"00{number}.jpg").write_bytes(b"")
    error = vitrail("evaluate", "run", "new").error
    assert "6 of the 18 images of new cannot be read" in error
    assert error.endswith("mend or remove them")  # evaluate has no --set


def test_a_classes_that_only_another_set_tests_is_refused(vitrail, write_tree):
    write_tree(Path("one"), {"train/ant": 9, "train/bee": 9})
    write_tree(Path("two"), {"test/ant": 2, "test/wasp": 2}, first=50)
    assert "no image to train on for 1 of its 3 classes (wasp)" in vitrail("train", "one", "two", *FAST).error


def test_runs_on_more_images_are_compared_on_the_same_test(vitrail, write_tree):
    write_tree(Path("set"), {"train/ant": 9, "train/bee": 9, "test/ant": 5, "test/bee": 5})
    write_tree(Path("more"), {"ant": 5, "bee": 5}, first=90)
    vitrail("train", "set", *FAST, "--out", "a")
    vitrail("train", "set", "more", *FAST, "--out", "b")
    assert vitrail("runs", "diff", "a", "b", "--json").json["paired"]["images"] == 10


def test_runs_in_a_folder_are_no_photographs(vitrail, photos, monkeypatch):
    monkeypatch.chdir(photos)
    for number in (1, 2):
        done = vitrail("train", ".", *FAST, "--json")
        assert done.json["run"] == f"runs/my_photos-digits-{number}"
        assert len(done.json["test"]["per_class"]) == 3
    assert vitrail("audit", ".", "--json").json["ignored"][0] == "runs/my_photos-digits-1/"


def test_an_image_in_two_joined_folders_counts_once(vitrail, photos):
    once = vitrail("train", photos, *FAST, "--out", "once", "--json").json
    twice = vitrail("train", photos, photos, *FAST, "--out", "twice", "--json").json
    assert twice["test"]["images"] == once["test"]["images"]
    assert twice["test"]["accuracy"] == once["test"]["accuracy"]


def test_a_repetition_is_called_one(vitrail, photos, write_tree, caplog):
    vitrail("train", photos, *FAST, "--out", "runs/first")
    with caplog.at_level(logging.INFO, "vitrail"):
        vitrail("train", "--recipe", "runs/first", "--out", "runs/second")
        assert "This repeats runs/first step by step" in caplog.text
        write_tree(photos, {"ant": 23}, suffix=".jpg")
        vitrail("train", "--recipe", "runs/first", "--out", "runs/third")
    assert "This takes the settings of runs/first, and is no repetition" in caplog.text
    assert Path("runs/first/model.safetensors").read_bytes() == Path("runs/second/model.safetensors").read_bytes()
