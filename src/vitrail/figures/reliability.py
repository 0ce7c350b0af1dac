"""How far probabilities can be taken at their word."""

# Shapes: B bins
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style

Bins = tuple[ArrayLike, ArrayLike, ArrayLike]
_PANEL, _HEIGHT = 4.3, 5.2  # inches
_FEW = 10  # images; the accuracy of fewer is drawn pale, as it is mostly chance
_FEW_LABEL = f"of fewer than {_FEW} images"


def draw_reliability(bins: Bins, calibrated: Bins | None = None, temperature: float = 1.0) -> Figure:
    """The reliability diagram: accuracy against confidence, and below it how many images have that confidence.

    bins (confidence, accuracy, images), each (B,), of images by their confidence in B equally wide bins from 0 to 1,
    with their means and counts, as `evaluation.reliability_bins` gives them; empty bins are left out. With
    `calibrated`, the same after the temperature, two panels stand side by side. Bins of fewer than 10 images are pale.
    Raises DataError for arrays that do not fit, shares outside 0..1, and no images.
    """
    panels = [("Reliability", _checked(bins))]
    if calibrated is not None:
        panels = [
            ("Before calibration", panels[0][1]),
            (f"After calibration, temperature {temperature:.2f}", _checked(calibrated)),
        ]
    figure = style.new_figure(_PANEL * len(panels) + 0.3, _HEIGHT)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, (title, (confidence, accuracy, images)) in enumerate(panels):
        upper, lower = grid[0, column], grid[1, column]
        _draw_accuracy(upper, confidence, accuracy, images)
        upper.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
        _draw_images(lower, images)
    grid[0, 0].set_ylabel("accuracy", **style.text_style())
    grid[1, 0].set_ylabel("images", **style.text_style())
    # The panel with the most kinds of bins has them all.
    handles = max((axes.get_legend_handles_labels()[0] for axes in grid[0]), key=len)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles) if calibrated is not None else 2,
        frameon=False,
        fontsize=style.SMALL_SIZE,
        labelcolor=style.INK,
    )
    return figure


def _draw_accuracy(
    axes: Axes, confidence: NDArray[np.float64], accuracy: NDArray[np.float64], images: NDArray[np.float64]
) -> None:
    style.tidy(axes)
    axes.plot([0, 1], [0, 1], color=style.FAINT, linewidth=1, linestyle="--", label="as sure as right", zorder=1)
    few = (images > 0) & (images < _FEW)
    for members, alpha, labels in ((images >= _FEW, 1.0, ("gap", "accuracy")), (few, 0.35, ("", _FEW_LABEL))):
        if not members.any() and members is few:
            continue
        sure, right = confidence[members], accuracy[members]
        # From the diagonal to the accuracy, at the bin's mean confidence: the length is the gap that counts.
        axes.vlines(sure, sure, right, color=style.WRONG, alpha=alpha, linewidth=5, label=labels[0])
        axes.scatter(sure, right, s=26, color=style.TRAIN, alpha=alpha, label=labels[1], zorder=3, clip_on=False)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_images(axes: Axes, images: NDArray[np.float64]) -> None:
    style.tidy(axes)
    edges = np.linspace(0, 1, len(images) + 1)
    axes.bar(
        edges[:-1], images, width=np.diff(edges), align="edge", color=style.TRAIN, edgecolor="white", linewidth=0.6
    )
    axes.set_xlabel("confidence: probability of the predicted class", **style.text_style())
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _checked(bins: Bins) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    confidence, accuracy, images = (np.asarray(column, dtype=np.float64) for column in bins)
    if images.ndim != 1 or not confidence.shape == accuracy.shape == images.shape:
        raise DataError(
            f"Confidence {confidence.shape}, accuracy {accuracy.shape} and images {images.shape} of bins do not fit; "
            "give three arrays of one length"
        )
    if not images.size or images.min() < 0 or images.sum() == 0:
        raise DataError("A reliability diagram needs bins with at least one image, none below 0; evaluate images first")
    shares = np.concatenate([confidence[images > 0], accuracy[images > 0]])
    if not ((shares >= 0) & (shares <= 1)).all():
        raise DataError("Some bins have a confidence or accuracy outside 0 to 1; give fractions")
    return confidence, accuracy, images
