"""A run as one HTML file that needs nothing else, and as a model card: what it is, how good, why, and what it cost.

What cannot be told, as the images have moved or a file is damaged, is said in its place; the rest is told all the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.checkpoint import write_atomically
from vitrail.classifier import Classifier
from vitrail.data.dataset import ImageSet
from vitrail.environment import package_version
from vitrail.errors import CheckpointError
from vitrail.reporting.model_card import model_card
from vitrail.reporting.pages import render
from vitrail.reporting.report_answers import Answers, answers_of, read_answers
from vitrail.reporting.report_commands import needs_data, repeating_command, resuming_command, spelled_command
from vitrail.reporting.report_examples import Examples, make_examples
from vitrail.reporting.report_facts import BROKEN, RunFacts, first_line, read_facts, settings_table
from vitrail.reporting.report_findings import (
    calibration_sentences,
    confused_pairs,
    coverage_rows,
    data_sentences,
    headline,
    notable,
    pair_sentence,
)
from vitrail.reporting.report_inside import look_inside
from vitrail.reporting.report_paths import without_names
from vitrail.reporting.report_pictures import run_pictures
from vitrail.reporting.report_tables import (
    class_columns,
    class_rows,
    cost_rows,
    environment_rows,
    known_operations,
    split_columns,
    split_rows,
    tiles,
)
from vitrail.runs import RunDirectory

REPORT, CARD = "report.html", "README.md"
MOST_ROWS = 10  # of classes that are shown at once; all of more stand behind a click
EXPLAIN_SECONDS = 20.0  # about what explaining answers may take
_TIMED = 8  # images
_FORWARD_RATE = 1 / 3  # part of a training step


@dataclass(frozen=True)
class Report:
    """Where a report is, and the model card if one was written; `missing` says in sentences what it lacks, and why."""

    run: Path
    model: str
    path: Path
    card: Path | None
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The JSON object of `vitrail report`."""
        card = None if self.card is None else str(self.card)
        found = {"run": str(self.run), "model": self.model, "report": str(self.path), "card": card}
        return {**found, "bytes": self.path.stat().st_size, "missing": list(self.missing)}


def write_report(
    directory: RunDirectory,
    classifier: Classifier | None,
    images: Mapping[str, ImageSet],
    *,
    no_images: bool = False,
    output: Path | None = None,
    inspected: Mapping[str, ImageSet] | None = None,
    passes: float | None = None,
    notes: Sequence[str] = (),
) -> Report:
    """Write report.html and README.md, the model card, into a run; or the report alone to `output`.

    `images` are those of the splits that are there, at the model's size; without them, or without a `classifier`, what
    the run's own files say is told. `inspected` are those to inspect the model with, where that is not to be all. With
    `no_images` neither an image nor the name of one is in the report. Answers are explained in the time of so many
    forward `passes` of an image, by default in EXPLAIN_SECONDS. `notes` are sentences on what the caller lacks. Raises
    CheckpointError if the disk refuses.
    """
    facts = read_facts(directory)
    facts = facts.nameless() if no_images else facts
    answers, lost = _answers(directory, facts, classifier, images)
    inside = look_inside(directory, classifier, images if inspected is None else inspected, keep=output is None)
    examples = Examples()
    if answers is not None:
        shown = None if no_images else images.get(answers.split)
        examples = _examples(facts, answers.nameless() if no_images else answers, shown, classifier, passes)
    missing = [*notes, *facts.missing, *lost, *inside.missing]
    missing += ["Images were left out, as asked for"] if no_images else examples.missing
    missing = [facts.told(sentence) for sentence in dict.fromkeys(missing)]
    missing = [without_names(sentence) for sentence in missing] if no_images else missing
    content: dict[str, Any] = {"facts": facts, "missing": missing, "inside": inside, "shows_images": not no_images}
    content["figures"] = run_pictures(
        directory, facts, samples=not no_images, answers=not (no_images or examples.shown)
    )
    content |= {**_overview(facts, answers), **_results(facts, examples), **_ending(directory, facts)}
    path = output or directory.path / REPORT
    write_atomically(path, render("report.html", sections=_contents(content), **content))
    card = None
    if output is None and facts.card is not None and facts.result is not None:
        card = directory.path / CARD
        write_atomically(card, model_card(facts))
    return Report(directory.path, facts.model_name, path, card, tuple(missing))


def forward_seconds(result: Mapping[str, Any]) -> float:
    """About what a forward pass took of one image when the run was trained, 0 where that is not known."""
    seen = result.get("images_seen")
    return _FORWARD_RATE * result.get("train_seconds", 0.0) / seen if seen else 0.0


def pass_seconds(classifier: Classifier, pixels: np.ndarray) -> float:
    """About what a forward pass takes of one image here and now; `pixels` (N, H, W, C) are some images."""
    classifier.logits(pixels[:1])  # the first one takes longer
    started = time.perf_counter()
    classifier.logits(pixels)
    return max(time.perf_counter() - started, 1e-9) / max(1, len(pixels))


def _contents(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The places of the page's sections and their titles, of those that are there."""
    examples, figures, tested = content["examples"], content["figures"], bool(content["split_rows"])
    mistakes = "Commonest mistakes" if content["facts"].multilabel else "Confusions"
    sections = {
        ("notable", "What stands out"): bool(content["notable"]),
        ("data", "Data"): True,
        ("training", "Training"): "curves" in figures,
        ("results", "Results"): tested,
        ("confusions", mistakes): tested,
        ("calibration", "Calibration"): tested,
        ("answers", "Single answers"): bool(examples.groups) or bool({"mistakes", "predictions"} & {*figures}),
        ("inside", "Inside the model"): bool(content["inside"].figures or content["inside"].absent),
        ("cost", "Cost"): True,
        ("again", "How to make it again"): True,
    }
    return [named for named, there in sections.items() if there]


def _answers(
    directory: RunDirectory, facts: RunFacts, classifier: Classifier | None, images: Mapping[str, ImageSet]
) -> tuple[Answers | None, list[str]]:
    """The answers to the test images, else to those of validation, and what was missing."""
    split, lost = facts.split or "validation", list[str]()
    if split == "test":
        try:
            return read_answers(directory.predictions_path / "test.parquet", facts.classes), lost
        except CheckpointError as error:
            lost.append(f"{error}: single answers are not known")
    if classifier is None or split not in images or images[split].labels.ndim - 1 != int(facts.multilabel):
        return None, lost
    try:
        found = images[split]
        probabilities = classifier.calibrated(classifier.logits(found.pixels))
        return answers_of(split, found.names, found.labels, probabilities), []
    except BROKEN as error:
        return None, [*lost, f"The model's answers could not be had again: {first_line(error)}"]


def _examples(
    facts: RunFacts,
    answers: Answers,
    images: ImageSet | None,
    classifier: Classifier | None,
    passes: float | None,
) -> Examples:
    try:
        if passes is None and classifier is not None and images is not None:
            passes = EXPLAIN_SECONDS / pass_seconds(classifier, images.pixels[:_TIMED])
        most = math.inf if passes is None else passes
        return make_examples(answers, confused_pairs(facts), facts.classes, images, classifier, most)
    except BROKEN as error:
        return Examples(missing=(f"Answers are not shown: {first_line(error)}",))


def _overview(facts: RunFacts, answers: Answers | None) -> dict[str, Any]:
    """What stands before the results."""
    mistakes = None if answers is None or answers.split != facts.split else answers.sure[answers.wrong]
    return {
        "headline": [facts.told(sentence) for sentence in headline(facts)],
        "tiles": tiles(facts),
        "notable": notable(facts, mistakes),
        "data": data_sentences(facts),
        "counts": [(split, "-" if count is None else f"{count:,}") for split, count in facts.counts.items()],
    }


def _results(facts: RunFacts, examples: Examples) -> dict[str, Any]:
    """The results: by split, by class, confusions, calibration, single answers."""
    rows = class_rows(facts)
    return {
        "split_columns": split_columns(facts),
        "split_rows": split_rows(facts),
        "class_columns": class_columns(facts),
        "class_rows": rows,
        "num_rows": MOST_ROWS,
        "trained_on": any(row.trained_on is not None for row in rows),
        "examples": examples,
        "calibration": calibration_sentences(facts),
        "coverage": coverage_rows(facts.judged),
        "pairs_told": [pair_sentence(pair, facts.classes) for pair in confused_pairs(facts)],
    }


def _ending(directory: RunDirectory, facts: RunFacts) -> dict[str, Any]:
    """Cost, and how the run is made again."""
    weights = directory.path / "model.safetensors"
    fingerprint = facts.environment.get("data_fingerprint") or getattr(facts.splits, "fingerprint", None)
    return {
        "cost": cost_rows(facts, known_operations(facts), weights.stat().st_size if weights.is_file() else None),
        "environment": environment_rows(facts),
        "repeating": repeating_command(facts),
        "spelled": spelled_command(facts),
        "needs_data": needs_data(facts),
        "origin": [*_origin(facts, fingerprint)],
        "version": package_version("vitrail"),
        "settings": [*settings_table(facts.config, facts.places)],
        "resume": resuming_command(facts),
    }


def _origin(facts: RunFacts, fingerprint: str | None) -> Iterator[tuple[str, str]]:
    """What must be equal for equal weights, besides the settings."""
    yield "data", facts.dataset or "not known"
    if fingerprint:
        yield "fingerprint of the images and labels", fingerprint
    if "seed" in facts.config:
        yield "seed", str(facts.config["seed"])
