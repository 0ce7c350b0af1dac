import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vitrail as package
from vitrail.data.content import content_hash
from vitrail.data.splits import Splits


@pytest.fixture
def digits(digits_run) -> str:
    return str(digits_run)


@pytest.fixture
def scans(vitrail, digit_images) -> Path:
    """./scans: six digits, one of them in a folder below, and three files that are no images."""
    folder = Path("scans")
    (folder / "more of them" / "Größe 2").mkdir(parents=True)
    for index in range(5):
        Image.fromarray(digit_images[index]).save(folder / f"{index}.png")
    Image.fromarray(digit_images[5]).resize((40, 30)).save(folder / "more of them" / "Größe 2" / "fünf.JPG")
    (folder / "a empty.png").touch()
    (folder / "b text.png").write_text("hello")
    (folder / "c torn.png").write_bytes((folder / "3.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no image")
    return folder


GOOD = [*(f"scans/{index}.png" for index in range(5)), "scans/more of them/Größe 2/fünf.JPG"]
BAD = {
    "scans/a empty.png": "it is empty",
    "scans/b text.png": "it is not in an image format that is known",
    "scans/c torn.png": "it ends too early (truncated)",
}
ERRORS = {name: f"{name} is not an image that can be read: {reason}" for name, reason in BAD.items()}
COMPLAINTS = "".join(f"error: {error}\n" for error in ERRORS.values())


def test_a_table_of_images(vitrail, digits, scans):
    done = vitrail("predict", digits, *GOOD)
    assert (done.code, done.err) == (0, "")
    heading, *lines = done.out.splitlines()
    assert heading.split() == ["image", "label", "probability", "next"]
    predictions = package.predict(digits, GOOD)
    for line, prediction in zip(lines, predictions, strict=True):
        assert line.startswith(prediction.image + "  ")
        label, probability, sign, *others = line.removeprefix(prediction.image).split()
        assert (label, sign) == (prediction.label, "%")
        assert float(probability) == pytest.approx(100 * prediction.probability, abs=0.1)
        assert others[::2] == [label for label, _ in prediction.top[1:]]


def test_a_folder_with_files_that_cannot_be_read(vitrail, digits, scans):
    done = vitrail("predict", digits, "scans")
    assert (done.code, done.err) == (1, COMPLAINTS)
    shown = [line.partition("  ")[0] for line in done.out.splitlines()[1:]]
    assert shown == GOOD


def test_only_files_that_cannot_be_read(vitrail, digits, scans):
    done = vitrail("predict", digits, "scans/a empty.png")
    assert (done.code, done.out, done.error) == (1, "", ERRORS["scans/a empty.png"])


def test_json(vitrail, digits, scans):
    done = vitrail("predict", digits, "scans", "--json")
    assert (done.code, done.err) == (1, COMPLAINTS)
    content = done.json
    assert content["run"] == digits
    assert content["error"] == "3 of 9 images could not be read"
    found = {prediction["image"]: prediction for prediction in content["predictions"]}
    assert sorted(found) == sorted([*GOOD, *BAD])
    for name, error in ERRORS.items():
        nothing = {"label": None, "probability": None, "top": [], "decision": None, "sure": None}
        assert found[name] == {"image": name, "error": error, **nothing}
    for name in GOOD:
        top = found[name]["top"]
        assert found[name]["error"] is None
        assert top[0] == {"label": found[name]["label"], "probability": found[name]["probability"]}
        shares = [entry["probability"] for entry in top]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) == 5
        assert 0.5 < sum(shares) <= 1
    done = vitrail("predict", digits, *GOOD, "--json")
    assert (done.code, "error" in done.json) == (0, False)


def test_patterns_folders_and_files_each_once_in_the_order_given(vitrail, digits, scans):
    done = vitrail(
        "predict", digits, "scans/4.png", "scans/[0-2].png", "scans/more of them", "scans/**/*.JPG", "--json"
    )
    names = [prediction["image"] for prediction in done.json["predictions"]]
    assert names == ["scans/4.png", "scans/0.png", "scans/1.png", "scans/2.png", GOOD[-1]]


def read_table(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_predictions(vitrail, digits, scans, suffix):
    path = Path(f"out{suffix}")
    done = vitrail("predict", digits, "scans", "--output", path)
    assert (done.code, done.out, done.err) == (1, f"6 predictions are in {path}\n", COMPLAINTS)
    expected = vitrail("predict", digits, "scans", "--json").json["predictions"]
    if suffix == ".jsonl":
        assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == expected
        return
    rows = read_table(path)
    assert [row["image"] for row in rows] == [prediction["image"] for prediction in expected]
    for row, prediction in zip(rows, expected, strict=True):
        assert (row["label"], row["error"]) == (prediction["label"], prediction["error"])
        if prediction["error"] is None:
            labels = [row["label"], *(row[f"label_{rank}"] for rank in range(2, 6))]
            shares = [row["probability"], *(row[f"probability_{rank}"] for rank in range(2, 6))]
            assert labels == [entry["label"] for entry in prediction["top"]]
            assert [float(share) for share in shares] == [entry["probability"] for entry in prediction["top"]]


def test_a_file_and_json(vitrail, digits, scans):
    done = vitrail("predict", digits, "scans/0.png", "--output", "out.csv", "--json")
    assert (done.code, len(done.json["predictions"])) == (0, 1)
    assert len(read_table(Path("out.csv"))) == 1


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("out.xlsx", "out.xlsx does not end in .csv, .jsonl, .parquet; predictions are written as one of these"),
        ("new/out.csv", "new does not exist; make that folder first, or write elsewhere"),
        ("scans/0.png/out.csv", "scans/0.png does not exist; make that folder first, or write elsewhere"),
    ],
)
def test_an_output_that_cannot_be(vitrail, digits, scans, output, sentence):
    done = vitrail("predict", digits, "scans", "--output", output, "--json")
    assert (done.code, done.error) == (2, sentence)
    assert done.json == {"error": sentence, "exit_code": 2}


def test_an_output_that_the_system_refuses(vitrail, digits, scans):
    done = vitrail("predict", digits, "scans/0.png", "--output", "/proc/out.csv")
    assert (done.code, done.out) == (1, "")
    assert done.error.startswith("/proc/out.csv could not be written: ")


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("missing.png", "missing.png does not exist; name an image file, a folder or a pattern such as 'photos/*.jpg'"),
        ("scans/x*.png", "No image file matches scans/x*.png; patterns give files that end in "),
        ("empty", "There is no image file in empty; it is searched for "),
    ],
)
def test_no_image(vitrail, digits, scans, image, shown):
    Path("empty").mkdir()
    done = vitrail("predict", digits, "scans/0.png", image)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith(shown)


def test_no_run(vitrail, scans):
    done = vitrail("predict", "runs/x", "scans/0.png")
    assert done.code == 2
    assert done.error.startswith("No run at runs/x. Give a run's directory, ")


def test_a_damaged_model(vitrail, run, scans):
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    done = vitrail("predict", "run", "scans/0.png", "--json")
    assert done.code == 1
    assert done.json["error"].startswith("run/model.safetensors is damaged or no safetensors file: ")


def test_last_says_which_run_it_was(vitrail, run, scans):
    Path("runs").mkdir()
    run.rename("runs/one")
    assert vitrail("predict", "last", "scans/0.png", "--json").json["run"] == "runs/one"


def test_a_run_that_has_moved_without_its_data_still_predicts(vitrail, trained, scans, tmp_path):
    shutil.copytree(trained / "run", "moved")
    assert vitrail("predict", "moved", "scans/0.png").code == 0


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode on this system")
def test_a_file_name_of_any_bytes(vitrail, digits, scans):
    os.rename("scans/0.png", b"scans/caf\xe9.png")
    done = vitrail("predict", digits, "scans/caf*.png", "--output", "out.csv", "--json")
    assert done.code == 0
    assert done.json["predictions"][0]["image"] == "scans/caf\udce9.png"
    assert r"scans/caf\udce9.png" in Path("out.csv").read_text(encoding="utf-8")


def test_command_line_api_and_training_agree(vitrail, digits, digit_images):
    """The test images, written as PNG files, get from every door what predictions/test.parquet says of them."""
    splits = json.loads(Path(digits, "splits.json").read_text())["splits"]
    table = pq.read_table(Path(digits, "predictions", "test.parquet")).to_pylist()[:12]
    chosen = splits["test"]["indices"][:12]
    assert [row["image"] for row in table] == [f"all/{index:05d}" for index in chosen]
    for index in chosen:
        Image.fromarray(digit_images[index]).save(f"{index:05d}.png")
    paths = [f"{index:05d}.png" for index in chosen]
    classifier = package.load(digits)
    doors = {
        "command line": vitrail("predict", digits, *paths, "--json").json["predictions"],
        "predict": [prediction.to_dict() for prediction in package.predict(digits, paths)],
        "classifier, files": [classifier.predict(path).to_dict() for path in paths],
        "classifier, arrays": [classifier.predict(digit_images[index]).to_dict() for index in chosen],
    }
    for predictions in doors.values():
        assert [prediction["label"] for prediction in predictions] == [row["prediction"] for row in table]
        for prediction, row in zip(predictions, table, strict=True):
            found = [entry["probability"] for entry in prediction["top"]]
            np.testing.assert_allclose(
                found, [row[f"probability_{entry['label']}"] for entry in prediction["top"]], atol=1e-6
            )


# With a reject threshold


@pytest.fixture
def careful(vitrail, digits_run) -> str:
    """./careful, the run on digits with a threshold that some of its answers do not reach."""
    shutil.copytree(digits_run, "careful")
    card = json.loads(Path("careful/model.json").read_text())
    Path("careful/model.json").write_text(json.dumps(card | {"reject_threshold": 0.9, "temperature": 1.0}))
    return "careful"


def test_not_sure_is_shown_with_the_most_probable_class_as_next(vitrail, careful, digit_images):
    for index in range(40):
        Image.fromarray(digit_images[index]).save(f"{index:02d}.png")
    predictions = package.predict(careful, "*.png")
    assert {prediction.sure for prediction in predictions} == {True, False}
    shown = vitrail("predict", careful, "*.png").out.splitlines()[1:]
    written = vitrail("predict", careful, "*.png", "--json").json["predictions"]
    for prediction, line, content in zip(predictions, shown, written, strict=True):
        assert prediction.sure == (prediction.probability > 0.9)
        label, _, following = line[len(prediction.image) :].strip().partition("  ")
        named = [entry.split()[0] for entry in following.partition("%")[2].split(",")]
        classes = [name for name, _ in prediction.top]
        assert (label, named) == ((prediction.label, classes[1:]) if prediction.sure else ("not sure", classes))
        assert (content["sure"], content["decision"]) == (prediction.sure, label)
        assert content["label"] == prediction.label


# --sort

NO_THRESHOLD = (
    "Nothing is sorted as not sure, as the model has no reject threshold; "
    "train with --set evaluation.reject=0.95 for answers that are right 95 times of 100\n"
)


def files(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def test_sorting(vitrail, digits, scans):
    done = vitrail("predict", digits, "scans", "--sort", "out")
    assert (done.code, done.err) == (1, NO_THRESHOLD + COMPLAINTS)
    labels = {prediction.image: prediction.label for prediction in package.predict(digits, GOOD)}
    assert files("out") == sorted(f"{label}/{Path(image).name}" for image, label in labels.items())
    heading, columns, *rows = done.out.splitlines()
    assert (heading, columns.split()) == ("6 images are in out: 6 copied", ["folder", "images"])
    assert {tuple(row.split()) for row in rows} == {
        (label, str([*labels.values()].count(label))) for label in labels.values()
    }
    assert vitrail("predict", digits, "scans", "--sort", "out").out.startswith("6 images are in out: 6 there already\n")
    assert vitrail("predict", digits, *GOOD, "--sort", "new", "--link").out.startswith(
        "6 images are in new: 6 hard-linked\n"
    )


def test_sorting_into_the_folder_that_is_searched(vitrail, digits, scans):
    first = vitrail("predict", digits, "scans", "--sort", "scans/sorted", "--json")
    again = vitrail("predict", digits, "scans", "--sort", "scans/sorted", "--json")
    assert (first.json["sorted"]["copied"], again.json["sorted"]["copied"], again.json["sorted"]["present"]) == (
        6,
        0,
        6,
    )
    assert again.err == "6 images in scans/sorted left out\n" + NO_THRESHOLD + COMPLAINTS
    assert first.json["predictions"] == again.json["predictions"]


def test_sorting_says_not_sure(vitrail, careful, scans):
    done = vitrail("predict", careful, *GOOD, "--sort", "out", "--output", "out.jsonl", "--json")
    assert (done.code, done.err) == (0, "")
    unsure = sorted(Path(prediction["image"]).name for prediction in done.json["predictions"] if not prediction["sure"])
    assert unsure
    assert files("out/not_sure") == unsure
    assert done.json["sorted"]["folders"]["not_sure"] == len(unsure)
    written = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written == done.json["predictions"]


def test_classes_that_cannot_be_folders_are_said(vitrail, digits_run, scans):
    shutil.copytree(digits_run, "odd")
    card = json.loads(Path("odd/model.json").read_text())
    names = ["..", "not_sure", "a/b", *"3456789"]
    Path("odd/model.json").write_text(json.dumps(card | {"classes": names}))
    done = vitrail("predict", "odd", "scans/0.png", "scans/1.png", "scans/2.png", "--sort", "out")
    assert done.code == 0
    assert "Class '..' is in out/_, as its name cannot be that of a folder in a data set\n" in done.err
    assert "Class 'not_sure' is in out/not_sure-2, as" in done.err
    assert {Path(name).parts[0] for name in files("out")} <= {"_", "not_sure-2", "a", *"3456789"}


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--sort", "scans/0.png"], 2, "scans/0.png is a file; give --sort a folder"),
        (["--sort", "scans"], 2, "All 9 images lie in scans already; sort into another folder"),
        (["--link"], 2, "--link says how --sort puts images into folders; give --sort DIR with it"),
        (["--suggest", "0"], 2, "suggest=0 is not possible; ask for 1 image or more"),
        (["--sort", "scans/0.png/x"], 1, "scans/0.png/x could not be made: Not a directory; sort into another"),
    ],
)
def test_what_cannot_be_asked_for(vitrail, digits, scans, options, code, sentence):
    done = vitrail("predict", digits, "scans", *options, "--json")
    assert (done.code, done.error) == (code, sentence)
    assert done.json == {"error": sentence, "exit_code": code}


# --suggest


def test_suggestions(vitrail, digits, scans):
    done = vitrail("predict", digits, "scans", "--suggest", 3, "--json")
    found = done.json["suggestions"]
    assert len(found) == 3
    assert {tuple(suggestion) for suggestion in found} == {
        ("image", "score", "margin", "label", "probability", "reason")
    }
    predictions = {prediction["image"]: prediction for prediction in done.json["predictions"]}
    margins = {
        name: prediction["top"][0]["probability"] - prediction["top"][1]["probability"]
        for name, prediction in predictions.items()
        if prediction["top"]
    }
    assert found[0]["image"] == min(margins, key=margins.__getitem__)
    for suggestion in found:
        assert suggestion["margin"] == pytest.approx(margins[suggestion["image"]])
        assert suggestion["label"] == predictions[suggestion["image"]]["label"]
    heading, *rows = vitrail("predict", digits, *GOOD, "--suggest", 3).out.splitlines()
    assert heading.split() == ["image", "score", "margin", "guess"]
    assert [row.partition("  ")[0] for row in rows] == [suggestion["image"] for suggestion in found]


def test_suggestions_in_a_file_beside_sorted_folders(vitrail, digits, scans):
    done = vitrail("predict", digits, *GOOD, "--suggest", 9, "--output", "list.csv", "--sort", "out")
    assert done.code == 0
    assert done.out.startswith("6 images are in out: 6 copied\n")
    assert done.out.endswith("6 suggestions are in list.csv\n")
    assert "9 images were asked for, and there are 6\n" in done.err
    assert len(files("out")) == len(read_table(Path("list.csv"))) == 6


def test_images_that_the_run_has_seen_are_not_suggested(vitrail, digits, scans, monkeypatch, digit_images):
    known = frozenset({content_hash(digit_images[0]), content_hash(digit_images[3])})
    monkeypatch.setattr(Splits, "hashes", lambda splits: known)
    done = vitrail("predict", digits, *GOOD, "--suggest", 4, "--json")
    names = [suggestion["image"] for suggestion in done.json["suggestions"]]
    assert sorted(names) == [name for name in GOOD if name not in ("scans/0.png", "scans/3.png")]
    assert done.err == "2 images that the run was trained or tested on left out\n"
