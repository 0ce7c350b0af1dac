"""What each layer already knows of the classes."""

# Shapes: L layers
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
from vitrail.figures.depth import depth_figure, prepare, write_legend, write_names


def draw_layer_probes(
    accuracies: ArrayLike,
    intervals: ArrayLike,
    names: Sequence[str],
    head: tuple[float, float, float] | None = None,
    sample: tuple[int, int] | None = None,
) -> Figure:
    """The accuracy of a probe on each layer's features, with intervals; the model's own head as a line with a band.

    accuracies (L,) and intervals (L, 2), low and high, as fractions; names L texts; head (accuracy, low, high) or None;
    sample is the number of images that this is of, and of all. Raises DataError for arrays that do not fit, no layers,
    and values outside 0..1.
    """
    values, bounds = np.asarray(accuracies, dtype=np.float64), np.asarray(intervals, dtype=np.float64)
    num_layers = len(names)
    if not num_layers or values.shape != (num_layers,) or bounds.shape != (num_layers, 2):
        raise DataError(
            f"Accuracies {values.shape} and intervals {bounds.shape} do not fit {num_layers} layers; "
            "give one accuracy, and low and high, for each layer"
        )
    every = np.concatenate([values, bounds.ravel(), head or ()])
    if not ((every >= 0) & (every <= 1)).all():
        raise DataError("Some accuracies or intervals are outside 0 to 1; give fractions")
    figure = depth_figure()
    axes = figure.subplots()
    part = "" if sample is None or sample[0] == sample[1] else f": {sample[0]:,} of {sample[1]:,} images"
    prepare(axes, num_layers, f"Accuracy of a linear probe by layer{part}", "accuracy")
    layers = np.arange(num_layers)
    axes.plot(layers, values, "o-", color=style.TRAIN, linewidth=1.0, markersize=4.5, label="probe")
    axes.vlines(layers, bounds[:, 0], bounds[:, 1], color=style.TRAIN, linewidth=1.4, label="95 % interval")
    if head is not None:
        label = f"the model's own head: {style.percent(head[0], 1)}"
        axes.axhspan(head[1], head[2], color=style.VALIDATION, alpha=0.15, linewidth=0, zorder=0)
        axes.axhline(head[0], color=style.VALIDATION, linewidth=1.4, linestyle="--", label=label, zorder=1)
    write_names(axes, names)
    axes.set_ylim(max(0.0, axes.get_ylim()[0]), min(1.02, axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    write_legend(figure, 3)
    return figure
