"""Axes over a model's layers, for what is drawn by layer."""

# Shapes: L layers, H heads
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitrail.figures import style

WIDTH, HEIGHT = 5.6, 4.1  # inches
PLOT_WIDTH = 4.7  # inches, about what the axes have of it
NAME_WIDTH = 1.1  # inches
_LINE = 0.16  # inches from name to name, at least


def depth_figure(height: float = HEIGHT) -> Figure:
    """An empty figure of the width that all figures by layer have."""
    figure = style.new_figure(WIDTH, height)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    return figure


def prepare(axes: Axes, num_layers: int, title: str, label: str) -> None:
    """Room for layers 0 to `num_layers` - 1, a heading, what the values are, and faint lines to read them at."""
    style.tidy(axes)
    axes.set_xlim(-0.6, num_layers - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
    axes.set_xlabel("layer", **style.text_style())
    axes.set_ylabel(label, **style.text_style())
    axes.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_heads(axes: Axes, values: NDArray[Any]) -> None:
    """A dot for each head above its layer, pale enough to see where several lie on one another; values (L, H)."""
    layers = np.repeat(np.arange(len(values)), values.shape[1])
    size = 5.5 if len(values) <= 24 else 4
    axes.plot(
        layers, values.ravel(), "o", color=style.TRAIN, alpha=0.6, markersize=size, markeredgewidth=0, label="a head"
    )


def write_names(axes: Axes, names: Sequence[str]) -> None:
    """The layers' names below them, upright where they are long; of many every second, third, ..."""
    every = spread(len(names), PLOT_WIDTH)
    texts = [style.readable(name, NAME_WIDTH) for name in names[::every]]
    axes.set_xticks(range(0, len(names), every), texts, **style.text_style(style.SMALL_SIZE))
    room = 0.9 * PLOT_WIDTH * every / len(names)
    if max(style.text_inches(text, style.SMALL_SIZE) for text in texts) > room:
        for label in axes.get_xticklabels():
            label.set_rotation(90)


def spread(num_layers: int, inches: float) -> int:
    """1 where all of so many names fit side by side along `inches`, 2 where every second does, ..."""
    return max(1, int(np.ceil(num_layers * _LINE / inches)))


def write_legend(figure: Figure, num_columns: int = 2) -> None:
    """Below the panels, where it covers nothing."""
    figure.legend(
        loc="outside lower center",
        ncols=num_columns,
        frameon=False,
        fontsize=style.SMALL_SIZE,
        labelcolor=style.INK,
    )
