"""`vitrail audit`: suspicious labels, its report, and the corrections that it writes and `train` reads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FAST = ("--recipe", "digits", "--epochs", "2", "--set", "model.embed_dim=16", "--set", "model.depth=1")
PLANTED = {"ant/003.png": "bee", "bee/010.png": "cat", "cat/020.png": "ant"}  # the last is what it shows


@pytest.fixture
def insects() -> Path:
    """./insects: 40 images of three classes each, told apart by a bar, three of them in the wrong folder."""
    rng = np.random.default_rng(0)
    names = ("ant", "bee", "cat")
    for place, name in enumerate(names):
        for number in range(40):
            path = Path("insects", name, f"{number:03d}.png")
            shown = names.index(PLANTED.get(f"{name}/{path.name}", name))
            pixels = rng.integers(0, 90, (12, 12, 3), dtype=np.uint8)
            pixels[3 * shown : 3 * shown + 2] += 150
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        assert names[place] == name
    return Path("insects")


def suspicious(content):
    return {
        finding["images"][0]: finding["details"]["suggested"]
        for finding in content["findings"]
        if finding["kind"] == "suspicious_label"
    }


def test_planted_wrong_labels_are_found(vitrail, insects):
    done = vitrail("audit", insects, "--json")
    assert (done.code, done.err) == (0, "")
    assert suspicious(done.json) == PLANTED
    assert done.json["written"] == {}
    text = vitrail("audit", insects).out
    assert "\nLabels that may be wrong: 3 (" in text
    assert (
        "\nLabels were compared with out-of-fold predictions from a small model of their pixels, which agree " in text
    )


def test_labels_are_not_checked_where_that_is_not_wanted(vitrail, insects):
    done = vitrail("audit", insects, "--no-labels", "--json")
    assert suspicious(done.json) == {}
    assert "Labels" not in vitrail("audit", insects, "--no-labels").out


def test_the_corrections_are_read_by_training(vitrail, insects):
    shutil.copy(insects / "bee" / "000.png", insects / "bee" / "copy.png")
    done = vitrail("audit", insects, "--write-corrections", "fix.csv", "--json")
    assert done.json["written"] == {"corrections": "fix.csv"}
    lines = Path("fix.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "what,action,label,reason"
    wanted = {f"{image},relabel,{label}" for image, label in PLANTED.items()} | {"bee/copy.png,drop,"}
    assert {",".join(line.split(",")[:3]) for line in lines[1:]} == wanted
    run = vitrail("train", insects, *FAST, "--corrections", "fix.csv", "--out", "run", "--json")
    assert run.code == 0
    counts = json.loads(Path("run/audit.json").read_text(encoding="utf-8"))["counts"]["all"]
    assert counts == {"ant": 40, "bee": 40, "cat": 40}
    again = vitrail("audit", insects, "--corrections", "fix.csv", "--json")
    assert suspicious(again.json) == {}
    assert again.json["duplicates"] == {"all": []}


def test_where_nothing_is_to_be_corrected_nothing_is_written(vitrail, write_idx):
    write_idx(Path("set"), 90, 30)
    done = vitrail("audit", "set", "--write-corrections", "fix.csv")
    assert done.code == 0
    assert "\nfix.csv was not written: nothing to correct is sure\n" in done.out
    assert not Path("fix.csv").exists()


def test_published_test_images_are_not_corrected(vitrail, insects):
    for name in ("ant", "bee", "cat"):
        for number in range(10):
            source = insects / name / f"{number:03d}.png"
            target = Path("set/test", name, source.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)
    shutil.move(insects, "set/train")
    done = vitrail("audit", "set", "--write-corrections", "fix.csv", "--json")
    assert suspicious(done.json) == {
        "train/bee/010.png": "cat", "train/cat/020.png": "ant", "test/ant/003.png": "bee"
    }  # fmt: skip
    lines = Path("fix.csv").read_text(encoding="utf-8").splitlines()
    assert sorted(",".join(line.split(",")[:3]) for line in lines[1:]) == [
        "# test/ant/003.png,relabel,bee",
        "train/bee/010.png,relabel,cat",
        "train/cat/020.png,relabel,ant",
    ]


def test_the_report_and_the_preview(vitrail, insects):
    done = vitrail("audit", insects, "--html", "audit.html", "--preview", "4")
    assert done.code == 0
    assert "\nThe report is in audit.html\nWhat a model sees is in insects-preview.png\n" in done.out
    page = Path("audit.html").read_text(encoding="utf-8")
    assert "Labels that may be wrong (3)" in page
    assert page.count("<img") == 4
    with Image.open("insects-preview.png") as picture:
        assert min(picture.size) > 100


def test_the_vectors_of_a_run(vitrail, insects):
    vitrail("train", insects, *FAST, "--out", "run")
    done = vitrail("audit", insects, "--model", "run", "--json")
    assert done.json["statistics"]["label_check"]["predictions"] == "the vectors of run"
    assert "are among those that run was trained on or chosen by" in done.json["notes"][-1]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("nowhere",), 2, "No data set named 'nowhere'."),
        (("digits", "--model", "nowhere"), 2, "nowhere"),
        (("digits", "--html", "none/audit.html"), 2, "none does not exist; make that folder first, or write elsewhere"),
        (("digits", "--html", "audit.pdf"), 2, "audit.pdf does not end in .html; name the report so"),
        (("digits", "--write-corrections", "mine.csv"), 2, "mine.csv exists already; write to another file, or move "),
        (("digits", "--no-labels", "--model", "run"), 2, "A model is for the check of labels, which is left out; "),
        (("digits", "--preview", "0"), 2, "preview=0 is not possible; draw 1 image or more"),
        (
            ("digits", "--set", "training.epochs=3"),
            2,
            "training.epochs changes nothing about an audit; what does is data.image_column, ",
        ),
        (("digits", "--set", "data.fit=wide"), 2, "data.fit='wide'"),
    ],
)
def test_mistakes(vitrail, arguments, code, sentence):
    Path("mine.csv").write_text("by hand", encoding="utf-8")
    done = vitrail("audit", *arguments)
    assert done.code == code
    assert sentence in done.error
    assert Path("mine.csv").read_text(encoding="utf-8") == "by hand"
    assert [path.name for path in Path().iterdir()] == ["mine.csv"]


def test_a_report_where_nothing_may_be_written(vitrail, insects, files_of_at_most):
    with files_of_at_most(100):
        done = vitrail("audit", insects, "--no-labels", "--html", "audit.html")
    assert done.code == 1
    assert "audit.html" in done.err
    assert not Path("audit.html").exists()
