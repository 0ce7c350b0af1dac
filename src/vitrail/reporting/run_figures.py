"""The figures of a run, drawn from its files and results into figures/, and the run as a notebook shows it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail import figures
from vitrail.checkpoint import ModelCard
from vitrail.data.dataset import ImageSet
from vitrail.data.preprocess import visible
from vitrail.evaluation import accuracy_coverage_curve, reliability_bins, softmax
from vitrail.reporting.multilabel_figures import draw_grid, label_titles, rarest_labels
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
    if images.labels.ndim == 2:
        shown = _in_turn(rarest_labels(images.labels), len(classes) + 1)[:NUM_SHOWN]
        titles = label_titles(images.labels[shown], classes)
    else:
        shown = _in_turn(images.labels, len(classes))[:NUM_SHOWN]
        titles = [classes[label] for label in images.labels[shown]]
    figures.save_figure(
        figures.draw_samples(visible(images.pixels[shown]), titles), directory.figures_path / "samples.png"
    )


def draw_batch_figure(
    directory: RunDirectory, pixels: np.ndarray, targets: np.ndarray, classes: tuple[str, ...]
) -> None:
    """batch.png: the first training batch as the model gets it, changed and mixed.

    pixels uint8 (N, H, W, C), targets (N,) labels or (N, number of classes).
    """
    titles = [classes[target] if targets.ndim == 1 else _main_names(target, classes) for target in targets]
    figure = figures.draw_samples(visible(pixels), titles, "Training images as they are first seen")
    figures.save_figure(figure, directory.figures_path / "batch.png")


def _main_names(target: np.ndarray, classes: tuple[str, ...]) -> str:
    """The classes that an image is taken for: `cat, dog`, or of a mixture the one with the largest share: `62% cat`."""
    whole = [name for name, share in zip(classes, target, strict=True) if share > 0.995]
    if whole or not target.any():
        return ", ".join(whole)
    return f"{target.max():.0%} {classes[int(target.argmax())]}"


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
    best = max(evaluations, key=lambda line: (_score(line), -line["loss"]), default=None)
    figure = figures.draw_curves(
        [line["epoch"] for line in steps],
        [line["loss"] for line in steps],
        [line.get("accuracy", float("nan")) for line in steps],
        [line["epoch"] for line in evaluations],
        [line["loss"] for line in evaluations],
        [line["accuracy"] for line in evaluations],
        None if best is None else best["epoch"],
    )
    figures.save_figure(figure, directory.figures_path / "curves.png")


def _score(line: Mapping[str, Any]) -> float:
    """What the best epoch is chosen by: accuracy, where no other is in the line."""
    return line.get("mean_average_precision", line.get("balanced_accuracy", line["accuracy"]))


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
    grids = {"predictions": (_evenly(len(images)), None), "mistakes": (surest_mistakes, mistakes)}
    for name, (indices, heading) in grids.items():
        shown = indices[:NUM_SHOWN]
        told = [classes[label] for label in images.labels[shown]], [classes[label] for label in predicted[shown]]
        draw_grid(directory, name, images, shown, *told, probabilities[shown, predicted[shown]], heading)
    figures.save_figure(figures.draw_confusion(metrics["confusion"], classes), directory.figures_path / "confusion.png")


def _evenly(num_images: int) -> np.ndarray:
    """NUM_SHOWN places over all images, which may be sorted by class; all of fewer."""
    return np.unique(np.linspace(0, num_images - 1, min(num_images, NUM_SHOWN)).round().astype(np.int64))


def draw_calibration_figures(directory: RunDirectory, logits: np.ndarray, labels: np.ndarray, card: ModelCard) -> None:
    """reliability.png and coverage.png: how far the probabilities of the test images can be taken at their word."""
    raw, probabilities = softmax(logits), softmax(logits / card.temperature)
    calibrated = None if card.temperature == 1 else reliability_bins(probabilities, labels)
    figure = figures.draw_reliability(reliability_bins(raw, labels), calibrated, card.temperature)
    figures.save_figure(figure, directory.figures_path / "reliability.png")
    curve = accuracy_coverage_curve(probabilities, labels)
    chosen = None
    answered = probabilities.max(axis=1) > (1.0 if card.reject_threshold is None else card.reject_threshold)
    if card.reject_threshold is not None and answered.any():
        right = (probabilities.argmax(axis=1) == labels)[answered]
        chosen = (card.reject_threshold, float(answered.mean()), float(right.mean()))
    figures.save_figure(
        figures.draw_coverage(curve.coverage, curve.accuracy, chosen), directory.figures_path / "coverage.png"
    )


def run_html(name: str, result: Mapping[str, Any] | None, drawn: Mapping[str, Picture]) -> str:
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
    shown = [drawn[key] for key in ("curves", "predictions") if key in drawn]
    pictures = "".join(
        f'<img alt="{picture.path.stem}" style="max-width:100%" src="data:image/png;base64,'
        f'{base64.b64encode(picture.path.read_bytes()).decode()}">'
        for picture in shown
    )
    return f"<table>{table}</table>{pictures}"
