"""How alike what a model's layers hold is."""

# Shapes: L layers
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style
from vitrail.figures.depth import NAME_WIDTH, spread

MAX_LAYERS_WITH_NUMBERS = 14
_MIN_SIDE, _MAX_SIDE, _CELL = 2.4, 5.0, 0.36  # inches; a number fits a cell
_RIGHT, _TOP, _BAR = 0.85, 0.4, 0.12  # inches


def draw_layer_similarity(cka: ArrayLike, names: Sequence[str]) -> Figure:
    """The similarity of any two layers as a map, the first layer at the lower left; up to 14 layers with its numbers.

    cka (L, L), 1 for the same up to rotation and scale, 0 for nothing in common; names L texts. Kornblith et al. 2019.
    Raises DataError for another shape, no layers, and values that are no numbers.
    """
    values = np.asarray(cka, dtype=np.float64)
    num_layers = len(names)
    if not num_layers or values.shape != (num_layers, num_layers) or not np.isfinite(values).all():
        raise DataError(
            f"Similarities of shape {values.shape} do not fit {num_layers} layers; "
            f"give ({num_layers}, {num_layers}) numbers"
        )
    side = min(max(_CELL * num_layers, _MIN_SIDE), _MAX_SIDE)
    every = spread(num_layers, side)
    texts = [style.readable(name, NAME_WIDTH) for name in names[::every]]
    figure, axes, bar = _lay_out(texts, side, side / num_layers * every)
    image = axes.imshow(
        values, cmap=style.SHARES, vmin=0, vmax=1, origin="lower", interpolation="nearest", aspect="auto"
    )
    style.tidy(axes)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("Similarity of layers (CKA)", loc="left", **style.text_style(style.HEADING_SIZE))
    text = style.text_style(style.SMALL_SIZE)
    axes.set_xticks(range(0, num_layers, every), texts, **text)
    axes.set_yticks(range(0, num_layers, every), texts, **text)
    for label in axes.get_xticklabels():
        label.set_rotation(0 if _upright(texts, side / num_layers * every) else 90)
    axes.set_xlabel("layer", **style.text_style())
    axes.set_ylabel("layer", **style.text_style())
    if num_layers <= MAX_LAYERS_WITH_NUMBERS:
        _write_numbers(axes, values, image)
    figure.colorbar(image, cax=bar)
    bar.spines[:].set_visible(False)
    bar.tick_params(labelsize=style.SMALL_SIZE, colors=style.INK, length=2)
    bar.set_ylabel("linear CKA", **style.text_style(style.SMALL_SIZE))
    return figure


def _lay_out(texts: Sequence[str], side: float, room: float) -> tuple[Figure, Axes, Axes]:
    """A figure just large enough, with axes for the map and for the scale of its colours."""
    longest = max(style.text_inches(text, style.SMALL_SIZE) for text in texts)
    left, bottom = 0.5 + longest, 0.55 if _upright(texts, room) else 0.5 + longest
    width, height = left + side + _RIGHT, bottom + side + _TOP
    figure = style.new_figure(width, height)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    bar = figure.add_axes(((left + side + _BAR) / width, bottom / height, _BAR / width, side / height))
    return figure, axes, bar


def _upright(texts: Sequence[str], room: float) -> bool:
    """Whether all names fit side by side under their columns."""
    return max(style.text_inches(text, style.SMALL_SIZE) for text in texts) < 0.95 * room


def _write_numbers(axes: Axes, values: NDArray[Any], image: ScalarMappable) -> None:
    """Of a layer with another; with itself it is 1."""
    for row, column in np.argwhere(~np.eye(len(values), dtype=bool)):
        cell = np.ravel(image.to_rgba(values[row, column])).tolist()
        text = style.text_style(style.SMALL_SIZE, style.text_on(cell))
        axes.text(column, row, f"{max(values[row, column], 0):.2f}", ha="center", va="center", **text)
