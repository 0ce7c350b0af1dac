import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vitrail as package
from vitrail.data.named import read_digits
from vitrail.data.splits import read_splits


@pytest.fixture
def digits(digits_run) -> str:
    return str(digits_run)


def parts(run: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The vectors and labels of the run's own splits."""
    splits, images = read_splits(Path(run, "splits.json")), read_digits()
    chosen = {name: images.take(splits.parts[name].indices) for name in ("train", "validation", "test")}
    classifier = package.load(run)
    return {name: (classifier.features(part.pixels), part.labels) for name, part in chosen.items()}


def test_a_linear_probe_of_the_runs_own_data(vitrail, digits):
    done = vitrail("probe", digits, "--json")
    assert (done.code, done.err) == (0, "")
    result = done.json
    known = ("run", "dataset", "model", "method", "width", "C", "train", "validation", "test", "total_seconds")
    assert {*result} == {*known}
    assert [result[key] for key in ("run", "dataset", "model", "method", "width")] == [
        digits,
        "digits",
        "vit_micro_conv4_8",
        "linear",
        32,
    ]
    own = parts(digits)
    assert {name: result[name]["images"] for name in own} == {name: len(labels) for name, (_, labels) in own.items()}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=result["C"], max_iter=1000)).fit(*own["train"])
    for name in ("validation", "test"):
        assert result[name]["accuracy"] == pytest.approx(model.score(*own[name]), abs=0.003)
    assert result["test"]["accuracy"] > 0.9
    assert result["test"]["seen_in_training"] == 0
    assert package.linear_probe(digits) | {"total_seconds": 0} == result | {"total_seconds": 0}


def test_nearest_neighbours(vitrail, digits):
    result = vitrail("probe", digits, "--method", "knn", "--json").json
    assert (result["method"], result["temperature"], result["k"] in (1, 5, 10, 20, 50, 100, 200)) == ("knn", 0.07, True)
    assert result["test"]["accuracy"] > 0.9
    assert package.knn(digits)["test"] == result["test"]
    same = package.knn(digits, "digits")
    assert {**same, "total_seconds": 0} == {**result, "total_seconds": 0}


def test_the_result_in_words(vitrail, digits):
    result = vitrail("probe", digits, "--json").json
    low, high = (f"{100 * bound:.1f}" for bound in result["test"]["accuracy_ci95"])
    images = {name: result[name]["images"] for name in ("validation", "test")}
    assert vitrail("probe", digits).out == (
        f"test accuracy {100 * result['test']['accuracy']:.1f} % (95 % interval {low} to {high}), "
        f"{images['test']} images\n"
        f"linear, C={result['C']:g} chosen on {images['validation']} validation images\n"
    )
    k = vitrail("probe", digits, "--method", "knn", "--json").json["k"]
    assert f"\nknn, k={k} chosen on " in vitrail("probe", digits, "--method", "knn").out


def test_data_of_other_classes(vitrail, digits, write_tree):
    write_tree(Path("insects"), {"ant": 12, "bee": 14})
    result = vitrail("probe", digits, "insects", "--json").json
    assert (result["dataset"], sum(result[name]["images"] for name in ("train", "validation", "test"))) == (
        "insects",
        26,
    )
    assert "seen_in_training" not in result["test"]  # a run on a named set keeps no hashes of its images
    resized = vitrail("probe", digits, "insects", "--image-size", "16x24", "--method", "knn", "--json").json
    assert resized["image_size"] == [16, 24]


def test_images_that_the_run_has_seen_are_said(vitrail, write_tree, tiny, caplog):
    write_tree(Path("insects"), {"ant": 12, "bee": 14})
    assert package.train("insects", epochs=1, settings={**tiny, "model.image_size": 16}, out="run").result
    assert vitrail("probe", "run", "--json").json["test"]["seen_in_training"] == 0
    write_tree(Path("more/train"), {"ant": 12, "bee": 12}, first=100)
    shutil.copytree("insects", "more/test")
    done = vitrail("probe", "run", "more", "--json")
    parts = read_splits("run/splits.json").parts
    number = sum(len(parts[name].members.hashes) for name in ("train", "validation"))
    assert done.json["test"]["seen_in_training"] == number > 10
    assert caplog.messages[-1] == (
        f"{number} of 26 test images are among those that the model was trained on or chosen by, "
        "so its test accuracy is too high"
    )
    # Drawn by content, the same images fall into the same splits, whatever is added.
    shutil.move("more/train", "mixed")
    for name in ("ant", "bee"):
        for path in Path("insects", name).iterdir():
            shutil.copy(path, Path("mixed", name, f"old {path.name}"))
    assert vitrail("probe", "run", "mixed", "--json").json["test"]["seen_in_training"] == 0


def test_a_published_test_split_is_used_as_it_is(vitrail, run):
    result = vitrail("probe", "run", "--json").json
    assert [result[name]["images"] for name in ("train", "validation", "test")] == [54, 6, 30]
    shutil.copytree("photos", "copy")
    again = vitrail("probe", "run", "copy", "--json").json
    assert {**again, "total_seconds": 0, "dataset": 0} == {**result, "total_seconds": 0, "dataset": 0}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "linar"], "method='linar' is not known. Did you mean 'linear'? Use one of linear, knn"),
        (["nowhere"], "No data set named 'nowhere'."),
        (["--merge-tokens", "-3"], "merge_tokens=-3 is not possible; use 0 or more"),
    ],
)
def test_mistakes(vitrail, run, arguments, sentence):
    done = vitrail("probe", "run", *arguments, "--json")
    assert done.code == 2
    assert done.error.startswith(sentence)
    assert done.json == {"error": done.error, "exit_code": 2}


def test_the_data_of_a_run_that_is_gone(vitrail, run):
    shutil.rmtree("photos")
    done = vitrail("probe", "run")
    assert (done.code, done.error) == (
        2,
        "The run's data, photos, is not here (No data set named 'photos'. Names are digits, mnist, fashion_mnist, "
        "cifar10, cifar100; a path works as well); name it: vitrail probe RUN DATA",
    )


def test_an_unfinished_run_keeps_its_test_images_for_the_end(vitrail, run):
    journal = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    assert json.loads(journal[-1])["event"] == "finished"
    (run / "journal.jsonl").write_text("".join(journal[:-1]))
    done = vitrail("probe", "run")
    assert (done.code, done.error) == (
        2,
        "run has not finished, and its test images are read once, at the end; "
        "finish it with --resume, or name other data",
    )
