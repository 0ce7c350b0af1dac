"""How far attention reaches."""

# Shapes: L layers, H heads
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from vitrail.errors import DataError
from vitrail.figures import style
from vitrail.figures.depth import depth_figure, draw_heads, prepare, write_legend


def draw_attention_distance(distances: ArrayLike, largest: float, uniform: float) -> Figure:
    """Mean attention distance by layer, a dot a head; a line marks what attending to all patches alike would have.

    distances (L, H) in pixels; `largest` is how far the two farthest patches are from one another, `uniform` the
    distance of uniform attention, both in pixels. As Dosovitskiy et al. 2021, figure 7 right. Raises DataError for
    another shape, no heads, and distances outside 0..largest.
    """
    values = np.asarray(distances, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise DataError(f"Attention distances of shape {values.shape} do not fit; give one a layer and head")
    if not all(((part >= 0) & (part <= largest * (1 + 1e-6))).all() for part in (values, np.asarray(uniform))):
        raise DataError(f"Some attention distances are outside 0 to {largest:g} pixels; give mean distances")
    figure = depth_figure()
    axes = figure.subplots()
    prepare(axes, len(values), "Mean attention distance by layer", "distance (pixels)")
    draw_heads(axes, values)
    label = f"attending to all alike: {uniform:.3g} pixels"
    axes.axhline(uniform, color=style.VALIDATION, linewidth=1.4, linestyle="--", label=label, zorder=1)
    top = 1.12 * max(float(values.max()), uniform)
    axes.set_ylim(0, min(top, 1.02 * largest) or 1)
    write_legend(figure)
    return figure
