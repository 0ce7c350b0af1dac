"""The figures of a run, drawn from its files and results into figures/, and the run as a notebook shows it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.dataset import ImageSet
from vitrail.evaluation import softmax
from vitrail.figures import draw_confusion, draw_curves, draw_predictions, draw_samples, save_figure
from vitrail.runs import RunDirectory, read_json_lines

NUM_SHOWN = 40


@dataclass(frozen=True)
class Picture:
    """A PNG file that a notebook shows as the picture it is."""

    path: Path

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()


def draw_data_figures(directory: RunDirectory, images: ImageSet, classes: tuple[str, ...]) -> None:
    """samples.png: training images in turn from every class, as the model gets them before augmentation."""
    shown = _in_turn(images.labels, len(classes))[:NUM_SHOWN]
    titles = [classes[label] for label in images.labels[shown]]
    save_figure(draw_samples(images.pixels[shown], titles), directory.figures_path / "samples.png")


def _in_turn(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Indices that go round the classes: the first image of each, then the second of each, and so on."""
    places = np.empty(len(labels), np.int64)
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        places[members] = np.arange(len(members))
    return np.lexsort((labels, places))


def draw_training_figures(directory: RunDirectory) -> None:
    """curves.png: loss and accuracy by epoch, of what metrics.jsonl holds so far; nothing if it holds nothing."""
    lines = list(read_json_lines(directory.metrics_path))
    steps = [line for line in lines if "step" in line]
    evaluations = [line for line in lines if line.get("split") == "validation"]
    if not steps and not evaluations:
        return
    best = max(evaluations, key=lambda line: (line["accuracy"], -line["loss"]), default=None)
    figure = draw_curves(
        [line["epoch"] for line in steps],
        [line["loss"] for line in steps],
        [line.get("accuracy", float("nan")) for line in steps],
        [line["epoch"] for line in evaluations],
        [line["loss"] for line in evaluations],
        [line["accuracy"] for line in evaluations],
        None if best is None else best["epoch"],
    )
    save_figure(figure, directory.figures_path / "curves.png")


def draw_result_figures(
    directory: RunDirectory, images: ImageSet, logits: np.ndarray, classes: tuple[str, ...], metrics: Mapping[str, Any]
) -> None:
    """predictions.png and mistakes.png (test images under label / prediction) and confusion.png."""
    probabilities = softmax(logits)
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != images.labels)
    surest_mistakes = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    if len(wrong) > NUM_SHOWN:
        mistakes = f"Label / prediction: the {NUM_SHOWN} surest of {len(wrong):,} mistakes"
    else:
        mistakes = f"Label / prediction: all {len(wrong)} mistakes, the surest first"
    grids = {"predictions": (np.arange(len(images)), None), "mistakes": (surest_mistakes, mistakes)}
    for name, (indices, heading) in grids.items():
        shown = indices[:NUM_SHOWN]
        if not len(shown):
            continue
        figure = draw_predictions(
            images.pixels[shown],
            [classes[label] for label in images.labels[shown]],
            [classes[label] for label in predicted[shown]],
            probabilities[shown, predicted[shown]],
            heading,
        )
        save_figure(figure, directory.figures_path / f"{name}.png")
    save_figure(draw_confusion(metrics["confusion"], classes), directory.figures_path / "confusion.png")


def run_html(name: str, result: Mapping[str, Any] | None, figures: Mapping[str, Picture]) -> str:
    """A run for a notebook: its result in a table, its curves and predictions below, all in one piece of HTML."""
    if result is None:
        return f"<p><b>{html.escape(name)}</b> has not finished</p>"
    split = "test" if "test" in result else "validation"
    tested = result[split]
    low, high = tested["accuracy_ci95"]
    rows = {
        "run": name,
        "data": result["dataset"],
        "model": f"{result['model']}, {result['parameters']:,} parameters",
        f"{split} accuracy": f"{tested['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}), "
        f"{tested['images']:,} images",
        "training": f"{result['train_seconds']:.0f} s, best epoch {result['best_epoch']} of {result['epochs']}",
    }
    table = "".join(f"<tr><th>{key}</th><td>{html.escape(str(value))}</td></tr>" for key, value in rows.items())
    shown = [figures[key] for key in ("curves", "predictions") if key in figures]
    pictures = "".join(
        f'<img alt="{picture.path.stem}" style="max-width:100%" src="data:image/png;base64,'
        f'{base64.b64encode(picture.path.read_bytes()).decode()}">'
        for picture in shown
    )
    return f"<table>{table}</table>{pictures}"
