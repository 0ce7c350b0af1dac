"""What a model's first layer looks at."""

# Shapes: K pictures, H rows, W columns, C channels (1 grey, 3 red-green-blue)
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style
from vitrail.figures.mosaic import canvas, mosaic, text_dots

MAX_COMPONENTS = 28  # as in the paper
MAX_KERNELS = 64
_SIDE, _MIN_STEP = 112, 100  # dots of a picture; from one to the next, as the shares under them need
_MARGIN, _GAP, _LINE, _HEADING = 15, 12, 26, 32  # dots
_FRAME = 0.75  # brightness; filters are often white at their edges


def draw_filters(components: ArrayLike, explained: ArrayLike | None) -> Figure:
    """Principal components of the patch embedding's filters, the first 28, over the share of variance each explains.

    components (K, H, W, C) in 0..1, what explains most first, with C 1 or 3; explained (K,) fractions of the filters'
    variance. None stands for the kernels of a first convolution, of which up to 64 are drawn, without shares. As
    Dosovitskiy et al. 2021, figure 7 left. Raises DataError for arrays that do not fit, none, and values outside 0..1.
    """
    pictures = _checked(components, explained)
    shares = [] if explained is None else np.asarray(explained, dtype=np.float64)[:MAX_COMPONENTS].tolist()
    shown = len(shares) or min(len(pictures), MAX_KERNELS)
    columns, side = (7, _SIDE) if shares else (8, _SIDE - 15)  # about equally wide
    every = -(-max(pictures.shape[1:3]) // side)  # the pixels of patches beyond a hundred are too many
    tiles = pictures[:shown, ::every, ::every]
    tiles = tiles[:, :, :, 0] if tiles.shape[3] == 1 else tiles
    zoom = max(1, side // max(tiles.shape[1:3]))
    line = _LINE if shares else 0
    gap = (_GAP + line, max(_GAP, _MIN_STEP - zoom * tiles.shape[2]) if shares else _GAP)
    picture, centers, (height, _) = mosaic(tiles, min(shown, columns), (zoom, zoom), gap, fill=1.0, frame=_FRAME)

    title = _title(shown, shares)
    left = _MARGIN + (gap[1] - _GAP) // 2  # half of the text under a narrow component stands out
    margins = (left, left, line + _MARGIN, _MARGIN + _HEADING)
    figure, axes = canvas(picture.shape, margins, left + text_dots(title, style.HEADING_SIZE) + _MARGIN)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
    for (right, down), share in zip(centers, shares, strict=False):
        place = (right, down + height / 2 + 3)
        axes.text(*place, _percent(share), ha="center", va="top", **style.text_style(style.SMALL_SIZE))
    return figure


def _title(shown: int, shares: list[float]) -> str:
    if not shares:
        return f"Kernels of the first convolution: {shown} of them" if shown > 1 else "Kernel of the first convolution"
    which = f"The first {shown} principal components" if shown > 1 else "The first principal component"
    return f"{which} of the filters: {_percent(min(round(sum(shares), 6), 1.0))} of the variance"


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.0005 else style.percent(share, 1)


def _checked(components: ArrayLike, explained: ArrayLike | None) -> NDArray[Any]:
    pictures = np.asarray(components, dtype=np.float64)
    shares = np.zeros(pictures.shape[:1]) if explained is None else np.asarray(explained, dtype=np.float64)
    if pictures.ndim != 4 or not pictures.size or pictures.shape[3] not in (1, 3) or shares.shape != pictures.shape[:1]:
        raise DataError(
            f"Components of shape {pictures.shape} and explained variance {shares.shape} do not fit; "
            "give (components, rows, columns, 1 or 3) and one fraction for each component"
        )
    if not all(((values >= 0) & (values <= 1)).all() for values in (pictures, shares)):
        raise DataError("Some components or shares of variance are outside 0 to 1; scale components, give fractions")
    return pictures
