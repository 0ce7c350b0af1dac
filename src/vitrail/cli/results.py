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
    measure = result["best_by"]
    shown = percent(result["validation"][measure] or 0.0)
    print_line(f"{best} by validation {measure.replace('_', ' ')}, {shown} %")
    print_line(f"{result['model']}, {result['parameters']:,} parameters, {result['total_seconds']:.0f} s in all")
    print_line(f"model, figures and predictions are in {path}")
    if (path / "report.html").is_file():
        print_line(f"all about it, to open in a browser: {path / 'report.html'}")


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
    """Means over classes, a row for each, and the confusion matrix where there is one and it fits."""

    def share(value: float | None, digits: int = 3) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    print_line(f"balanced accuracy {share(metrics['balanced_accuracy'], 4)}  loss {metrics['loss']:.4f}")
    print_line()
    keys = [key for key in ("average_precision", "precision", "recall", "f1") if key in metrics["per_class"][0]]
    print_table(
        ("class", "images", *(key.replace("_", " ") for key in keys)),
        [(row["class"], row["images"], *(share(row[key]) for key in keys)) for row in metrics["per_class"]],
    )
    if "confusion" not in metrics:  # images may have several labels
        return
    if len(metrics["per_class"]) <= MOST_CLASSES:
        names = [row["class"] for row in metrics["per_class"]]
        print_line("\nconfusion matrix, rows true, columns predicted")
        print_table(("", *names), [(name, *row) for name, row in zip(names, metrics["confusion"], strict=True)])
