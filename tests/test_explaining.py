import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail import explaining
from vitrail.api import load
from vitrail.classifier import Classifier
from vitrail.errors import CheckpointError, ConfigError
from vitrail.explaining import ExplainedFiles, explain_files
from vitrail.explanations import Question


@pytest.fixture(scope="module")
def trained(digits_run: Path) -> Classifier:
    return load(digits_run)


@pytest.fixture
def scans(tmp_path, monkeypatch, digit_images) -> list[Path]:
    """scans/0.png to 2.png, scans/more/1.png, which shows another digit, and a file that is no image."""
    monkeypatch.chdir(tmp_path)
    Path("scans/more").mkdir(parents=True)
    for index in range(3):
        Image.fromarray(digit_images[index]).save(f"scans/{index}.png")
    Image.fromarray(digit_images[7]).save("scans/more/1.png")
    Path("scans/torn.png").write_text("no image")
    return sorted(Path("scans").rglob("*.png"))


def names(done: ExplainedFiles) -> list[str | None]:
    return [Path(row.files["png"]).name if row.files else None for row in done]


def test_each_image_has_its_files_and_what_is_broken_a_row(trained, scans):
    heard: list[tuple[int, int]] = []
    done = explain_files(trained, scans, Question(), "run", report=lambda *counts: heard.append(counts))
    assert [row.image for row in done] == [str(path) for path in scans]
    assert names(done) == ["0-occlusion.png", "1-occlusion.png", "2-occlusion.png", "1-occlusion-2.png", None]
    assert (
        done[-1].error == "scans/torn.png is not an image that can be read: it is not in an image format that is known"
    )
    assert done[-1].to_json() == {"image": "scans/torn.png", "files": {}, "error": done[-1].error}
    assert sorted(path.name for path in Path("explanations").iterdir()) == sorted(
        f"{name}.{suffix}"
        for name in ("0-occlusion", "1-occlusion", "1-occlusion-2", "2-occlusion")
        for suffix in ("json", "npz", "png")
    )
    assert heard == [(count, 5) for count in range(1, 6)]
    assert repr(done) == "ExplainedFiles(occlusion, 5 images, 1 with an error)"
    assert repr(done[0]) == "ExplainedFile(scans/0.png, evidence for 0, explanations/0-occlusion.png)"
    assert repr(done[-1]) == f"ExplainedFile(scans/torn.png, error: {done[-1].error})"
    assert done.notes == (
        "occlusion is the default for small images, and where a model gives its answers alone; --method names another",
        "Orange places (above 0) are those without which the class's score falls, blue ones (below 0) those without "
        "which it rises",
        "4 images are drawn larger, by whole factors; the maps have their own size",
    )
    for path, row in zip(scans[:-1], done[:-1], strict=True):
        one = trained.explain(path)
        with np.load(row.files["npz"], allow_pickle=False) as arrays:
            np.testing.assert_allclose(arrays["map"], one.map, atol=1e-6)
            assert str(arrays["image"]) == str(path)
        found = json.loads(Path(row.files["json"]).read_text())
        assert (found["run"], found["image"], found["target"]) == ("run", str(path), one.target)
        assert found["files"] == {kind: Path(row.files[kind]).name for kind in ("png", "npz")}
        assert row.found == {key: value for key, value in found.items() if key not in ("run", "files")}


def test_the_same_again_gives_the_same_files_and_what_differs_others(trained, scans):
    first = explain_files(trained, scans, Question(), "run")
    before = {path: path.read_bytes() for path in Path("explanations").iterdir()}
    assert names(explain_files(trained, scans, Question(), "run")) == names(first)
    assert {path: path.read_bytes() for path in Path("explanations").iterdir()} == before
    another = explain_files(trained, scans[:2], Question(), "another run")
    assert names(another) == ["0-occlusion-2.png", "1-occlusion-3.png"]
    asked = Question("attention", layer=0, head=-1)
    assert names(explain_files(trained, scans[:1], asked, "run")) == ["0-attention-layer0-head-1.png"]
    asked = Question("occlusion", target="3", against="8")
    assert names(explain_files(trained, scans[:1], asked, "run")) == ["0-occlusion-3-not-8.png"]
    assert {path: path.read_bytes() for path in before} == before


def test_files_of_others_are_left_alone(trained, scans):
    folder = Path("mine")
    folder.mkdir()
    (folder / "0-occlusion.png").write_bytes(b"a picture of mine")
    (folder / "0-occlusion-2.json").write_text("[1]")
    done = explain_files(trained, scans[:1], Question(), "run", folder)
    assert names(done) == ["0-occlusion-3.png"]
    assert (folder / "0-occlusion.png").read_bytes() == b"a picture of mine"
    assert (folder / "0-occlusion-2.json").read_text() == "[1]"


def test_names_that_only_capitals_tell_apart(trained, scans):
    scans[0].rename("scans/A.png")
    scans[1].rename("scans/a.png")
    done = explain_files(trained, [Path("scans/A.png"), Path("scans/a.png")], Question(), "run")
    assert names(done) == ["A-occlusion.png", "a-occlusion-2.png"]


def test_pictures_that_were_written_are_no_input(trained, scans):
    explain_files(trained, scans[:1], Question(), "run", Path("scans"), figure=True)
    explain_files(trained, scans[1:], Question(), "run", Path("scans"))
    found = sorted(Path("scans").rglob("*.png"))
    assert len(found) == 5 + 2 + 3
    again = explain_files(trained, found, Question(), "run", Path("scans"))
    assert [Path(row.image) for row in again] == scans
    assert again.notes[0] == "5 pictures that `vitrail explain` wrote are left out"
    explain_files(trained, scans[:1], Question(), "run", Path("scans"), figure=True)
    with pytest.raises(ConfigError, match="All 2 images are explanations that were written earlier; name others"):
        explain_files(trained, [Path("scans/0-occlusion.png"), Path("scans/0-occlusion-figure.png")], Question(), "run")


def test_a_figure_is_drawn_where_it_is_asked_for(trained, scans):
    (row,) = explain_files(trained, scans[:1], Question("grad_cam"), "run", figure=True)
    assert row.files["figure"] == str(Path("explanations/0-grad_cam-figure.png"))
    with Image.open(row.files["figure"]) as figure, Image.open(row.files["png"]) as picture:
        assert figure.width > 2 * picture.width


def test_long_and_odd_names(trained, scans):
    path = scans[0].rename(f"scans/{'ä' * 110} $x.png")
    (row,) = explain_files(trained, [path], Question(), "run")
    assert len(Path(row.files["json"]).name.encode()) < 200
    card = trained.card.model_copy(update={"classes": ("a/b: c" + 300 * "d", *trained.classes[1:])})
    asked = Question(target=card.classes[0])
    (row,) = explain_files(Classifier(trained.engine, card), [path], asked, "run")
    assert Path(row.files["png"]).stem.partition("occlusion-")[2] == "a_b_c" + 35 * "d"


def test_what_is_to_be_known_of_pictures_is_said(trained, scans, monkeypatch):
    monkeypatch.setattr(explaining, "MAX_SIDE", 20)
    Image.new("L", (30, 300)).save("scans/wide.png")
    done = explain_files(trained, [Path("scans/wide.png")], Question("occlusion"), "run")
    assert "1 image is drawn smaller, 20 pixels on the longer side" in done.notes


def test_folders_that_cannot_be_written_to(trained, scans):
    with pytest.raises(ConfigError, match=r"scans/0.png is a file; give --output a folder"):
        explain_files(trained, scans, Question(), "run", scans[0])
    with pytest.raises(CheckpointError, match="could not be made"):
        explain_files(trained, scans, Question(), "run", scans[0] / "below")


def test_a_full_disk_is_said(trained, scans, files_of_at_most):
    with files_of_at_most(100), pytest.raises(CheckpointError, match="could not be written: File too large"):
        explain_files(trained, scans, Question(), "run")
    assert not [path for path in Path("explanations").iterdir() if path.suffix != ".tmp"]
