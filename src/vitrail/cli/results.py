"""What commands print at their end: results of a training and of a test, answers for images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.cli.answers import print_predictions, print_sorted, print_suggestions
from vitrail.cli.output import percent, print_accuracy, print_line, print_table

if TYPE_CHECKING:
    from vitrail.labelling import Predictions

MOST_CLASSES = 25  # a wider confusion matrix does not fit a terminal; the figure and --json have it


def print_training(result: Mapping[str, Any], path: Path) -> None:
    """What a finished training came to, and where its files are."""
    best = f"best epoch {result['best_epoch']} of {result['epochs']}"
    print_accuracy("test", result["test"])
    print_line(f"{best} by validation accuracy, {percent(result['validation']['accuracy'])} %")
    print_line(f"{result['model']}, {result['parameters']:,} parameters, {result['total_seconds']:.0f} s in all")
    print_line(f"model, figures and predictions are in {path}")


def print_answers(predictions: Predictions, output: Path | None) -> None:
    """What was asked for: sorted folders, suggestions, predictions, or where these were written to."""
    if predictions.sorted is not None:
        print_sorted(predictions.sorted)
    if output is not None:
        readable = sum(prediction.error is None for prediction in predictions)
        chosen = predictions.suggestions
        print_line(
            f"{readable:,} predictions are in {output}"
            if chosen is None
            else f"{len(chosen):,} suggestions are in {output}"
        )
    elif predictions.suggestions is not None:
        print_suggestions(predictions.suggestions)
    elif predictions.sorted is None:
        print_predictions(predictions)


def print_classes(metrics: Mapping[str, Any]) -> None:
    """A row a class, and the confusion matrix where it fits."""

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    print_line()
    print_table(
        ("class", "images", "precision", "recall", "f1"),
        [
            (row["class"], row["images"], share(row["precision"]), share(row["recall"]), share(row["f1"]))
            for row in metrics["per_class"]
        ],
    )
    if len(metrics["per_class"]) <= MOST_CLASSES:
        names = [row["class"] for row in metrics["per_class"]]
        print_line("\nconfusion matrix, rows true, columns predicted")
        print_table(("", *names), [(name, *row) for name, row in zip(names, metrics["confusion"], strict=True)])
