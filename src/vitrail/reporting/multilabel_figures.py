"""The figures of a run whose images may have several labels, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitrail import figures
from vitrail.data.dataset import ImageSet
from vitrail.data.preprocess import visible
from vitrail.predictions import GIVEN
from vitrail.runs import RunDirectory

NUM_SHOWN = 40
NO_LABEL = "no label"


def label_sets(labels: np.ndarray, classes: tuple[str, ...]) -> list[list[str]]:
    """The names of the labels of each image, of (N, K) 0 and 1."""
    return [[classes[index] for index in np.flatnonzero(row)] for row in labels]


def label_titles(labels: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """What is written over images: the names of their labels, of (N, K) 0 and 1."""
    return [", ".join(names) or NO_LABEL for names in label_sets(labels, classes)]


def rarest_labels(labels: np.ndarray) -> np.ndarray:
    """The rarest label of each image, int64 (N,), of (N, K) 0 and 1; K for an image without any."""
    ranked = np.argsort(labels.sum(axis=0), kind="stable")
    return np.where(labels.any(axis=1), ranked[labels[:, ranked].argmax(axis=1)], labels.shape[1])


def draw_grid(
    directory: RunDirectory,
    name: str,
    images: ImageSet,
    shown: np.ndarray,
    labels: list[str],
    predicted: list[str],
    probabilities: np.ndarray,
    heading: str | None,
) -> None:
    """The images `shown` under label / prediction, as `name`.png; nothing where there are none."""
    if len(shown):
        figure = figures.draw_predictions(visible(images.pixels[shown]), labels, predicted, probabilities, heading)
        figures.save_figure(figure, directory.figures_path / f"{name}.png")


def draw_multilabel_figures(
    directory: RunDirectory,
    images: ImageSet,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    metrics: Mapping[str, Any],
) -> None:
    """predictions.png and mistakes.png (test images under labels / prediction) and average_precision.png.

    An image is as probable as the least sure of its decisions.
    """
    given = probabilities > GIVEN
    wrong = np.flatnonzero((given != (images.labels > 0)).any(axis=1))
    sure = np.maximum(probabilities, 1 - probabilities).min(axis=1)
    missed = np.abs(images.labels - probabilities).max(axis=1)  # of a wrong decision, how sure it was
    worst = wrong[np.argsort(-missed[wrong], kind="stable")]
    evenly = np.unique(np.linspace(0, len(images) - 1, min(len(images), NUM_SHOWN)).round().astype(np.int64))
    count = f"the {NUM_SHOWN} surest of {len(wrong):,}" if len(wrong) > NUM_SHOWN else f"all {len(wrong)}"
    grids = {"predictions": (evenly, None), "mistakes": (worst, f"Labels / prediction: {count} mistakes")}
    for name, (indices, heading) in grids.items():
        shown = indices[:NUM_SHOWN]
        told = label_titles(images.labels[shown], classes), label_titles(given[shown], classes)
        draw_grid(directory, name, images, shown, *told, sure[shown], heading)
    precisions = [row["average_precision"] for row in metrics["per_class"]]
    if any(value is not None for value in precisions):
        shares = [row["images"] / metrics["images"] for row in metrics["per_class"]]
        figure = figures.draw_average_precision(
            [np.nan if value is None else value for value in precisions], shares, classes
        )
        figures.save_figure(figure, directory.figures_path / "average_precision.png")
