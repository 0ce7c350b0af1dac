"""How well images with a label are found, label by label."""

# Shapes: K classes
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike

from vitrail.errors import DataError
from vitrail.figures import style

MOST_CLASSES = 40  # in one column of bars; of more the lowest
_NAME_WIDTH = 2.2  # inches
_ROW_HEIGHT = 0.24


def draw_average_precision(precisions: ArrayLike, shares: ArrayLike, classes: Sequence[str]) -> Figure:
    """A bar for each class, the lowest average precision at the top; a tick marks what chance would reach.

    precisions (K,) as fractions, NaN for a class without images, which has no bar; shares (K,) of the images that have
    the label, which is what a guess reaches; classes K names. Of more than 40 the 40 lowest are drawn. Raises DataError
    for arrays that do not fit, no class with images, and values outside 0..1.
    """
    values, chance = np.asarray(precisions, np.float64), np.asarray(shares, np.float64)
    if values.shape != (len(classes),) or chance.shape != values.shape:
        raise DataError(
            f"Average precisions {values.shape} and shares {chance.shape} do not fit {len(classes)} classes; "
            "give one of each a class"
        )
    known = np.flatnonzero(~np.isnan(values))
    both = np.concatenate([values[known], chance[known]])
    if not len(known) or not ((both >= 0) & (both <= 1)).all():
        raise DataError("Some average precisions or shares are outside 0 to 1, or there are none; give fractions")
    shown = known[np.argsort(values[known], kind="stable")][:MOST_CLASSES]
    figure = style.new_figure(6.4, 1.2 + _ROW_HEIGHT * len(shown))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    axes = figure.subplots()
    style.tidy(axes)
    rows = np.arange(len(shown))
    axes.barh(rows, values[shown], height=0.7, color=style.TRAIN, label="average precision")
    axes.plot(chance[shown], rows, "|", color=style.INK, markersize=9, markeredgewidth=1.6, label="by chance")
    for row, index in zip(rows, shown.tolist(), strict=True):
        text = style.percent(float(values[index]), 1)
        axes.annotate(
            text,
            (values[index], row),
            (4, 0),
            textcoords="offset points",
            va="center",
            **style.text_style(style.SMALL_SIZE),
        )
    axes.set_yticks(rows, [style.readable(classes[int(index)], _NAME_WIDTH) for index in shown])
    for label in axes.get_yticklabels():
        label.set(**style.text_style(style.SMALL_SIZE))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    of = f", the {len(shown)} lowest of {len(known):,}" if len(shown) < len(known) else ""
    title = f"Average precision: {style.percent(float(values[known].mean()), 1)} on average{of}"
    axes.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=style.SMALL_SIZE, labelcolor=style.INK)
    return figure
