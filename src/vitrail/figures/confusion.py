"""Which classes are taken for which."""

# Shapes: K classes
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style

MAX_CLASSES_WITH_COUNTS = 30
MAX_NAMES = 100  # beyond, every second, third, ... class is named
_NAME_WIDTH = 1.8  # inches
_MIN_SIDE, _MAX_SIDE = 2.2, 14.0  # inches
_SLANTED_FROM = 0.3  # inches from name to name; nearer, slanted names would run into one another


def draw_confusion(confusion: ArrayLike, classes: Sequence[str]) -> Figure:
    """The confusion matrix, rows true and columns predicted: counts in the cells, colour by share of the row's images.

    confusion (K, K) counts, classes K names. Cells of 0 stay empty; above 30 classes colour alone is drawn, above 100
    not every class is named. Raises DataError for another shape, counts below 0, and no images.
    """
    counts = np.asarray(confusion)
    _check(counts, len(classes))
    every = -(-len(classes) // MAX_NAMES)
    names = [style.readable(name, _NAME_WIDTH) for name in classes[::every]]
    title = f"Confusion matrix: {int(np.trace(counts)):,} right of {int(counts.sum()):,} images"
    cell = _cell_side(counts)
    figure, axes, bar_axes = _lay_out(title, names, cell * every, cell * len(classes))

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The root keeps rare confusions visible beside a diagonal near 1.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap=style.SHARES, norm=norm, interpolation="nearest", aspect="auto")
    style.tidy(axes)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
    axes.set_xlabel("predicted class", **style.text_style())
    axes.set_ylabel("true class", **style.text_style())
    _write_names(axes, names, range(0, len(classes), every), cell * every)
    if len(classes) <= MAX_CLASSES_WITH_COUNTS:
        _write_counts(axes, counts, shares, image)
    _draw_scale(figure, bar_axes, image)
    return figure


def _cell_side(counts: NDArray[Any]) -> float:
    """Inches that the largest count fits in."""
    num_classes = len(counts)
    if num_classes > MAX_CLASSES_WITH_COUNTS:
        return min(0.16, _MAX_SIDE / num_classes)
    widest = style.text_inches(f"{int(counts.max()):,}", style.SMALL_SIZE) + 0.1
    return max(0.4 if num_classes <= 12 else 0.32, widest, _MIN_SIDE / num_classes)


def _lay_out(title: str, names: Sequence[str], room: float, side: float) -> tuple[Figure, Axes, Axes]:
    """A figure just large enough, with axes for the matrix and for the scale of its colours; `room` is for one name."""
    longest = max(style.text_inches(name, style.SMALL_SIZE) for name in names)
    left, bottom, top = 0.5 + longest, 0.5 + longest, 0.4
    if _upright(names, room):
        bottom = 0.55
    elif room >= _SLANTED_FROM:
        bottom = 0.55 + 0.75 * longest
    width = left + max(side + 0.95, style.text_inches(title, style.HEADING_SIZE))
    height = bottom + side + top
    figure = style.new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    bar_axes = figure.add_axes(((left + side + 0.12) / width, bottom / height, 0.12 / width, side / height))
    return figure, axes, bar_axes


def _upright(names: Sequence[str], room: float) -> bool:
    """Whether all names fit side by side under their columns."""
    return max(style.text_inches(name, style.SMALL_SIZE) for name in names) < 0.95 * room


def _write_names(axes: Axes, names: Sequence[str], places: Sequence[int], room: float) -> None:
    text = style.text_style(style.SMALL_SIZE)
    axes.set_xticks(places, names, **text)
    axes.set_yticks(places, names, **text)
    axes.tick_params(length=0)
    if not _upright(names, room):
        slanted = {"rotation": 45, "rotation_mode": "anchor", "ha": "right"}
        for label in axes.get_xticklabels():
            label.set(**(slanted if room >= _SLANTED_FROM else {"rotation": 90}))


def _write_counts(axes: Axes, counts: NDArray[Any], shares: NDArray[Any], image: ScalarMappable) -> None:
    for row, column in np.argwhere(counts):
        cell = np.ravel(image.to_rgba(shares[row, column])).tolist()
        text = style.text_style(style.SMALL_SIZE, style.text_on(cell))
        axes.text(column, row, f"{int(counts[row, column]):,}", ha="center", va="center", **text)


def _draw_scale(figure: Figure, axes: Axes, image: ScalarMappable) -> None:
    figure.colorbar(
        image, cax=axes, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1], format=PercentFormatter(xmax=1, decimals=0, symbol=" %")
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=style.SMALL_SIZE, colors=style.INK, length=2)
    axes.set_ylabel("share of the true class's images", **style.text_style(style.SMALL_SIZE))


def _check(counts: NDArray[Any], num_classes: int) -> None:
    if num_classes == 0 or counts.shape != (num_classes, num_classes):
        raise DataError(
            f"A confusion matrix of shape {counts.shape} does not fit {num_classes} classes; "
            f"give ({num_classes}, {num_classes}) counts"
        )
    if counts.min() < 0 or counts.sum() == 0:
        raise DataError("A confusion matrix needs counts of at least one image, none below 0; evaluate on images first")
