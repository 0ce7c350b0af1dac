"""Images with several labels, from a table to predictions."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitrail import api

LABELS = ("sea", "sky", "sun")
SETTINGS = ("model.embed_dim=16", "model.depth=1", "training.batch_size=16", "training.learning_rate=0.03")


def draw_beaches(folder: Path, count: int = 72) -> list[dict[str, object]]:
    """Images of noise, a bright column for each of their labels; the rows of their table."""
    numbers = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    folder.mkdir()
    for index in range(count):
        marks = numbers.random(3) < (0.6, 0.4, 0.3)
        pixels = numbers.integers(0, 80, (8, 8, 3), dtype=np.uint8)
        for label in np.flatnonzero(marks):
            pixels[:, 2 * label + 1] += 170
        Image.fromarray(pixels).save(folder / f"{index}.png")
        names = [name for name, marked in zip(LABELS, marks, strict=True) if marked]
        rows.append({"image": f"{index}.png", "labels": names})
    return rows


@pytest.fixture(scope="module")
def beaches(tmp_path_factory) -> Path:
    """A table in JSON Lines, and one of Parquet, of the same images."""
    folder = tmp_path_factory.mktemp("beaches") / "beaches"
    rows = draw_beaches(folder)
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), folder / "list.parquet")
    lines = [f"{row['image']},{';'.join(row['labels'])}" for row in rows]
    (folder / "list.csv").write_text("image,labels\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(beaches, tmp_path_factory) -> Path:
    settings = dict(assignment.split("=") for assignment in [*SETTINGS, "evaluation.report=false"])
    out = tmp_path_factory.mktemp("runs") / "run"
    return api.train(beaches / "list.jsonl", epochs=12, settings=settings, out=out).path


def test_what_a_run_with_several_labels_keeps(trained):
    result = api.Run(trained).result
    assert result["best_by"] == "mean_average_precision"
    assert {"mean_average_precision", "label_accuracy", "micro_f1", "macro_f1"} <= {*result["test"]}
    assert result["test"]["mean_average_precision"] > 0.8
    assert "confusion" not in result["test"]
    assert [row["class"] for row in result["test"]["per_class"]] == list(LABELS)
    assert json.loads((trained / "model.json").read_text())["multilabel"] is True
    assert api.Run(trained).config.training.imbalance == "none"
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "split" in line]
    assert list(evaluations[0]) == ["split", "epoch", "accuracy", "mean_average_precision", "loss"]
    best = max(evaluations, key=lambda line: (line["mean_average_precision"], -line["loss"]))
    assert result["best_epoch"] == best["epoch"]
    assert {path.name for path in (trained / "figures").iterdir()} - {"mistakes.png"} == {
        *("average_precision.png", "curves.png", "predictions.png", "samples.png")
    }


def test_predictions_of_the_test_images_are_lists(trained):
    table = pq.read_table(trained / "predictions" / "test.parquet")
    assert table.column_names == ["image", "labels", "predictions", *(f"probability_{name}" for name in LABELS)]
    labels, predictions = (table.column(name).to_pylist() for name in ("labels", "predictions"))
    accuracy = sum(map(list.__eq__, labels, predictions)) / len(labels)
    assert accuracy == api.Run(trained).result["test"]["accuracy"]


def test_it_is_evaluated_as_it_was_tested(vitrail, trained):
    done = vitrail("evaluate", trained, "--json")
    assert done.json["test"] == api.Run(trained).result["test"]
    printed = vitrail("evaluate", trained).out
    assert "accuracy counts images with exactly their labels; mean average precision " in printed
    assert "class  images  average precision  precision  recall  f1" in " ".join(printed.split("\n")).replace(
        "   ", "  "
    )
    assert "confusion" not in printed
    missed = vitrail("evaluate", trained, "--require", "mean_average_precision=1.5")
    assert missed.code == 1
    assert "mean_average_precision is " in missed.err


def test_a_table_of_parquet_or_csv_gives_the_same_images(vitrail, beaches, trained, tmp_path):
    how = ["--epochs", "1", *(part for setting in SETTINGS for part in ("--set", setting))]
    expected = json.loads((trained / "splits.json").read_text())["splits"]
    for table, more in (("list.parquet", ()), ("list.csv", ("--set", "data.label_separator=;"))):
        done = vitrail("train", beaches / table, *how, *more, "--out", tmp_path / table, "--json")
        assert done.json["best_by"] == "mean_average_precision"
        assert json.loads((tmp_path / table / "splits.json").read_text())["splits"] == expected


def test_labels_are_predicted(vitrail, trained, beaches, tmp_path):
    images = [beaches / f"{index}.png" for index in range(3)]
    done = vitrail("predict", trained, *images)
    heading, *lines = done.out.splitlines()
    assert heading.split() == ["image", "labels", "most", "probable,", "%"]
    assert len(lines) == 3
    (prediction, *_) = vitrail("predict", trained, *images, "--json").json["predictions"]
    assert set(prediction["probabilities"]) == {*LABELS}
    given = [name for name, share in prediction["probabilities"].items() if share > 0.5]
    assert sorted(prediction["labels"]) == sorted(given)
    vitrail("predict", trained, *images, "--output", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("labels").to_pylist()[0] == prediction["labels"]


def test_suggestions_are_of_the_most_doubtful_label(vitrail, trained, write_photo, tmp_path):
    write_photo(tmp_path / "new" / "a.png", 1)
    done = vitrail("predict", trained, tmp_path / "new", "--suggest", "1", "--json")
    (suggestion,) = done.json["suggestions"]
    assert suggestion["reason"].endswith(" % or not")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("predict", "RUN", "DATA/0.png", "--sort", "OUT"),
            "--sort puts each image into one folder, and this model may",
        ),
        (("probe", "RUN"), "Images of list may have several labels; a probe tells classes apart"),
        (("evaluate", "RUN", "digits"), "digits has classes that the model does not know"),
        (
            ("train", "DATA/list.jsonl", "--set", "evaluation.reject=0.9"),
            "evaluation.reject=0.9 is for images with one",
        ),
        (
            ("train", "DATA/list.jsonl", "--set", "training.imbalance=logit_adjusted"),
            "training.imbalance=logit_adjusted needs images with one label each",
        ),
        (("train", "DATA/list.jsonl", "--corrections", "DATA/fix.csv"), "Corrections give an image one label, and"),
    ],
)
def test_what_several_labels_do_not_allow(vitrail, trained, beaches, tmp_path, arguments, message):
    (beaches / "fix.csv").write_text("what,action,label\n0.png,drop,\n", encoding="utf-8")
    places = {"RUN": str(trained), "DATA": str(beaches), "OUT": str(tmp_path / "out")}
    given = [argument.replace(word, path) for argument in arguments for word, path in [_place(argument, places)]]
    done = vitrail(*given)
    assert done.code in (1, 2)
    assert f"error: {message}" in done.err


def _place(argument, places):
    return next(((word, path) for word, path in places.items() if word in argument), (argument, argument))


def test_one_label_is_no_set_of_labels(vitrail, trained, write_tree, tmp_path):
    write_tree(tmp_path / "single", {"sea": 4, "sky": 4})
    done = vitrail("evaluate", trained, tmp_path / "single")
    assert done.code in (1, 2)
    assert "Images of single have one label each, and the model gives an image any number" in done.err


def test_two_runs_are_compared_by_exact_matches(vitrail, trained, beaches, tmp_path):
    how = [part for setting in SETTINGS for part in ("--set", setting)]
    vitrail("train", beaches / "list.jsonl", "--epochs", "1", *how, "--out", tmp_path / "other")
    found = vitrail("runs", "diff", tmp_path / "other", trained, "--json").json
    assert found["paired"]["images"] == api.Run(trained).result["test"]["images"]
