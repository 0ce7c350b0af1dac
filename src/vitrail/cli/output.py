"""What commands print: JSON, percentages, tables."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def print_json(content: Mapping[str, Any]) -> None:
    """The one JSON object of a command on stdout, in ASCII, which every pipe can carry."""
    sys.stdout.write(json.dumps(content) + "\n")


def print_line(text: str = "") -> None:
    """One line of a command's result on stdout."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """One line on stderr, about how the work goes on."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def may_redraw() -> bool:
    """Whether stderr is a terminal whose lines may be drawn anew: not a pipe, not dumb, not with NO_COLOR."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def percent(fraction: float, digits: int = 1) -> str:
    """0.987 -> "98.7"; a fraction below 1 is never rounded up to 100."""
    text = f"{100 * fraction:.{digits}f}"
    return text if fraction >= 1 or float(text) < 100 else f"{100 - 10**-digits:.{digits}f}"


def accuracy_line(split: str, metrics: Mapping[str, Any]) -> str:
    """`test accuracy 98.1 % (95 % interval 96.0 to 99.1), 360 images`, and of how many groups, where they have any."""
    low, high = metrics["accuracy_ci95"]
    interval = f"(95 % interval {percent(low)} to {percent(high)})"
    groups = f" of {metrics['groups']:,} groups" if "groups" in metrics else ""
    return f"{split} accuracy {percent(metrics['accuracy'])} % {interval}, {metrics['images']:,} images{groups}"


def print_accuracy(split: str, metrics: Mapping[str, Any]) -> None:
    """A split's accuracy, and what a reject threshold makes of it if there is one."""
    print_line(accuracy_line(split, metrics))
    if metrics.get("mean_average_precision") is not None:
        low, high = metrics["mean_average_precision_ci95"]
        print_line(
            f"accuracy counts images with exactly their labels; mean average precision "
            f"{percent(metrics['mean_average_precision'])} % (95 % interval {percent(low)} to {percent(high)})"
        )
    answered = metrics.get("answered")
    if answered is None:
        return
    if not answered["images"]:
        print_line('no image is answered: every prediction says "not sure"')
        return
    low, high = answered["accuracy_ci95"]
    print_line(
        f"{percent(answered['coverage'])} % of them answered, {percent(answered['accuracy'])} % of these right "
        f'(95 % interval {percent(low)} to {percent(high)}); the others say "not sure"'
    )


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under their headings on stdout, columns aligned, numbers to the right; plain text wherever it goes."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    numeric = [all(isinstance(row[index], int | float) for row in rows) for index in range(len(headings))]
    for row in (headings, *cells):
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        print_line("  ".join(aligned).rstrip())
