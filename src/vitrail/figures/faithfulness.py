"""How faithful the methods of explanation are, side by side."""

# Shapes: M methods, S points of a curve
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style

# Told apart with every kind of colour vision, after Okabe and Ito 2008; the strokes tell them apart in grey.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STROKES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)))
_NAME_WIDTH = 1.5  # inches


def draw_faithfulness(
    names: Sequence[str],
    shares: ArrayLike,
    deletion: ArrayLike,
    insertion: ArrayLike,
    faithfulness: ArrayLike,
    road: ArrayLike,
) -> Figure:
    """The curves of deletion and insertion of each method, and below them two measures with their intervals.

    names (M,), the best first, of which "random" is drawn in grey; shares (S,) of the image that has changed; deletion
    and insertion (M, S), mean probabilities; faithfulness and road (M, 3): mean, low, high. Raises DataError for arrays
    that do not fit, no methods, and shares or probabilities outside 0..1.
    """
    across, curves, measures = _checked(names, shares, (deletion, insertion), (faithfulness, road))
    figure = style.new_figure(8.6, 5.0 + 0.22 * len(names))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    above, below = figure.subplots(2, 2, height_ratios=(2.9, 0.6 + 0.22 * len(names)))
    titles = (
        ("Deletion: the lower, the better", "cells painted over, the most evidence first"),
        ("Insertion: the higher, the better", "cells made sharp, the most evidence first"),
    )
    for axes, rows, (title, label) in zip(above, curves, titles, strict=True):
        _draw_curves(axes, names, across, rows)
        _name(axes, title, label)
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
        axes.set_ylim(0, 1.02)
    above[0].set_ylabel("mean probability of the class", **style.text_style())
    labels = (
        ("Insertion less deletion, areas", "the higher, the better; 95 % intervals"),
        ("ROAD, least less most relevant first", "the higher, the better; 95 % intervals"),
    )
    for axes, rows, (title, label) in zip(below, measures, labels, strict=True):
        _draw_intervals(axes, names, rows)
        _name(axes, title, label)
    shown = [style.readable(name, _NAME_WIDTH) for name in names]
    below[0].set_yticks(range(len(names)), shown, **style.text_style())
    below[1].set_yticks(range(len(names)), [""] * len(names))
    return figure


def _name(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
    axes.set_xlabel(label, **style.text_style())


def _draw_curves(axes: Axes, names: Sequence[str], shares: NDArray[np.float64], rows: NDArray[np.float64]) -> None:
    style.tidy(axes)
    for place, (name, row) in reversed(list(enumerate(zip(names, rows, strict=True)))):  # the best on top
        color, stroke = _look(names, place)
        axes.plot(shares, row, color=color, linestyle=stroke, linewidth=1.7, label=name)
    axes.set_xlim(0, 1)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_intervals(axes: Axes, names: Sequence[str], rows: NDArray[np.float64]) -> None:
    style.tidy(axes)
    for place, (mean, low, high) in enumerate(rows.tolist()):
        color, stroke = _look(names, place)
        axes.plot([low, high], [place, place], color=color, linestyle=stroke, linewidth=1.7)
        axes.plot(mean, place, "o", color=color, markersize=6)
    axes.axvline(0, color=style.FAINT, linewidth=0.8, zorder=0)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def _look(names: Sequence[str], place: int) -> tuple[str, str | tuple[int, tuple[float, ...]]]:
    """Colour and stroke of a method."""
    if names[place] == "random":
        return style.FAINT, "-"
    return _COLORS[place % len(_COLORS)], _STROKES[place % len(_STROKES)]


def _checked(
    names: Sequence[str],
    shares: ArrayLike,
    curves: tuple[ArrayLike, ArrayLike],
    measures: tuple[ArrayLike, ArrayLike],
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    across = np.asarray(shares, dtype=np.float64)
    rows = [np.asarray(curve, dtype=np.float64) for curve in curves]
    intervals = [np.asarray(measure, dtype=np.float64) for measure in measures]
    fits = all(row.shape == (len(names), len(across)) for row in rows)
    if not len(names) or not fits or any(measure.shape != (len(names), 3) for measure in intervals):
        raise DataError(
            f"Curves {rows[0].shape} and {rows[1].shape} and intervals {intervals[0].shape} and {intervals[1].shape} "
            f"do not fit {len(names)} methods and {len(across)} shares; give (methods, shares) and (methods, 3)"
        )
    if not all(((values >= 0) & (values <= 1)).all() for values in (across, *rows)):
        raise DataError("Some shares or probabilities are outside 0 to 1; give fractions")
    return across, rows, intervals
