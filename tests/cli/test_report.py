"""vitrail report, and the report that vitrail train ends with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vitrail.reporting.training_report import report_training


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    """runs/digits in the current folder, finished."""
    shutil.copytree(digits_run, tmp_path / "runs" / "digits")
    return Path("runs/digits")


def test_report_says_where_it_is(vitrail: Any, run: Path) -> None:
    done = vitrail("report", "last")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"The report is in {run / 'report.html'}",
        f"The model card is in {run / 'README.md'}",
    ]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<h1>digits</h1>" in page
    assert 'alt="Image of ' in page
    assert str(Path.cwd()) not in page


def test_report_as_json_without_images_elsewhere(vitrail: Any, run: Path) -> None:
    done = vitrail("report", run, "--no-images", "--output", "shown.html", "--json", "--device", "cpu")
    assert done.code == 0
    assert done.json == {
        "run": str(run),
        "model": "vit_micro_conv4_8",
        "report": "shown.html",
        "card": None,
        "bytes": Path("shown.html").stat().st_size,
        "missing": ["Images were left out, as asked for"],
    }
    assert 'alt="Image of ' not in Path("shown.html").read_text(encoding="utf-8")
    assert not (run / "report.html").exists()


def test_what_is_missing_is_said(vitrail: Any, run: Path) -> None:
    (run / "predictions" / "test.parquet").unlink()
    (run / "model.safetensors").unlink()
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config["data"]["source"] = "/home/ann/photos"
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    done = vitrail("report", run)
    assert done.code == 0
    *lacks, report, card = done.out.splitlines()
    assert lacks == [
        "The model cannot be used: model.safetensors could not be read: No such file or directory",
        "The run's images, photos, are not here, or cannot be read",
        "predictions/test.parquet is missing or damaged: single answers are not known",
        "The inside of the model is not shown, as it could not be inspected",
    ]
    assert (report, card) == (f"The report is in {run}/report.html", f"The model card is in {run}/README.md")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("none",), "No run at none."),
        (("runs/digits", "--output", "report.txt"), "report.txt does not end in .html; name the report so"),
        (("runs/digits", "--output", "none/a.html"), "none does not exist; make that folder first, or write elsewhere"),
        (("runs/digits", "--device", "gpu"), "gpu"),
        (("timm:vit_tiny_patch16_224",), "timm:vit_tiny_patch16_224 is a published model, and nothing is known"),
    ],
)
def test_what_has_no_report(vitrail: Any, run: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = vitrail("report", *arguments)
    assert done.code == 2
    assert sentence in done.error
    assert not list(Path().rglob("*.html"))


def test_train_writes_it_and_says_so(vitrail: Any, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.session.report_training", report_training)
    settings = tiny | {"evaluation.report": "true"}
    how = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = vitrail("train", "digits", "--epochs", 1, "--out", "run", *how)
    assert done.code == 0
    assert done.out.splitlines()[-1] == f"all about it, to open in a browser: {Path('run/report.html')}"
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "What this report lacks" not in page
    assert "Inside the model" in page
    assert Path("run/README.md").is_file()
