"""What was found inside a model, drawn and written."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

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
    drawn_before: bool = False
    """it could not be drawn now, and is the one of an earlier inspection"""


@dataclass(frozen=True)
class Inspection:
    """The figures of a model's inside, the numbers behind them, and by name why others are `missing`.

    A figure that could not be drawn now, but was before, is among both.
    """

    run: str
    model: str
    folder: Path
    figures: tuple[InspectionFigure, ...]
    missing: Mapping[str, str]
    numbers: Mapping[str, Any]

    def __repr__(self) -> str:
        number = len(self.figures)
        return f"Inspection({self.model}, {number} figure{'s' * (number != 1)} in {self.folder})"

    def _repr_html_(self) -> str:
        """The figures with what is said of them, as a notebook shows them."""
        parts = [f"<p><b>{escape(self.model)}</b></p>"]
        for figure in self.figures:
            try:
                shown = b64encode(figure.path.read_bytes()).decode("ascii")
            except OSError:  # deleted since
                continue
            source = f"data:image/png;base64,{shown}"
            parts.append(f'<p><img src="{source}" alt="{escape(figure.title)}" style="max-width: 100%"></p>')
            before = ("Drawn before",) if figure.drawn_before else ()
            parts += [f"<p>{escape(sentence)}.</p>" for sentence in (*before, figure.reading, *figure.remarks)]
        for sentence in dict.fromkeys(self.missing.values()):
            names = [name.replace("_", " ") for name, reason in self.missing.items() if reason == sentence]
            parts.append(f"<p>Not drawn: {escape(', '.join(names))}: {escape(sentence)}.</p>")
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it, in one object."""
        shown = [
            {
                "name": figure.name,
                "title": figure.title,
                "path": str(figure.path),
                "reading": figure.reading,
                "remarks": list(figure.remarks),
                "drawn_before": figure.drawn_before,
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
    does not have, is `missing`, with a sentence; if the folder has it of an earlier inspection of the same model, that
    is left there. `run` is what the result calls the model; `report` hears how many
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
    model = classifier.card.model_name
    before = _drawn_before(output, run or model, model)
    drawn: list[InspectionFigure] = []
    missing: dict[str, str] = {}
    numbers: dict[str, Any] = {"images": {name: len(own) for name, own in subject.look.images.items()}}
    for name, draw in FIGURES.items():
        path = output / f"{name}.png"
        try:
            found = draw(subject)
        except VitrailError as error:
            missing[name] = str(error).partition("; use grad_cam")[0]  # that is said where images are explained
            if name in before.figures:
                numbers["images"] = numbers["images"] or before.numbers.get("images", {})
                drawn.append(before.figures[name])
                numbers[name] = before.numbers.get(name, {})
            else:
                path.unlink(missing_ok=True)  # of another model
            continue
        save_figure(found.figure, path)
        drawn.append(InspectionFigure(name, found.title, path, found.reading, found.remarks))
        numbers[name] = _plain(found.numbers)
    done = Inspection(run or model, model, output, tuple(drawn), missing, numbers)
    content = done.to_json()
    del content["folder"]  # it is this file's
    content["run"] = _handed_on(done.run)
    for figure in content["figures"]:
        figure["path"] = Path(figure["path"]).name
    write_atomically(output / "inspection.json", json.dumps(content, indent=1) + "\n")
    return done


class _Before(NamedTuple):
    """What an earlier inspection left in a folder."""

    figures: Mapping[str, InspectionFigure]
    numbers: Mapping[str, Any]


def _drawn_before(folder: Path, run: str, model: str) -> _Before:
    """The figures of an earlier inspection of the same model, empty where there was none or its file is damaged."""
    try:
        content = json.loads((folder / "inspection.json").read_text(encoding="utf-8"))
        own = content["run"] == _handed_on(run) or folder.parent == Path(run)  # a run may have another name now
        if content["model"] != model or not own:
            return _Before({}, {})
        figures = [
            InspectionFigure(
                name=str(figure["name"]),
                title=str(figure["title"]),
                path=folder / f"{figure['name']}.png",
                reading=str(figure["reading"]),
                remarks=tuple(map(str, figure["remarks"])),
                drawn_before=True,
            )
            for figure in content["figures"]
        ]
        return _Before({one.name: one for one in figures if one.path.is_file()}, dict(content["numbers"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _Before({}, {})


def _handed_on(run: str) -> str:
    """What a file calls a run that it may be handed on with."""
    return Path(run).name if Path(run).is_dir() else run


def _plain(value: Any) -> Any:
    """Numbers as JSON has them, rounded; NaN, of what there is none of, is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), _DIGITS) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
