"""A map of evidence laid over the image it explains.

Shapes: H rows and W columns of the image, C its channels (1 grey, 3 red-green-blue)
"""
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitrail.errors import DataError
from vitrail.figures import style
from vitrail.figures.grid import image_panel

Edges = tuple[float, float, float, float]  # left, top, right, bottom, as parts of the width and the height

_STEPS = 255  # of strength, each with its colour; odd, so that one is 0 where it is signed
_STRONGEST = 99.5  # percentile that has the full colour: one outstanding pixel does not hide all others
_LEAST_RANGE = 0.1  # between the weakest and the strongest, as a part of the weakest
_COVER, _CURVE = 0.8, 0.75  # of a pixel that the strongest colour covers, and the power of strength that others do
_DARKEST, _BRIGHTEST = 30, 235  # what black and white become: colours show on them
_SATURATION = 0.35  # of the image's own colours that is left, so that colour tells of evidence; of signed maps none
_FADE = 0.55  # of what the model does not see that turns grey
_STRIP = 256  # rows painted at a time: large photographs need no more memory than small ones
_FRAME = (0.15, 0.95)  # dark and bright, side by side: seen on any image

_PANEL, _GAP, _MARGIN, _BAR = 2.7, 0.15, 0.15, 0.75  # inches
_TITLE, _HEADING, _LINE = 0.25, 0.4, 0.2
_WIDE = 2.0  # columns to a row; wider panels lie below each other
_ACROSS, _LEAST_HEIGHT, _BAR_BELOW = 6.0, 0.1, 0.4  # inches, of these
_TICKS = 3.5  # an inch of the bar


def heat_range(heat: NDArray[Any], *, signed: bool) -> tuple[float, float]:
    """The values that have the weakest and the strongest colour; where a map is signed, 0 lies midway.

    The strongest is the 99.5th percentile of what is not NaN, but at least a tenth above the weakest.
    """
    seen = heat[~np.isnan(heat)]
    if not seen.size:
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    if signed:
        high = float(np.percentile(np.abs(seen), _STRONGEST)) or float(np.abs(seen).max()) or 1.0
        return -high, high
    low, high = float(seen.min()), float(np.percentile(seen, _STRONGEST))
    high = high if high > low else float(seen.max())
    # Small differences are no structure: where all is nearly even, nothing stands out.
    return low, max(high, low + _LEAST_RANGE * abs(low), low + 1e-12)


def paint_overlay(image: NDArray[Any], heat: NDArray[Any], *, signed: bool) -> NDArray[np.uint8]:
    """The image (H, W, C) uint8 under its evidence (H, W), as uint8 (H, W, 3) of the same size.

    Evidence goes from none through violet and orange to yellow, and where it is signed orange speaks for the target and
    blue against it; colour-blind readers tell them apart. The image below loses most of its own colour, and all of it
    where evidence is signed, as it may be orange or blue itself. Where `heat` is NaN the model did not look: there the
    image is faded, and a thin frame goes about what it did see. Raises DataError for arrays that do not fit.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8 or image.shape[:2] != heat.shape:
        raise DataError(
            f"An image {image.shape} of type {image.dtype} and evidence {heat.shape} do not fit; "
            "give uint8 (rows, columns, 1 or 3) and (rows, columns)"
        )
    low, high = heat_range(heat, signed=signed)
    colors, cover = _paints(signed)
    painted = np.empty((*heat.shape, 3), np.uint8)
    for start in range(0, len(heat), _STRIP):
        part, seen = slice(start, start + _STRIP), ~np.isnan(heat[start : start + _STRIP])
        base = _muted(image[part], 0.0 if signed else _SATURATION)
        level = np.clip((np.nan_to_num(heat[part], nan=low) - low) / (high - low), 0, 1)
        step = np.rint(level * (_STEPS - 1)).astype(np.uint8)
        mixed = base + cover[step] * (colors[step] - base)
        faded = base + _FADE * (128 - base)
        painted[part] = np.rint(np.where(seen[..., None], mixed, faded))
    _mark_seen(painted, heat)
    return painted


def draw_overlay(
    image: NDArray[Any],
    cells: NDArray[Any],
    heat: NDArray[Any],
    edges: Edges,
    *,
    signed: bool,
    title: str,
    subtitle: str = "",
    map_title: str | None = None,
) -> Figure:
    """Three panels under a title: the image, the map as it is, and the one laid over the other; wide ones stacked.

    image (H, W, C) uint8; `cells` the map (rows, columns), whose `edges` in the image are given as parts of its sides;
    heat (H, W) the map laid over the image, NaN where the model did not look. Raises DataError as `paint_overlay` does.
    """
    painted = paint_overlay(image, heat, signed=signed)
    rows, columns = heat.shape
    stacked = columns > _WIDE * rows
    heading = _HEADING + _LINE * bool(subtitle)
    if stacked:
        panel_width, panel_height = _ACROSS, max(_ACROSS * rows / columns, _LEAST_HEIGHT)
        width = panel_width + 2 * _MARGIN
        height = heading + 3 * (_TITLE + panel_height) + _BAR_BELOW + _MARGIN
    else:
        panel_width, panel_height = _PANEL * min(1.0, max(columns / rows, 0.3)), _PANEL * min(1.0, rows / columns)
        width = max(3 * panel_width + 2 * _GAP + _BAR + 2 * _MARGIN, 5.0)
        height = heading + _TITLE + panel_height + _MARGIN
    figure = style.new_figure(width, height)

    def panel(place: int, name: str) -> Axes:
        left, bottom = _MARGIN + place * (panel_width + _GAP) + (_BAR if place == 2 else 0), _MARGIN
        if stacked:
            left, bottom = _MARGIN, _MARGIN + (2 - place) * (_TITLE + panel_height) + (_BAR_BELOW if place < 2 else 0)
        axes = figure.add_axes((left / width, bottom / height, panel_width / width, panel_height / height))
        axes.set_title(name, pad=4, **style.text_style(style.SMALL_SIZE))
        return axes

    image_panel(panel(0, "image"), image)
    shown = panel(1, f"map, {cells.shape[0]}x{cells.shape[1]}" if map_title is None else map_title)
    _map_panel(shown, cells, heat, edges, signed=signed, below=stacked)
    image_panel(panel(2, "map over the image"), painted)
    for line, (text, size) in enumerate(((title, style.HEADING_SIZE), (subtitle, style.SMALL_SIZE))):
        top = 1 - (0.12 + line * 0.24) / height
        shortened = style.readable(text, width - 2 * _MARGIN, size)
        figure.text(_MARGIN / width, top, shortened, verticalalignment="top", **style.text_style(size))
    return figure


def _map_panel(axes: Axes, cells: NDArray[Any], heat: NDArray[Any], edges: Edges, *, signed: bool, below: bool) -> None:
    """The cells where they lie in the image, with a bar beside or `below` that tells their values."""
    rows, columns = heat.shape
    left, top, right, bottom = edges
    low, high = heat_range(heat, signed=signed)
    shown = axes.imshow(
        cells,
        cmap=_colormap(signed),
        vmin=low,
        vmax=high,
        interpolation="nearest",
        extent=(left * columns, right * columns, bottom * rows, top * rows),
    )
    axes.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[])
    axes.set_facecolor(style.FAINT)
    for spine in axes.spines.values():
        spine.set(color=style.FAINT, linewidth=0.5)
    assert axes.figure is not None
    box = axes.get_position()
    width, height = axes.figure.get_size_inches()  # pyright: ignore[reportAttributeAccessIssue]  # no figure within one
    if below:
        place = (box.x0, box.y0 - 0.15 / height, box.width, 0.1 / height)
    else:
        place = (box.x1 + 0.05 / width, box.y0, 0.1 / width, box.height)
    side = axes.figure.add_axes(place)
    ticks = MaxNLocator(8 if below else max(2, round(_TICKS * box.height * height)))
    orientation = "horizontal" if below else "vertical"
    bar = axes.figure.colorbar(shown, cax=side, format=_short, ticks=ticks, orientation=orientation)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]  # a spine, which matplotlib types as a property
    side.tick_params(colors=style.INK, labelsize=style.SMALL_SIZE, color=style.FAINT, length=2)


def _short(value: float, _place: int | None = None) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _colormap(signed: bool) -> Colormap:
    if signed:
        ends = to_rgb(style.TRAIN), (0.97, 0.97, 0.97), to_rgb(style.VALIDATION)
        return LinearSegmentedColormap.from_list("evidence", ends, _STEPS)
    # Without its darkest end, which would look like shadow.
    return ListedColormap(cast("Any", colormaps["plasma"])(np.linspace(0.08, 0.95, _STEPS)))


def _paints(signed: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Of each step of strength, its colour (steps, 3) in 0..255, and the part of a pixel that it covers (steps, 1)."""
    if signed:
        strength = np.linspace(-1, 1, _STEPS)
        colors = np.where(strength[:, None] < 0, to_rgb(style.TRAIN), to_rgb(style.VALIDATION))
    else:
        strength = np.linspace(0, 1, _STEPS)
        colors = _colormap(signed)(np.arange(_STEPS))[:, :3]
    return (255 * colors).astype(np.float32), (_COVER * np.abs(strength) ** _CURVE).astype(np.float32)[:, None]


def _muted(image: NDArray[Any], saturation: float) -> NDArray[np.float32]:
    """uint8 (rows, W, C) -> float32 (rows, W, 3) with so much of its own colour and a little less contrast."""
    values = _DARKEST + image.astype(np.float32) * np.float32((_BRIGHTEST - _DARKEST) / 255)
    if values.shape[2] == 1:
        return np.repeat(values, 3, axis=2)
    grey = (values @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]  # the luma of Rec. 601
    return (grey + saturation * (values - grey)).astype(np.float32, copy=False)


def _mark_seen(painted: NDArray[np.uint8], heat: NDArray[Any]) -> None:
    """Frame what the model saw, where that is not all of the image."""
    seen = ~np.isnan(heat)
    if seen.all() or not seen.any():
        return
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    width = max(1, round(min(heat.shape) / 300))
    for inset, brightness in zip((0, width), _FRAME, strict=True):
        top, bottom = rows[0] + inset, rows[-1] + 1 - inset
        left, right = columns[0] + inset, columns[-1] + 1 - inset
        for line in (
            (slice(top, top + width), slice(left, right)),
            (slice(bottom - width, bottom), slice(left, right)),
            (slice(top, bottom), slice(left, left + width)),
            (slice(top, bottom), slice(right - width, right)),
        ):
            painted[line] = np.rint(0.5 * painted[line] + 0.5 * 255 * brightness)
