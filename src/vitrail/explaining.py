"""Explaining: for many image files, where the evidence lies, each as a picture, a map and what is known of both."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from vitrail import figures
from vitrail.checkpoint import write_atomically
from vitrail.classifier import Classifier, Count, Explained
from vitrail.errors import CheckpointError, ConfigError
from vitrail.explanations import MAX_SIDE, Explanation, Question
from vitrail.interpretation.methods import METHODS
from vitrail.interpretation.subjects import Subject

OUTPUT = Path("explanations")
# Bytes of the parts of a name; file systems allow 255.
_LONGEST_STEM, _LONGEST_CLASS = 120, 40
_UNSAFE = re.compile(r"[^\w.+-]+")
_MUCH_PADDING = 0.2  # of the evidence, in padding: worth a word

# Why a method is the default one.
_DEFAULTS = {
    "relevance": "the default for large images and models with attention",
    "grad_cam": "the default for large images and models without attention, such as CNNs",
    "occlusion": "the default for small images, and where a model gives its answers alone",
    "rollout": "the default for models without classes",
    "attention": "the default for models without classes",
}


@dataclass(frozen=True)
class ExplainedFile:
    """What became of one image: what its explanation says, and the files written, by kind; or its `error`."""

    image: str
    found: dict[str, Any] | None
    files: dict[str, str]
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as JSON has it, in one object."""
        return {"image": self.image, **(self.found or {}), "files": self.files, "error": self.error}

    def __repr__(self) -> str:
        said = f"error: {self.error}" if self.found is None else f"{self.found['question']}, {self.files['png']}"
        return f"ExplainedFile({self.image}, {said})"


class ExplainedFiles(list[ExplainedFile]):
    """What became of the images, in their order; `method` explained them, and `notes` are sentences on how."""

    method: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        failed = sum(row.error is not None for row in self)
        errors = f", {failed:,} with an error" if failed else ""
        return f"ExplainedFiles({self.method}, {len(self):,} image{'s' * (len(self) != 1)}{errors})"


def explain_files(
    classifier: Classifier,
    paths: Sequence[Path],
    question: Question,
    run: str,
    output: Path | None = None,
    *,
    figure: bool = False,
    report: Count | None = None,
) -> ExplainedFiles:
    """Write the explanation of each image into the folder `output`; one that cannot be read has a row with its error.

    An image gets `<name>-<method>.png`, `.npz` and `.json`, as `Explanation.save` writes them, and with `figure` also
    `-figure.png`, three panels. Layer, head and classes that are asked for are in the name. Files of another image or
    run are never overwritten: the name then gets -2, -3, ... Pictures that were written so are no input.
    Raises ConfigError for what is not there or not possible, CheckpointError when the disk refuses.
    """
    folder = OUTPUT if output is None else output
    images = [path for path in paths if not _is_written(path)]
    if not images:
        raise ConfigError(f"All {len(paths):,} images are explanations that were written earlier; name others")
    subject = Subject.of(classifier.engine, classifier.card.model)
    resolved = question.resolved(subject, classifier.card)
    _make_folder(folder)
    done, taken = ExplainedFiles(), set[str]()
    done.method = str(resolved.method)
    done.notes = tuple(_notes_before(question, done.method, len(paths) - len(images)))
    for row in classifier.explain_many(images, resolved):
        done.append(_written(row, question, run, folder, taken, figure=figure))
        if report is not None:
            report(len(done), len(images))
    done.notes = (*done.notes, *_notes_after([row.found for row in done if row.found is not None]))
    return done


def _written(
    row: Explained, question: Question, run: str, folder: Path, taken: set[str], *, figure: bool
) -> ExplainedFile:
    """The row of an image, its files written; their name is then `taken`."""
    if row.explanation is None:
        return ExplainedFile(row.image, None, {}, row.error)
    explanation = row.explanation
    name = _free(folder, _name(explanation, question), run, row.image, taken)
    taken.add(name.lower())
    files = {kind: folder / f"{name}.{kind}" for kind in ("png", "npz")}
    for path in files.values():
        explanation.save(path)
    if figure:
        files["figure"] = figures.save_figure(explanation.figure(), folder / f"{name}-figure.png")
    found = explanation.to_json()
    written = {kind: path.name for kind, path in files.items()}
    content = json.dumps({"run": run, **found, "files": written}, indent=2)
    files["json"] = folder / f"{name}.json"
    write_atomically(files["json"], content + "\n")
    return ExplainedFile(row.image, found, {kind: str(path) for kind, path in files.items()})


def _name(explanation: Explanation, question: Question) -> str:
    """What the files of an explanation are called, without a number: image, method, and what else was asked for."""
    asked = [explanation.method]
    asked += [
        f"{what}{place}" for what, place in (("layer", question.layer), ("head", question.head)) if place is not None
    ]
    asked += [] if question.target is None else [_shortened(_UNSAFE.sub("_", question.target), _LONGEST_CLASS)]
    asked += [] if question.against is None else ["not", _shortened(_UNSAFE.sub("_", question.against), _LONGEST_CLASS)]
    return "-".join([_shortened(Path(explanation.image).stem, _LONGEST_STEM), *asked])


def _shortened(name: str, most: int) -> str:
    """The beginning of a name, of so many bytes at the most."""
    return os.fsdecode(os.fsencode(name)[:most]) if len(os.fsencode(name)) > most else name


def _free(folder: Path, name: str, run: str, image: str, taken: set[str]) -> str:
    """The first of name, name-2, name-3, ... that no other image or run has."""
    number = 1
    while True:
        candidate = name if number == 1 else f"{name}-{number}"
        if candidate.lower() not in taken:  # file systems may not tell capitals apart
            path = folder / f"{candidate}.json"
            if not path.exists() and not path.with_suffix(".png").exists() and not path.with_suffix(".npz").exists():
                return candidate
            found = _read(path)
            if (found.get("run"), found.get("image")) == (run, image):
                return candidate
        number += 1


def _is_written(path: Path) -> bool:
    """Whether an image is a picture that `explain_files` wrote."""
    if path.suffix != ".png":
        return False
    stem = path.stem
    return any(
        path.name in dict(found.get("files") or {}).values()
        for found in (_read(path.with_name(f"{name}.json")) for name in (stem, stem.removesuffix("-figure")))
        if "method" in found
    )


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; none where there is no such file, or another."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give --output a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder} could not be made: {error.strerror or error}; write into another") from error


def _notes_before(question: Question, method: str, num_left_out: int) -> Iterator[str]:
    if num_left_out:
        yield f"{num_left_out:,} pictures that `vitrail explain` wrote are left out"
    if question.method is None:
        yield f"{method} is {_DEFAULTS[method]}; --method names another"
    yield METHODS[method].reading_of(question.against)


def _notes_after(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is to be known of the pictures, where it is so of any."""
    small, large = sum(one["enlarged"] > 1 for one in found), sum(max(one["image_size"]) > MAX_SIDE for one in found)
    if small:
        yield f"{_images(small)} drawn larger, by whole factors; the maps have their own size"
    if large:
        yield f"{_images(large)} drawn smaller, {MAX_SIDE:,} pixels on the longer side"
    padded = sum(one["padding"]["evidence"] > max(_MUCH_PADDING, one["padding"]["area"]) for one in found)
    if padded:
        yield (
            f"Of {padded:,} image{'s' * (padded != 1)} more than {_MUCH_PADDING:.0%} of the evidence lies in the "
            "padding, more than falls to it by its size, where no picture shows it; --json says how much"
        )


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count:,} images are"
