"""Images as they are, beside what a model sees of them."""
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vitrail.errors import DataError
from vitrail.figures import style
from vitrail.figures.grid import image_panel, write_heading

Box = tuple[float, float, float, float]  # left, top, right, bottom, as parts of the width and the height

_CELL, _GAP, _GROUP_GAP, _MARGIN = 1.25, 0.1, 0.35, 0.15  # inches
_TITLE, _HEADING, _ROW_GAP = 0.25, 0.45, 0.08
_PANELS = 8  # in a row


def draw_preview(
    originals: Sequence[NDArray[Any]],
    titles: Sequence[str],
    seen: Mapping[str, NDArray[Any]],
    boxes: Sequence[Box] | None = None,
    heading: str = "Images, and what the model sees",
) -> Figure:
    """Each of N images at its own ratio, and beside it what becomes of it, under the name of what was done.

    originals (rows, columns, 1 or 3) uint8, each of its own size, with N titles; `seen` (N, H, W, 1 or 3) uint8, one
    array for each way to prepare them; `boxes` mark the part of each original that is used. Raises DataError for none,
    and for numbers that differ.
    """
    counts = [len(titles), *map(len, seen.values()), len(titles if boxes is None else boxes)]
    if not originals or not seen or any(count != len(originals) for count in counts):
        raise DataError(f"{len(originals)} images to preview do not fit {counts}; give one or more of each")
    in_group = 1 + len(seen)
    groups = max(1, min(_PANELS // in_group, len(originals)))
    num_rows = math.ceil(len(originals) / groups)
    group_width = in_group * (_CELL + _GAP) - _GAP
    width = max(groups * (group_width + _GROUP_GAP) - _GROUP_GAP + 2 * _MARGIN, 4.5)
    row_height = _TITLE + _CELL + _ROW_GAP
    height = _HEADING + num_rows * row_height + _MARGIN
    figure = style.new_figure(width, height)
    for index, original in enumerate(originals):
        row, group = divmod(index, groups)
        panels = [(titles[index], original), *((name, images[index]) for name, images in seen.items())]
        for place, (title, image) in enumerate(panels):
            left = _MARGIN + group * (group_width + _GROUP_GAP) + place * (_CELL + _GAP)
            bottom = height - _HEADING - (row + 1) * row_height + _ROW_GAP
            axes = figure.add_axes((left / width, bottom / height, _CELL / width, _CELL / height))
            image_panel(axes, image)
            axes.set_title(style.readable(title, _CELL), pad=3, **style.text_style(style.SMALL_SIZE))
            if place == 0 and boxes is not None and boxes[index] != (0.0, 0.0, 1.0, 1.0):
                rows, columns = image.shape[:2]
                first, top, last, end = boxes[index]
                corner = first * columns - 0.5, top * rows - 0.5
                size = (last - first) * columns, (end - top) * rows
                axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=style.VALIDATION, linewidth=1.5))
    write_heading(figure, heading)
    return figure
