import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitrail.errors import ConfigError
from vitrail.reporting import report_inside
from vitrail.reporting.report_inside import Inside, look_inside
from vitrail.runs import RunDirectory


@pytest.fixture(scope="module")
def first(kept_run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inside]:
    """A run whose inside was drawn, and what was drawn."""
    path = tmp_path_factory.mktemp("inspected") / "run"
    shutil.copytree(kept_run.path, path)
    return path, look_inside(RunDirectory(path), kept_run.classifier, kept_run.images, keep=True)


@pytest.fixture
def inspected(made_run: Any, first: tuple[Path, Inside]) -> Any:
    """A copy of that run."""
    shutil.copytree(first[0] / "inspection", made_run.path / "inspection")
    return made_run


def test_the_figures_are_drawn_with_how_they_are_read(first: tuple[Path, Inside]) -> None:
    path, found = first
    assert len(found.figures) >= 6
    assert found.missing == ()
    for figure in found.figures:
        assert figure.caption
        assert figure.alt.startswith(figure.title)
        assert all(remark in figure.alt for remark in figure.remarks)
    assert (path / "inspection" / "inspection.json").is_file()


def test_nothing_is_kept_of_a_report_that_goes_elsewhere(made_run: Any) -> None:
    found = look_inside(made_run.directory, made_run.classifier, made_run.images, keep=False)
    assert found.figures
    assert not (made_run.path / "inspection").exists()


def test_without_images_or_a_model_the_figures_are_those_from_before(
    inspected: Any, first: tuple[Path, Inside]
) -> None:
    assert look_inside(inspected.directory, None, {}, keep=True) == first[1]
    assert look_inside(inspected.directory, inspected.classifier, {}, keep=True) == first[1]


def test_what_needs_no_images_is_drawn_without_them(made_run: Any) -> None:
    found = look_inside(made_run.directory, made_run.classifier, {}, keep=True)
    assert [figure.title for figure in found.figures] == ["Patch filters", "Position similarity"]
    assert found.absent


def test_what_fails_is_said(inspected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*told: object, **how: object) -> None:
        raise ConfigError("There is no such layer")

    monkeypatch.setattr(report_inside, "inspect_model", fails)
    found = look_inside(inspected.directory, inspected.classifier, inspected.images, keep=True)
    assert found.missing == ("The model was not inspected: There is no such layer",)
    assert found.figures
    shutil.rmtree(inspected.path / "inspection")
    found = look_inside(inspected.directory, inspected.classifier, inspected.images, keep=True)
    assert (found.figures, found.missing) == ((), ("The model was not inspected: There is no such layer",))


@pytest.mark.parametrize("text", ["{", "{}", json.dumps({"figures": [{}], "missing": {}})])
def test_damaged_notes_of_an_inspection(inspected: Any, text: str) -> None:
    (inspected.path / "inspection" / "inspection.json").write_text(text, encoding="utf-8")
    found = look_inside(inspected.directory, None, {}, keep=True)
    assert found.missing == ("The inside of the model is not shown, as it could not be inspected",)


def test_what_a_model_does_not_have_is_said(other_run: Callable[..., Any]) -> None:
    run = other_run(multilabel=True)
    found = look_inside(run.directory, run.classifier, run.images, keep=True)
    assert any("several labels" in sentence for sentence in found.absent)
