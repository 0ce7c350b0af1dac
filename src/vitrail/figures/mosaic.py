"""Many small maps as one picture on one axes: hundreds of axes would take seconds."""

# Shapes: N tiles, H rows and W columns of pixels in each

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitrail.figures import style
from vitrail.figures.png import DOTS_PER_INCH


class Mosaic(NamedTuple):
    """Tiles side by side, in dots."""

    picture: NDArray[Any]
    """(rows, columns), or (rows, columns, 3)."""
    centers: list[tuple[float, float]]
    """The middle of each tile, right and down."""
    size: tuple[int, int]
    """Rows and columns of one tile."""


def mosaic(
    tiles: NDArray[Any], num_columns: int, zoom: tuple[int, int], gap: tuple[int, int], fill: float, frame: float
) -> Mosaic:
    """Rows of `num_columns` tiles, framed by one dot, with `gap` of `fill` between them.

    tiles (N, H, W) or (N, H, W, 3); zoom is the dots a pixel takes downwards and to the right, gap those between tiles.
    """
    enlarged = tiles.repeat(zoom[0], axis=1).repeat(zoom[1], axis=2)
    height, width = enlarged.shape[1:3]
    down, right = height + 2 + gap[0], width + 2 + gap[1]
    num_rows = -(-len(tiles) // num_columns)
    picture = np.full((num_rows * down - gap[0], num_columns * right - gap[1], *tiles.shape[3:]), fill)
    centers: list[tuple[float, float]] = []
    for index, tile in enumerate(enlarged):
        top, left = index // num_columns * down, index % num_columns * right
        picture[top : top + height + 2, left : left + width + 2] = frame
        picture[top + 1 : top + 1 + height, left + 1 : left + 1 + width] = tile
        centers.append((left + (width + 1) / 2, top + (height + 1) / 2))
    return Mosaic(picture, centers, (height + 2, width + 2))


def canvas(shape: tuple[int, ...], margins: tuple[int, int, int, int], min_width: int) -> tuple[Figure, Axes]:
    """A figure with one axes for a picture of `shape` (rows, columns, ...), one dot for each of its elements.

    margins are left, right, bottom and top, in dots. One that would be narrower than `min_width` dots has more room on
    the right.
    """
    left, right, bottom, top = margins
    width, height = max(left + shape[1] + right, min_width), bottom + shape[0] + top
    figure = style.new_figure(width / DOTS_PER_INCH, height / DOTS_PER_INCH)
    axes = figure.add_axes((left / width, bottom / height, shape[1] / width, shape[0] / height))
    return figure, axes


def text_dots(text: str, size: float) -> int:
    """The length of one line of `text` in dots."""
    return round(DOTS_PER_INCH * style.text_inches(text, size))
