"""A map of images by what a model makes of them."""

# Shapes: N images, K classes
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style

# Told apart with every kind of colour vision; after Okabe and Ito 2008, wine red and ink for yellow and black.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#222222")
MAX_LEGEND = 2 * len(COLORS)  # classes
MAX_UNNAMED = len(COLORS)  # classes; more are named on the map
MAX_NAMES = 60
_FEW_NAMES = 20  # larger
_MARKERS = "os^DvP*<"
_WIDTH, _PLOT, _PLOT_HEIGHT = 6.0, 5.45, 4.5  # inches
_LEFT, _TOP, _BOTTOM, _ROW = 0.4, 0.4, 0.4, 0.2
_LEGEND_NAME, _MAP_NAME = 0.95, 1.1  # inches
_MANY = 3000  # images; drawn smaller
_MANY_CROSSES = 60  # mistakes; drawn smaller and paler


def draw_embeddings(
    points: ArrayLike,
    labels: ArrayLike,
    predicted: ArrayLike | None,
    classes: Sequence[str],
    explained: ArrayLike,
    num_images: int | None = None,
) -> Figure:
    """Images on the plane of their embeddings' first two principal components, coloured by class, mistakes crossed.

    points (N, 2); labels and predicted (N,), places in `classes`, K names; explained (2,), fractions of the variance.
    Without `predicted` no mistakes are marked. The title says of how many these are a part, `num_images`. Up to 8
    classes have a colour and a marker each; more are named where they lie, in paler colours that return with other
    markers. Up to 16 are in a legend. Raises DataError for arrays that do not fit and for no images.
    """
    answered = labels if predicted is None else predicted
    places, truth, answers, shares = _checked(points, labels, answered, len(classes), explained)
    wrong = truth != answers
    entries = list(classes) if len(classes) <= MAX_LEGEND else []
    named = len(classes) > MAX_UNNAMED
    handles = _legend_handles(entries, crossed=bool(wrong.any()))
    bottom = _BOTTOM + _ROW * -(-len(handles) // 4)
    height = bottom + _PLOT_HEIGHT + _TOP
    figure = style.new_figure(_WIDTH, height)
    axes = figure.add_axes((_LEFT / _WIDTH, bottom / height, _PLOT / _WIDTH, _PLOT_HEIGHT / height))
    style.tidy(axes)
    inches = _set_limits(axes, places)
    _draw_images(axes, places, truth, wrong, muted=named)
    right = "" if predicted is None else f"{len(wrong) - int(wrong.sum()):,} right of "
    images = "image" if len(wrong) == 1 else "images"
    whole = f" of {num_images:,}" if num_images is not None and num_images > len(wrong) else ""
    title = f"Embeddings: {right}{len(wrong):,}{whole} {images}"
    axes.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
    axes.set_xlabel(_axis("first", shares[0]), **style.text_style())
    axes.set_ylabel(_axis("second", shares[1]), **style.text_style())
    if named:
        _name_classes(axes, places, truth, classes, inches)
    legend = figure.legend(
        handles=handles, loc="lower center", ncols=4, frameon=False, labelcolor=style.INK, handletextpad=0.2
    )
    for text in legend.get_texts():
        text.set(**style.text_style(style.SMALL_SIZE))
    return figure


def _markers(classes: NDArray[Any], *, many: bool) -> NDArray[Any]:
    """The places of classes' markers: one for each of few classes, else one for each time that colours return."""
    return (classes // len(COLORS) if many else classes) % len(_MARKERS)


def _axis(which: str, share: float) -> str:
    return f"{which} principal component, {style.percent(share, 1)} of the variance"


def _set_limits(axes: Axes, places: NDArray[Any]) -> float:
    """Limits that hold all points, with one scale on both axes; inches for a unit."""
    low, high = places.min(axis=0), places.max(axis=0)
    middle, span = (low + high) / 2, high - low
    span = np.where(span > 0, span, span.max() or 1)  # a single image, or several in one place
    inches = float(0.92 * min(_PLOT / span[0], _PLOT_HEIGHT / span[1]))
    for set_limit, center, room in zip((axes.set_xlim, axes.set_ylim), middle, (_PLOT, _PLOT_HEIGHT), strict=True):
        set_limit(center - room / inches / 2, center + room / inches / 2)
    axes.set_xticks([])  # the unit says nothing, only distances do
    axes.set_yticks([])
    return inches


def _draw_images(axes: Axes, places: NDArray[Any], truth: NDArray[Any], wrong: NDArray[Any], *, muted: bool) -> None:
    """Right ones under wrong ones, both in their true class's colour."""
    colors = np.array([to_rgb(color) for color in COLORS])[truth % len(COLORS)]
    markers = _markers(truth, many=muted)
    size, cross = (18, 36) if len(places) <= _MANY else (8, 24)
    for index in np.unique(markers[~wrong]).tolist():
        members = ~wrong & (markers == index)
        axes.scatter(
            *places[members].T,
            s=size,
            c=colors[members],
            marker=_MARKERS[index],
            alpha=0.45 if muted else 0.75,
            linewidths=0,
        )
    if wrong.any():
        crowded = int(wrong.sum()) > _MANY_CROSSES
        axes.scatter(
            *places[wrong].T,
            s=cross / 2 if crowded else cross,
            c=colors[wrong],
            marker="X",
            edgecolors=style.INK,
            linewidths=0.3 if crowded else 0.8,
            alpha=0.5 if crowded else None,
            zorder=3,
        )


def _name_classes(axes: Axes, places: NDArray[Any], truth: NDArray[Any], classes: Sequence[str], inches: float) -> None:
    """The names of the classes with most images, each near its middle, where it covers no other name."""
    size = style.HEADING_SIZE if len(classes) <= _FEW_NAMES else style.SMALL_SIZE
    line = 1.4 * size / 72
    counts = np.bincount(truth, minlength=len(classes))
    taken: list[tuple[float, float, float]] = []  # left, right and middle in inches
    outline = [withStroke(linewidth=2.8, foreground="white")]
    for index in np.argsort(-counts, kind="stable")[:MAX_NAMES].tolist():
        if not counts[index]:
            break
        name = style.readable(classes[int(index)], _MAP_NAME, size)
        half = style.text_inches(name, size) / 2 + 0.03
        x, y = (np.median(places[truth == index], axis=0) * inches).tolist()
        for shift in (0, 1, -1, 2, -2):
            spot = (x - half, x + half, y + shift * line)
            if not any(
                spot[0] < right and left < spot[1] and abs(spot[2] - middle) < line for left, right, middle in taken
            ):
                taken.append(spot)
                text = axes.text(x / inches, spot[2] / inches, name, ha="center", va="center", zorder=4)
                text.set(path_effects=outline, **style.text_style(size))
                break


def _legend_handles(entries: Sequence[str], *, crossed: bool) -> list[Line2D]:
    markers = _markers(np.arange(len(entries)), many=len(entries) > MAX_UNNAMED).tolist()
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=_MARKERS[marker],
            color=COLORS[index % len(COLORS)],
            markersize=5,
            label=style.readable(name, _LEGEND_NAME),
        )
        for index, (name, marker) in enumerate(zip(entries, markers, strict=True))
    ]
    if crossed:
        cross = Line2D([], [], linestyle="", marker="X", markersize=7, color="white", markeredgecolor=style.INK)
        cross.set_label("mistake")
        handles.append(cross)
    return handles


def _checked(
    points: ArrayLike, labels: ArrayLike, predicted: ArrayLike, num_classes: int, explained: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[float]]:
    places, truth, answers = np.asarray(points, dtype=np.float64), np.asarray(labels), np.asarray(predicted)
    shares = np.asarray(explained, dtype=np.float64)
    if places.shape != (len(truth), 2) or answers.shape != truth.shape or shares.shape != (2,) or not len(truth):
        raise DataError(
            f"Points {places.shape}, labels {truth.shape}, predictions {answers.shape} and explained variance "
            f"{shares.shape} do not fit; give (images, 2), one label and prediction an image, and two fractions"
        )
    if not np.isfinite(places).all():
        raise DataError("Some points are no numbers; give the coordinates of images")
    both = np.concatenate([truth, answers])
    if both.min() < 0 or both.max() >= num_classes:
        raise DataError(f"Some labels or predictions are outside 0 to {num_classes - 1}; give places in the classes")
    if not ((shares >= 0) & (shares <= 1)).all():
        raise DataError("Some shares of variance are outside 0 to 1; give fractions")
    return places, truth, answers, shares.tolist()
