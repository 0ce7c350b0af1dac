"""What is inside a model, from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import vitrail
from vitrail import loading
from vitrail.errors import ConfigError


@pytest.fixture
def scan(tmp_path, monkeypatch, digit_images) -> Path:
    """./scan.png, a digit, in an otherwise empty current folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(digit_images[0]).save("scan.png")
    return Path("scan.png")


def test_explain_writes_what_the_classifier_says(digits_run, scan):
    (row,) = vitrail.explain(digits_run, scan, method="occlusion", target="3", against="8", output="out")
    expected = vitrail.load(digits_run).explain(scan, "occlusion", target="3", against="8")
    assert row.found == expected.to_json()
    assert row.files["png"] == str(Path("out/scan-occlusion-3-not-8.png"))
    with Image.open(row.files["png"]) as picture:
        assert picture.size == (224, 224)


def test_explain_takes_other_sizes(digits_run, scan):
    (row,) = vitrail.explain(digits_run, [scan], image_size=16)
    assert row.found is not None
    assert row.found["map_size"] == [16, 16]  # a value a pixel: 8 otherwise


def test_inspect_draws_what_is_inside(digits_run, scan):
    found = vitrail.inspect(digits_run, output="inside")
    assert (found.run, found.folder, dict(found.missing)) == (str(digits_run), Path("inside"), {})
    assert all(figure.path.is_file() for figure in found.figures)
    other = vitrail.inspect(digits_run, "digits", output="inside", image_size=16)
    assert other.numbers["attention_entropy"]["largest"] > found.numbers["attention_entropy"]["largest"]


@pytest.mark.parametrize("asked", [{"method": "rolout"}, {"target": "ten"}, {"against": 10}, {"head": 0.5}])
def test_what_cannot_be_asked_is_said_before_the_weights_are_read(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch, asked: dict
) -> None:
    monkeypatch.setattr(loading, "load_model", lambda _: pytest.fail("the weights are read"))
    with pytest.raises(ConfigError, match=r"No method|no class|not a whole number"):
        vitrail.explain(digits_run, "nothing", **asked)
