"""vitrail explain --check, word for word."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def digits(digits_run, tmp_path) -> str:
    """A copy of the run, into which the command may write."""
    return str(shutil.copytree(digits_run, tmp_path / "run"))


def test_a_line_a_method_and_advice(vitrail, digits):
    done = vitrail("explain", digits, "--check", "--images", "20")
    assert done.code == 0
    *table, advice = done.out.splitlines()
    assert table[0].split("  ")[0] == "method"
    assert [line.split()[0] for line in table[1:]][-1:] == ["random"]
    assert sorted(line.split()[0] for line in table[1:]) == [
        "attention", "grad_cam", "integrated_gradients", "occlusion", "random", "relevance", "rollout"
    ]  # fmt: skip
    assert advice.startswith(("Use ", "Trust no map "))
    # On a slow machine it says before how far it is.
    assert done.err.endswith(f"20 images of digits, validation; drawn in {digits}/figures/faithfulness.png\n")
    with Image.open(f"{digits}/figures/faithfulness.png") as picture:
        assert picture.size[0] > 1000


def test_json_is_what_is_in_the_file(vitrail, digits):
    done = vitrail("explain", digits, "--check", "--images", "8", "--method", "rollout", "--json")
    found = done.json
    files = found.pop("files")
    assert found == json.loads(Path(files["json"]).read_text())
    assert (found["run"], found["dataset"], found["images"]) == (digits, "digits, validation", 8)
    assert [*found["methods"]] == ["rollout", "random"]
    assert files == {"json": f"{digits}/faithfulness.json", "png": f"{digits}/figures/faithfulness.png"}


def test_named_images_are_checked_on(vitrail, digits, digit_images, caplog):
    Path("scans").mkdir()
    for index in range(3):
        Image.fromarray(digit_images[index]).save(f"scans/{index}.png")
    Path("scans/torn.png").write_text("hello")
    done = vitrail("explain", digits, "scans", "--check", "--method", "attention", "--output", "out")
    assert done.code == 0
    assert "scans/torn.png is not an image that can be read" in caplog.text
    assert done.err.endswith("3 images of 3 image files; drawn in out/figures/faithfulness.png\n")
    assert Path("out/faithfulness.json").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--check", "--target", "8"], "--target means nothing with --check, which compares whole methods; leave it "),
        (["--check", "--figure"], "--figure means nothing with --check"),
        (["--check", "--layer", "0"], "--layer means nothing with --check"),
        (["--check", "--images", "1"], "images=1 is too few for an interval; use 2 or more, 100 is usual"),
        (["--check", "--method", "rolout"], "No method named 'rolout'. Did you mean 'rollout'?"),
        (["--images", "5"], "--images is for --check; to explain fewer images, name fewer"),
        ([], "No image is named; name some, or ask which method to trust: vitrail explain "),
    ],
)
def test_mistakes(vitrail, digits, options, sentence):
    done = vitrail("explain", digits, *options)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith(sentence)
    assert not Path(digits, "faithfulness.json").exists()
