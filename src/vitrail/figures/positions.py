"""Which places a model takes for near one another."""

# Shapes: R rows and C columns of patches
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style
from vitrail.figures.mosaic import canvas, mosaic, text_dots

MAX_PLACES = 8  # rows, and columns, of maps; of more every second, third, ... patch
_SIDE, _MAX_TILE, _MIN_TILE = 680, 150, 76  # dots of all maps, of one; a narrow one is stretched
_GAP, _LEFT, _BOTTOM, _TOP, _RIGHT = 5, 80, 75, 65, 140  # dots
_BETWEEN = 9.0  # no cosine, so that it has a colour of its own
_BAR_GAP, _BAR_WIDTH = 0.12, 0.12  # inches
_LINES = "#B4B4B4"  # around maps, whose edges may be white
_TITLE_PAD = 16  # points, above the scale's highest number
_TITLE = "Similarity of position embeddings"


def draw_positions(similarity: ArrayLike, step: int = 1) -> Figure:
    """For each patch a small map of how similar its position embedding is to those of all patches.

    similarity (R, C, R, C), cosines in -1..1, of every `step`-th row and column of a large grid. Of more than 8 rows or
    columns every second, third, ... has a map. Rows and columns count from 1, as in Dosovitskiy et al. 2021, figure 7
    centre. Raises DataError for another shape, and values outside -1..1.
    """
    values = _checked(similarity)
    rows, columns = _shown(values.shape[0]), _shown(values.shape[1])
    tiles = values[rows][:, columns].reshape(-1, *values.shape[2:])
    height, width = tiles.shape[1:]
    common = min(_SIDE // (len(rows) * height), _SIDE // (len(columns) * width), _MAX_TILE // max(height, width))
    zoom = (max(common, _MIN_TILE // height, 1), max(common, _MIN_TILE // width, 1))
    picture, centers, _ = mosaic(tiles, len(columns), zoom, (_GAP, _GAP), fill=_BETWEEN, frame=np.nan)

    figure, axes = canvas(
        picture.shape, (_LEFT, _RIGHT, _BOTTOM, _TOP), _LEFT + text_dots(_TITLE, style.HEADING_SIZE) + 15
    )
    low = float(values.min())
    # Alike places alone are told apart in more detail where none are opposite.
    colors, limits = (style.SIGNED, (-1, 1)) if low < 0 else (style.SHARES, (min(low, 0.99), 1))
    with_lines = colormaps[colors].with_extremes(bad=_LINES, over="white")
    image = axes.imshow(picture, cmap=with_lines, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    style.tidy(axes)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(_TITLE, loc="left", pad=_TITLE_PAD, **style.text_style(style.HEADING_SIZE))
    text = style.text_style(style.SMALL_SIZE)
    numbers = [str(1 + step * place) for place in (*columns, *rows)]
    axes.set_xticks([right for right, _ in centers[: len(columns)]], numbers[: len(columns)], **text)
    axes.set_yticks([down for _, down in centers[:: len(columns)]], numbers[len(columns) :], **text)
    axes.set_xlabel("input patch column", **style.text_style())
    axes.set_ylabel("input patch row", **style.text_style())
    _draw_scale(figure, axes, image)
    return figure


def _draw_scale(figure: Figure, axes: Axes, image: ScalarMappable) -> None:
    box, width = axes.get_position(), figure.get_figwidth()
    bar = figure.add_axes((box.x1 + _BAR_GAP / width, box.y0, _BAR_WIDTH / width, box.height))
    figure.colorbar(image, cax=bar, ticks=MaxNLocator(4))
    bar.spines[:].set_visible(False)
    bar.tick_params(labelsize=style.SMALL_SIZE, colors=style.INK, length=2)
    bar.set_ylabel("cosine similarity", **style.text_style(style.SMALL_SIZE))


def _shown(num_patches: int) -> list[int]:
    """Evenly spaced places, as far from one edge as from the other."""
    step = -(-num_patches // MAX_PLACES)
    return list(range((num_patches - 1) % step // 2, num_patches, step))


def _checked(similarity: ArrayLike) -> NDArray[Any]:
    values = np.asarray(similarity, dtype=np.float64)
    if values.ndim != 4 or not values.size or values.shape[:2] != values.shape[2:]:
        raise DataError(
            f"Similarities of shape {values.shape} are no map for each patch; give (rows, columns, rows, columns)"
        )
    if not (np.abs(values) <= 1 + 1e-6).all():
        raise DataError("Some similarities are outside -1 to 1; give cosines")
    return np.clip(values, -1, 1)
