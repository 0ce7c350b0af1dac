"""Sample images of a data set."""
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitrail.errors import DataError
from vitrail.figures import style
from vitrail.figures.grid import MAX_IMAGES, TITLE_WIDTH, image_grid, write_heading


def draw_samples(images: NDArray[Any], titles: Sequence[str], heading: str = "Sample images") -> Figure:
    """A grid of up to 5 rows of 8 images, each under its title; of more images the first 40.

    images (N, H, W, C) uint8, titles N texts, such as class names. Raises DataError for no images, and for another
    number of titles.
    """
    if len(titles) != len(images):
        raise DataError(f"{len(titles)} titles do not fit {len(images)} images; give one title an image")
    figure, axes_list = image_grid(images, title_lines=1)
    for axes, title in zip(axes_list, titles, strict=False):
        axes.set_title(style.readable(title, TITLE_WIDTH), pad=4, **style.text_style(style.SMALL_SIZE))
    count = f", the first {MAX_IMAGES} of {len(images):,}" if len(images) > MAX_IMAGES else ""
    write_heading(figure, heading + count)
    return figure
