"""The figures of a model's inside as a report shows them: drawn now, or as they were drawn before."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.classifier import Classifier
from vitrail.data.dataset import ImageSet
from vitrail.inspecting import inspect_model
from vitrail.reporting.report_facts import BROKEN, UNREADABLE, first_line
from vitrail.reporting.report_pictures import Figure, embedded
from vitrail.runs import RunDirectory

FOLDER = "inspection"
_LINES = frozenset({"attention_distance", "attention_entropy", "token_norms", "layer_probes", "embeddings"})


@dataclass(frozen=True)
class Inside:
    """The figures; `absent` says which this model does not have and why, `missing` what could not be looked at."""

    figures: tuple[Figure, ...] = ()
    absent: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def look_inside(
    directory: RunDirectory, classifier: Classifier | None, images: Mapping[str, ImageSet], *, keep: bool
) -> Inside:
    """The figures of a run's model, drawn with the images that are there; with `keep` they stay in its inspection/.

    Without a classifier, or where that fails, they are those that were drawn before, if any were; so without images,
    else those that need none.
    """
    missing: list[str] = []
    folder = directory.path / FOLDER
    if classifier is not None and (images or not (folder / "inspection.json").is_file()):
        try:
            if keep:
                return _drawn(classifier, images, folder, directory)
            with tempfile.TemporaryDirectory(prefix="vitrail-") as passing:
                return _drawn(classifier, images, Path(passing), directory)
        except BROKEN as error:
            missing.append(f"The model was not inspected: {first_line(error)}")
    try:
        before: dict[str, Any] = json.loads((folder / "inspection.json").read_text(encoding="utf-8"))
        figures = [{**figure, "path": folder / Path(figure["path"]).name} for figure in before["figures"]]
        return _inside(figures, before["missing"], missing)
    except UNREADABLE:
        return Inside(missing=tuple(missing or ["The inside of the model is not shown, as it could not be inspected"]))


def _drawn(classifier: Classifier, images: Mapping[str, ImageSet], folder: Path, directory: RunDirectory) -> Inside:
    done = inspect_model(classifier, images, folder, run=str(directory.path))
    return _inside([vars(figure) for figure in done.figures], done.missing, [])


def _inside(figures: Sequence[Mapping[str, Any]], absent: Mapping[str, str], missing: Sequence[str]) -> Inside:
    shown = [
        embedded(
            Path(figure["path"]),
            figure["title"],
            _in_words(figure["title"], figure["remarks"]),
            dark=figure["name"] in _LINES,
            caption=figure["reading"],
            remarks=tuple(figure["remarks"]),
        )
        for figure in figures
    ]
    sentences = dict.fromkeys(absent.values())
    return Inside(tuple(figure for figure in shown if figure is not None), tuple(sentences), tuple(missing))


def _in_words(title: str, remarks: Sequence[str]) -> str:
    return f"{title}: {'; '.join(remarks)}" if remarks else f"{title}, in which nothing unusual was found"
