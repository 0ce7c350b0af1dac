"""How widely attention is spread."""

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


def draw_attention_entropy(entropy: ArrayLike, maximum: float) -> Figure:
    """Mean entropy of attention by layer, a dot a head: 0 looks at one token, the line above at all tokens alike.

    entropy (L, H) in nats; `maximum` is the logarithm of the number of tokens. Raises DataError for another shape, no
    heads, and values outside 0..maximum.
    """
    values = np.asarray(entropy, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise DataError(f"Attention entropies of shape {values.shape} do not fit; give one a layer and head")
    if not ((values >= -1e-4) & (values <= maximum + 1e-4)).all():
        raise DataError(f"Some attention entropies are outside 0 to {maximum:.4g} nats; give mean entropies")
    figure = depth_figure()
    axes = figure.subplots()
    prepare(axes, len(values), "Attention entropy by layer", "entropy (nats)")
    draw_heads(axes, values)
    label = f"attending to all tokens alike: {maximum:.3g} nats"
    axes.axhline(maximum, color=style.VALIDATION, linewidth=1.4, linestyle="--", label=label, zorder=1)
    axes.set_ylim(0, 1.06 * maximum or 1)
    write_legend(figure)
    return figure
