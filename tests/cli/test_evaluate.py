import json
import shutil
from pathlib import Path

import pytest

from vitrail.data.sources import open_dataset
from vitrail.data.splits import read_splits


@pytest.fixture
def digits(digits_run) -> str:
    return str(digits_run)


def finished(run: Path) -> dict[str, dict[str, object]]:
    return json.loads((run / "journal.jsonl").read_text().splitlines()[-1])["result"]


def test_it_gives_what_training_gave(vitrail, run):
    result = finished(run)
    for split in ("test", "validation"):
        done = vitrail("evaluate", "run", "--split", split, "--json")
        assert (done.code, done.err) == (0, "")
        evaluated = done.json
        assert evaluated[split] == result[split]
        shared = ("run", "dataset", "recipe", "model", "parameters", "images_seen", "train_seconds", "stopped")
        assert {key: evaluated[key] for key in shared} == {key: result[key] for key in shared}
        assert list(evaluated) == [*shared[:-1], "total_seconds", "stopped", split]
    assert vitrail("evaluate", "run", "--split", "train", "--json").json["train"]["images"] == 54


def test_the_result_in_words(vitrail, run):
    metrics = finished(run)["test"]
    done = vitrail("evaluate", "run")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    low, high = (f"{100 * bound:.1f}" for bound in metrics["accuracy_ci95"])
    accuracy = f"{100 * metrics['accuracy']:.1f}"
    assert lines[0] == f"test accuracy {accuracy} % (95 % interval {low} to {high}), 30 images"
    assert lines[1] == f"balanced accuracy {metrics['balanced_accuracy']:.4f}  loss {metrics['loss']:.4f}"
    assert lines[2] == ""
    assert lines[3].split() == ["class", "images", "precision", "recall", "f1"]
    for line, row in zip(lines[4:7], metrics["per_class"], strict=True):
        shares = [row["precision"], row["recall"], row["f1"]]
        assert line.split() == [
            row["class"],
            str(row["images"]),
            *("-" if share is None else f"{share:.3f}" for share in shares),
        ]
    assert lines[7:9] == ["", "confusion matrix, rows true, columns predicted"]
    assert [line.split() for line in lines[9:]] == [
        ["0", "1", "2"],
        *([str(index), *map(str, row)] for index, row in enumerate(metrics["confusion"])),
    ]


def test_last_is_the_newest_finished_run(vitrail, small, interrupted):
    vitrail("train", *small("photos"), "--out", "runs/b")
    vitrail("train", *small("photos"), "--out", "runs/a", "--seed", "1")
    with interrupted(2):
        vitrail("train", *small("photos"), "--out", "runs/unfinished")
    assert vitrail("evaluate", "last", "--json").json["run"] == "runs/a"


def test_an_unfinished_run_keeps_its_test_images_for_the_end(vitrail, run):
    journal = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    (run / "journal.jsonl").write_text("".join(journal[:-1]))  # as if stopped before the test
    done = vitrail("evaluate", "run")
    assert (done.code, done.error) == (
        2,
        "run has not finished, and its test images are read once, at the end; "
        "finish it with --resume, or evaluate --split validation",
    )
    done = vitrail("evaluate", "run", "--split", "validation", "--json")
    assert (done.code, done.json["images_seen"], done.json["stopped"]) == (0, None, None)
    assert done.json["validation"]["images"] == 6


# Other data


def test_other_data_with_the_same_classes(vitrail, run, write_idx):
    write_idx(Path("more"), num_test=12, seed=5)
    result = vitrail("evaluate", "run", "more", "--json").json
    assert (result["dataset"], result["test"]["images"]) == ("more", 12)
    done = vitrail("evaluate", "run", "more", "--split", "validation")
    assert (done.code, done.error) == (2, "more has no split 'validation'. It has train, test")


def test_a_copy_of_the_data_has_the_same_splits(vitrail, run):
    shutil.copytree("photos", "copy")
    for split in ("validation", "test"):
        done = vitrail("evaluate", "run", "copy", "--split", split, "--json")
        assert done.json[split] == finished(run)[split]


def test_other_classes_are_refused(vitrail, run, digits):
    done = vitrail("evaluate", "run", "digits")
    assert done.code == 2
    assert done.error == (
        "digits has classes that the model does not know, 3, 4, 5 and 4 more; it knows 0, 1, 2. "
        "Rename or merge them with --corrections"
    )


def test_data_with_some_of_the_classes_are_evaluated_by_name(vitrail, run, digits):
    done = vitrail("evaluate", digits, "photos", "--json")
    assert [row["images"] for row in done.json["test"]["per_class"]] == [10, 10, 10, *[0] * 7]


def test_training_images_that_changed_are_noticed(vitrail, run, write_idx):
    write_idx(Path("photos"), seed=1)
    done = vitrail("evaluate", "run", "--split", "validation")
    assert (done.code, done.error) == (
        1,
        "photos is not the data that the splits were drawn from; its images or labels changed",
    )


def test_test_images_that_changed_are_noticed(vitrail, run, write_idx):
    write_idx(Path("other"), seed=1)
    shutil.copy("other/t10k-images-idx3-ubyte", "photos/t10k-images-idx3-ubyte")
    done = vitrail("evaluate", "run")
    assert (done.code, done.error) == (
        1,
        "The test images or labels of photos have changed since the run was tested; "
        "name the data to evaluate on it as it is: vitrail evaluate RUN DATA",
    )
    assert vitrail("evaluate", "run", "photos").code == 0


def test_data_that_are_gone(vitrail, run):
    shutil.move("photos", "elsewhere")
    done = vitrail("evaluate", "run")
    assert done.code == 2
    assert done.error.startswith("The run's data, photos, is not here (No data set named 'photos'.")
    assert done.error.endswith("); name it: vitrail evaluate RUN DATA")
    assert vitrail("evaluate", "run", "elsewhere", "--json").json["test"] == finished(run)["test"]


# Requirements


def test_a_requirement_that_is_met(vitrail, digits):
    done = vitrail("evaluate", digits, "--require", "accuracy=0.8", "--require", "loss=2", "--json")
    assert (done.code, done.err) == (0, "")
    assert "error" not in done.json


def test_a_requirement_that_is_missed(vitrail, digits):
    options = ["--require", "accuracy=0.9999", "--require", "ece=0", "--require", "images=359"]
    plain = vitrail("evaluate", digits, *options)
    assert plain.code == 1
    assert plain.out.startswith("test accuracy")
    done = vitrail("evaluate", digits, *options, "--json")
    result = done.json["test"]
    sentences = [
        f"accuracy is {result['accuracy']:.6g}, below the required 0.9999",
        f"ece is {result['ece']:.6g}, above the required 0",
    ]
    assert plain.err == done.err == "".join(f"error: {sentence}\n" for sentence in sentences)
    assert (done.code, done.json["error"]) == (1, "; ".join(sentences))


@pytest.mark.parametrize(
    ("requirement", "sentence"),
    [
        (
            "acuracy=0.9",
            "There is no result 'acuracy' to require. Did you mean 'accuracy'? "
            "Use one of images, accuracy, balanced_accuracy, macro_precision, macro_f1, loss, ece, loss_uncalibrated, "
            "ece_uncalibrated, top5_accuracy",
        ),
        (
            "confusion=1",
            "There is no result 'confusion' to require. "
            "Use one of images, accuracy, balanced_accuracy, macro_precision, macro_f1, loss, ece, loss_uncalibrated, "
            "ece_uncalibrated, top5_accuracy",
        ),
        ("accuracy", "--require 'accuracy' is not of the form name=number, such as accuracy=0.95"),
        ("accuracy=high", "--require 'accuracy=high' is not of the form name=number, such as accuracy=0.95"),
        ("accuracy=nan", "--require 'accuracy=nan' is not of the form name=number, such as accuracy=0.95"),
    ],
)
def test_requirements_that_make_no_sense(vitrail, digits, requirement, sentence):
    done = vitrail("evaluate", digits, "--require", requirement)
    assert (done.code, done.out, done.error) == (2, "", sentence)


# Mistakes


def test_an_unknown_split(vitrail, digits):
    done = vitrail("evaluate", digits, "--split", "tset", "--json")
    assert (done.code, done.error) == (
        2,
        "No split named 'tset'. Did you mean 'test'? The splits are train, validation, test",
    )
    assert done.json == {"error": done.error, "exit_code": 2}


def test_no_run(vitrail, write_idx):
    write_idx(Path("photos"))
    done = vitrail("evaluate", "last")
    assert (done.code, done.error) == (2, "There is no finished run below runs/ here; `vitrail train` makes one")
    done = vitrail("evaluate", "photos")
    assert (done.code, done.error) == (
        2,
        "photos is not a run: it holds no config.json; `vitrail train` makes runs below runs/",
    )
    done = vitrail("evaluate", "nothing")
    assert (done.code, done.error) == (
        2,
        "No run at nothing. Give a run's directory, or `last` for the newest finished one",
    )


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("model.safetensors", b"torn", "run/model.safetensors is damaged or no safetensors file: "),
        ("model.safetensors", None, "run/model.safetensors could not be read: No such file or directory"),
        ("model.json", b'{"format_version": 1, "mod', "run/model.json could not be read: "),
        ("model.json", b"\xff\xfe", "run/model.json could not be read: "),
        ("model.json", b"[]", "run/model.json has format_version None; this Vitrail reads version 1"),
        ("model.json", b'{"format_version": 1}', "run/model.json is damaged: model_name: Field required"),
        ("model.json", None, "run holds no model.json; it is no run, or its first epoch never ended"),
        ("splits.json", b"{", "run/splits.json holds no splits that can be read: it is missing or damaged"),
        ("splits.json", None, "run/splits.json holds no splits that can be read: it is missing or damaged"),
        ("config.json", b"{", "run/config.json is not a run's config: "),
    ],
)
def test_damaged_files(vitrail, run, name, content, shown):
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)
    done = vitrail("evaluate", "run", "--json")
    assert done.code == (2 if name == "config.json" else 1)
    assert done.error.startswith(shown)
    assert done.json["error"] == done.error


def test_weights_of_another_model(vitrail, run):
    card = json.loads((run / "model.json").read_text())
    card["model"]["embed_dim"] = 32
    (run / "model.json").write_text(json.dumps(card))
    done = vitrail("evaluate", "run")
    assert done.code == 1
    assert done.error.startswith("run/model.safetensors does not fit its model.json: size mismatch for ")
    assert len(done.error) < 300


def test_splits_that_name_images_that_are_not_there(vitrail, run):
    splits = json.loads((run / "splits.json").read_text())
    splits["splits"]["validation"]["indices"][-1] = 1000
    (run / "splits.json").write_text(json.dumps(splits))
    done = vitrail("evaluate", "run", "--split", "validation")
    assert (done.code, done.error) == (
        1,
        "The splits name images that photos does not have; splits.json is damaged",
    )


def test_settings_of_image_files_are_refused_where_there_are_none(vitrail, digits):
    done = vitrail("evaluate", digits, "--set", "data.serving=mapped")
    assert (done.code, done.error) == (2, "data.serving=mapped is about image files, and digits has none; leave it out")


def test_a_correction_to_a_test_image_leaves_the_others(vitrail, digits):
    dropped = read_splits(Path(digits, "splits.json")).images(open_dataset("digits"), "test").hashes[0]
    Path("fix.csv").write_text(f"{dropped},drop\n", encoding="utf-8")
    for data in ([], ["digits"]):
        assert vitrail("evaluate", digits, *data, "--corrections", "fix.csv", "--json").json["test"]["images"] == 358
