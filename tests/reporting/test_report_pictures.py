import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vitrail.reporting.report_facts import read_facts
from vitrail.reporting.report_pictures import MOST_BYTES, embedded, run_pictures


def content_of(source: str) -> bytes:
    return base64.b64decode(source.partition(",")[2])


def test_a_picture_is_its_pixels_alone(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    told = PngInfo()
    told.add_text("Author", "ann")
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=told, exif=exif)
    assert b"SecretCamera" in (tmp_path / "a.png").read_bytes()
    figure = embedded(tmp_path / "a.png", "A", "a picture", dark=True, remarks=("odd",))
    assert figure is not None
    content = content_of(figure.source)
    assert b"ann" not in content
    assert b"SecretCamera" not in content
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    assert (figure.width, figure.height, figure.dark, figure.remarks) == (30, 20, True, ("odd",))
    assert (figure.shown_width, figure.shown_height) == (22, 15)


def test_large_pictures_are_made_small_enough(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    figure = embedded(tmp_path / "a.png", "", "")
    assert figure is not None
    assert figure.source.startswith("data:image/jpeg;")
    assert len(content_of(figure.source)) <= MOST_BYTES


@pytest.mark.parametrize("damage", ["missing", "torn", "other", "huge", "jpeg"])
def test_what_is_no_picture_is_left_out(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
    if damage != "missing":
        image.save(path, "jpeg" if damage == "jpeg" else "png")
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:500])
    if damage == "other":
        path.write_text("no picture", encoding="utf-8")
    if damage == "huge":
        monkeypatch.setattr("vitrail.reporting.report_pictures.MOST_PIXELS", 100)
    assert embedded(path, "", "") is None


def test_the_figures_of_a_run_say_their_numbers(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    found = run_pictures(kept_run.directory, facts, samples=True, answers=False)
    assert [*found] == ["curves", "reliability", "coverage", "confusion", "samples"]
    assert "validation accuracy is 50.0 % after epoch 1, 60.0 % after epoch 2" in found["curves"].alt
    assert "Confusion matrix of 3 classes: " in found["confusion"].alt
    assert " right of the surest 100.0 %" in found["coverage"].alt
    assert [figure.dark for figure in found.values()] == [True, True, True, True, False]
    shown = run_pictures(kept_run.directory, facts, samples=False, answers=True)
    assert {*shown} - {*found} == {"mistakes", "predictions"}
    assert "samples" not in shown


def test_an_unfinished_run_has_its_curves_drawn(other_run: Callable[..., Any]) -> None:
    run = other_run(finished=False)
    (run.directory.figures_path / "curves.png").unlink()
    found = run_pictures(run.directory, read_facts(run.directory), samples=False, answers=False)
    assert found["curves"].width > 500


def test_a_confusion_matrix_of_a_thousand_classes_is_no_picture(other_run: Callable[..., Any]) -> None:
    run = other_run(num_classes=101, num_images=202)
    assert "confusion" not in run_pictures(run.directory, read_facts(run.directory), samples=True, answers=True)
