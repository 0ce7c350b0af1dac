"""What was found inside a model, drawn and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.checkpoint import write_atomically
from vitrail.classifier import Classifier, Count
from vitrail.data.dataset import ImageSet
from vitrail.errors import CheckpointError, VitrailError
from vitrail.figures import save_figure
from vitrail.inspecting.drawing import FIGURES, subject_of
from vitrail.inspecting.images import InspectionImages

_DIGITS = 6  # of numbers in JSON


@dataclass(frozen=True)
class InspectionFigure:
    """A figure of a model's inside."""

    name: str
    title: str
    path: Path
    reading: str
    """one sentence on how to read it"""
    remarks: tuple[str, ...]
    """what is unusual in this model, a sentence each"""


@dataclass(frozen=True)
class Inspection:
    """The figures of a model's inside, the numbers behind them, and by name why others are `missing`."""

    run: str
    model: str
    folder: Path
    figures: tuple[InspectionFigure, ...]
    missing: Mapping[str, str]
    numbers: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it, in one object."""
        shown = [
            {
                "name": figure.name,
                "title": figure.title,
                "path": str(figure.path),
                "reading": figure.reading,
                "remarks": list(figure.remarks),
            }
            for figure in self.figures
        ]
        known = {"run": self.run, "model": self.model, "folder": str(self.folder), "figures": shown}
        return {**known, "missing": dict(self.missing), "numbers": dict(self.numbers)}


def inspect_model(
    classifier: Classifier,
    images: Mapping[str, ImageSet] | InspectionImages,
    output: Path,
    report: Count | None = None,
    run: str | None = None,
) -> Inspection:
    """Draw what is inside a model into the folder `output`, and write what was found to inspection.json there.

    `images` are those of the splits "train", "validation" and "test", any of which may be missing, labels in the
    model's classes unless other classes are given with them. What needs images that are not there, and what the model
    does not have, is `missing`, with a sentence. `run` is what the result calls the model; `report` hears how many
    images have gone through its layers. Raises ConfigError for an engine that is not torch, CheckpointError if the disk
    refuses.
    """
    if not isinstance(images, InspectionImages):
        images = InspectionImages(images, classifier.classes)
    subject = subject_of(classifier, images, report)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{output} could not be made: {error.strerror or error}; name another folder") from error
    drawn: list[InspectionFigure] = []
    missing: dict[str, str] = {}
    numbers: dict[str, Any] = {"images": {name: len(own) for name, own in subject.look.images.items()}}
    for name, draw in FIGURES.items():
        path = output / f"{name}.png"
        try:
            found = draw(subject)
        except VitrailError as error:
            missing[name] = str(error).partition("; use grad_cam")[0]  # that is said where images are explained
            path.unlink(missing_ok=True)  # of another time
            continue
        save_figure(found.figure, path)
        drawn.append(InspectionFigure(name, found.title, path, found.reading, found.remarks))
        numbers[name] = _plain(found.numbers)
    model = classifier.card.model_name
    done = Inspection(run or model, model, output, tuple(drawn), missing, numbers)
    content = done.to_json()
    del content["folder"]  # it is this file's
    content["run"] = Path(done.run).name if Path(done.run).is_dir() else done.run  # it may be handed on with the run
    for figure in content["figures"]:
        figure["path"] = Path(figure["path"]).name
    write_atomically(output / "inspection.json", json.dumps(content, indent=1) + "\n")
    return done


def _plain(value: Any) -> Any:
    """Numbers as JSON has them, rounded; NaN, of what there is none of, is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), _DIGITS) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
