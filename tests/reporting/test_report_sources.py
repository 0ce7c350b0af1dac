import shutil
from pathlib import Path
from typing import Any

import pytest

from vitrail.errors import ConfigError
from vitrail.reporting.report_sources import report_sources
from vitrail.runs import RunDirectory


@pytest.fixture
def digits(digits_run: Path, tmp_path: Path) -> RunDirectory:
    shutil.copytree(digits_run, tmp_path / "digits")
    return RunDirectory(tmp_path / "digits")


def test_model_and_images_of_a_run(digits: RunDirectory) -> None:
    found = report_sources(digits, "cpu")
    assert found.classifier is not None
    assert {split: len(images) for split, images in found.images.items()} == {
        "train": 1259, "validation": 179, "test": 359
    }  # fmt: skip
    assert found.notes == ()


def test_the_test_of_an_unfinished_run_is_not_read(digits: RunDirectory) -> None:
    lines = digits.journal.path.read_text(encoding="utf-8").splitlines(keepends=True)
    digits.journal.path.write_text("".join(line for line in lines if "finished" not in line), encoding="utf-8")
    assert [*report_sources(digits, "cpu").images] == ["train", "validation"]


def test_images_that_have_moved_and_a_model_that_is_gone(made_run: Any) -> None:
    (made_run.path / "model.safetensors").unlink()
    found = report_sources(made_run.directory, "cpu")
    assert found.classifier is None
    assert found.images == {}
    model, images = found.notes
    assert model.startswith("The model cannot be used: ")
    assert images == "The run's images, photos, are not here, or cannot be read"


def test_images_that_have_changed(digits: RunDirectory) -> None:
    text = digits.splits_path.read_text(encoding="utf-8")
    digits.splits_path.write_text(text.replace('"fingerprint": "', '"fingerprint": "0'), encoding="utf-8")
    found = report_sources(digits, "cpu")
    assert found.images == {}
    assert found.notes[0] == (
        "The train images of digits are left out: digits is not the data that the splits were drawn from"
    )


@pytest.mark.parametrize("name", ["config.json", "splits.json"])
def test_damaged_files_leave_the_rest(digits: RunDirectory, name: str) -> None:
    (digits.path / name).write_text("{", encoding="utf-8")
    found = report_sources(digits, "cpu")
    assert found.classifier is not None
    assert found.images == {}


def test_a_device_that_is_not_there(digits: RunDirectory) -> None:
    with pytest.raises(ConfigError, match="gpu"):
        report_sources(digits, "gpu")
