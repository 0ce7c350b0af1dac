"""What `vitrail evaluate` prints besides accuracy: results by class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitrail.cli.output import print_line, print_table

MOST_CLASSES = 25  # a wider confusion matrix does not fit a terminal; the figure and --json have it


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
