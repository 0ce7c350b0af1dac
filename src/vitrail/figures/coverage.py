"""What is gained by answering only where the model is sure."""

# Shapes: P points
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style

_STEPS = (1, 2, 5, 10, 20)  # per cent from tick to tick
_MOST_TICKS = 6


def draw_coverage(coverage: ArrayLike, accuracy: ArrayLike, chosen: tuple[float, float, float] | None = None) -> Figure:
    """Accuracy of the images answered against the share answered, from all images to the surest few.

    coverage and accuracy (P,) as fractions, as `evaluation.accuracy_coverage_curve` gives them. `chosen` marks a reject
    threshold: (threshold, coverage, accuracy); None where there is none, or where it answers nothing. Raises DataError
    for arrays that do not fit, no points, and shares outside 0..1.
    """
    shares, accuracies = _checked(coverage, accuracy)
    figure = style.new_figure(5.6, 4.1)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    axes = figure.subplots()
    style.tidy(axes)
    marker = "." if len(shares) == 1 else ""
    axes.plot(shares, accuracies, color=style.TRAIN, linewidth=1.6, marker=marker, label="images answered")
    if chosen is not None:
        threshold, share, value = chosen
        _checked([share], [value])
        axes.axvline(share, color=style.FAINT, linewidth=0.8, linestyle=":", zorder=0)
        label = f"above {threshold:.3g}: {style.percent(share, 1)} answered, {style.percent(value, 1)} of them right"
        axes.plot(share, value, "o", markersize=9, fillstyle="none", markeredgewidth=1.6, color=style.INK, label=label)
    axes.set_title("Accuracy by share of images answered", loc="left", **style.text_style(style.HEADING_SIZE))
    axes.set_xlabel("coverage: images answered, the surest first", **style.text_style())
    axes.set_ylabel("accuracy of the answers", **style.text_style())
    axes.set_xlim(0, 1.02)
    ticks = _ticks([*accuracies.tolist(), *([] if chosen is None else [chosen[2]])])
    margin = 0.04 * (ticks[-1] - ticks[0])
    axes.set_ylim(ticks[0] - margin, ticks[-1] + margin)
    axes.set_yticks(ticks)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=style.SMALL_SIZE, labelcolor=style.INK)
    return figure


def _ticks(accuracies: list[float]) -> list[float]:
    """Whole per cents around the accuracies, at least two apart and within 0..100, at most six."""
    low, high = 100 * min(accuracies), 100 * max(accuracies)
    step = next(step for step in _STEPS if math.ceil(high / step) - math.floor(low / step) < _MOST_TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    first = max(0, min(first, last - 2))
    last = max(last, first + 2)
    return [number * step / 100 for number in range(first, last + 1)]


def _checked(coverage: ArrayLike, accuracy: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shares, accuracies = np.asarray(coverage, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if shares.ndim != 1 or shares.shape != accuracies.shape or not shares.size:
        raise DataError(
            f"Coverage {shares.shape} and accuracy {accuracies.shape} do not fit; "
            "give two arrays of one length, at least one point"
        )
    both = np.concatenate([shares, accuracies])
    if not ((both >= 0) & (both <= 1)).all():
        raise DataError("Some coverages or accuracies are outside 0 to 1; give fractions")
    return shares, accuracies
