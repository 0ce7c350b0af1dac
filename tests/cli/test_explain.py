import json
import shutil
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def digits(digits_run) -> str:
    return str(digits_run)


@pytest.fixture
def scans(vitrail, digit_images) -> Path:
    """./scans: two digits."""
    Path("scans").mkdir()
    for index in range(2):
        Image.fromarray(digit_images[index]).save(f"scans/{index}.png")
    return Path("scans")


NOTES = (
    "occlusion is the default for small images, and where a model gives its answers alone; --method names another\n"
    "Orange places (above 0) are those without which the class's score falls, blue ones (below 0) those without "
    "which it rises\n"
    "2 images are drawn larger, by whole factors; the maps have their own size\n"
)


def test_a_line_an_image(vitrail, digits, scans):
    done = vitrail("explain", digits, "scans")
    lines = [line.split() for line in done.out.splitlines()]
    assert done.code == 0
    assert lines[0] == ["image", "prediction", "probability", "method", "shows", "file"]
    assert [[*line[:2], *line[3:]] for line in lines[1:]] == [
        [f"scans/{digit}.png", digit, "%", "occlusion", "evidence", "for", digit, f"explanations/{digit}-occlusion.png"]
        for digit in ("0", "1")
    ]
    assert done.err == NOTES


def test_json_is_what_is_in_the_files(vitrail, digits, scans):
    done = vitrail(
        "explain", digits, "scans/1.png", "--method", "attention", "--layer", "0", "--output", "out", "--json"
    )
    assert {**done.json, "images": []} == {"run": digits, "method": "attention", "images": []}
    (row,) = done.json["images"]
    assert row.pop("error") is None
    files = row.pop("files")
    assert files == {kind: f"out/1-attention-layer0.{kind}" for kind in ("png", "npz", "json")}
    written = json.loads(Path(files["json"]).read_text())
    assert row == {key: value for key, value in written.items() if key not in ("run", "files")}
    assert (row["target"], row["layer"], row["head"], row["prediction"]["label"]) == (None, 0, None, "1")


def test_an_image_that_cannot_be_read(vitrail, digits, scans):
    (scans / "torn.png").write_text("hello")
    done = vitrail("explain", digits, "scans", "--json")
    sentence = "scans/torn.png is not an image that can be read: it is not in an image format that is known"
    assert (done.code, done.err) == (1, f"{NOTES}error: {sentence}\n")
    assert done.json["error"] == "1 of 3 images were not explained"
    assert [row["error"] for row in done.json["images"]] == [None, None, sentence]
    assert len(list(Path("explanations").glob("*.png"))) == 2
    done = vitrail("explain", digits, "scans")
    assert [line.split() for line in done.out.splitlines()][-1] == ["scans/torn.png", "error", *4 * "-"]
    assert (done.code, len(done.out.splitlines())) == (1, 4)


def test_a_figure_too(vitrail, digits, scans):
    assert vitrail("explain", digits, "scans/0.png", "--figure").code == 0
    assert Path("explanations/0-occlusion-figure.png").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--method", "rolout"], "No method named 'rolout'. Did you mean 'rollout'? Use one of relevance, rollout, "),
        (["--target", "eight"], "vit_micro_conv4_8 has no class 'eight'; it has 0, 1, 2 and 7 more."),
        (["--target", "8", "--against", "8"], "target and against are both '8'; name two classes to contrast"),
        (["--method", "attention", "--layer", "1"], "layer=1 is not there: the model has 1 layer"),
        (["--method", "attention", "--head", "-9"], "head=-9 is not there"),
        (["--head", "0"], "occlusion is of all layers and heads together; leave layer and head out, or use attention"),
        (
            ["--method", "rollout", "--target", "8"],
            "rollout shows what is looked at, whatever the class; leave target ",
        ),
    ],
)
def test_what_is_not_there(vitrail, digits, scans, options, sentence):
    done = vitrail("explain", digits, "scans", *options)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith(sentence)
    assert not Path("explanations").exists() or not list(Path("explanations").iterdir())


def test_paths_without_images(vitrail, digits, scans):
    done = vitrail("explain", digits, "nothing")
    assert (done.code, done.error.partition(";")[0]) == (2, "nothing does not exist")
    assert vitrail("explain", digits).code == 2
    done = vitrail("explain", "runs/none", "scans")
    assert done.code == 2


def test_the_run_is_looked_up_once(vitrail, digits, scans):
    shutil.copytree(digits, "runs/0001-digits")
    done = vitrail("explain", "last", "scans", "--json")
    assert Path(done.json["run"]).name == "0001-digits"
    assert done.json["images"][0]["files"]["png"] == "explanations/0-occlusion.png"
