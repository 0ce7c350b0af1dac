"""Images side by side, each with a title; what samples and predictions are drawn on."""

# Shapes: N images, H rows, W columns, C channels (1 grey, 3 red-green-blue)
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitrail.errors import DataError
from vitrail.figures import style

MAX_ROWS, MAX_COLUMNS = 5, 8
MAX_IMAGES = MAX_ROWS * MAX_COLUMNS
TITLE_WIDTH = 1.3  # inches

_CELL, _GAP, _MARGIN = 1.25, 0.2, 0.15  # inches
_LINE, _HEADING, _ROW_GAP = 0.15, 0.45, 0.08
_MIN_WIDTH = 4.5  # the heading fits
_SMALL_IMAGE = 64  # pixels; below, interpolation would only blur


def image_grid(images: NDArray[Any], title_lines: int) -> tuple[Figure, list[Axes]]:
    """A figure, and one axes for each of the first 40 images, row by row, with room for titles of `title_lines`.

    images (N, H, W, C) uint8. Raises DataError for images of another shape or type, and for none.
    """
    _check(images)
    num_images = min(len(images), MAX_IMAGES)
    num_rows = math.ceil(num_images / MAX_COLUMNS)
    num_columns = math.ceil(num_images / num_rows)

    cell_height = _CELL * min(max(images.shape[1] / images.shape[2], 0.4), 2.0)
    title_height = _LINE * title_lines + 0.1
    content_width = num_columns * (_CELL + _GAP) - _GAP
    width = max(content_width + 2 * _MARGIN, _MIN_WIDTH)
    height = _HEADING + num_rows * (title_height + cell_height + _ROW_GAP) + _MARGIN

    figure = style.new_figure(width, height)
    axes_list: list[Axes] = []
    for index in range(num_images):
        row, column = divmod(index, num_columns)
        left = (width - content_width) / 2 + column * (_CELL + _GAP)
        bottom = height - _HEADING - (row + 1) * (title_height + cell_height) - row * _ROW_GAP
        axes = figure.add_axes((left / width, bottom / height, _CELL / width, cell_height / height))
        image_panel(axes, images[index])
        axes_list.append(axes)
    return figure, axes_list


def write_heading(figure: Figure, text: str) -> None:
    """Put `text` over all images of a grid."""
    height = figure.get_figheight()
    figure.suptitle(text, y=1 - 0.12 / height, verticalalignment="top", **style.text_style(style.HEADING_SIZE))


def image_panel(axes: Axes, image: NDArray[Any]) -> None:
    """Draw one image (H, W, C) uint8, at its own ratio, with a faint frame."""
    interpolation = "nearest" if max(image.shape[:2]) <= _SMALL_IMAGE else "antialiased"
    if image.shape[2] == 1:
        axes.imshow(image[:, :, 0], cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
    else:
        axes.imshow(image, interpolation=interpolation)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=style.FAINT, linewidth=0.5)


def _check(images: NDArray[Any]) -> None:
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype != np.uint8:
        raise DataError(
            f"Images of shape {images.shape} and type {images.dtype} cannot be drawn; "
            "give uint8 (images, rows, columns, 1 or 3)"
        )
    if images.size == 0:
        raise DataError("There are no images to draw; give at least one")
