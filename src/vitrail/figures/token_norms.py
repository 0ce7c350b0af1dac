"""How long tokens become, and which stand out."""

# Shapes: L layers, P prefix tokens
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style
from vitrail.figures.depth import HEIGHT, depth_figure, prepare, write_legend

_LOGARITHMIC_FROM = 20  # times the lowest norm; below, a plain scale says more


def draw_token_norms(
    norms: ArrayLike, outliers: ArrayLike, threshold: ArrayLike | None = None, prefix: ArrayLike | None = None
) -> Figure:
    """Norms of patch tokens by layer, and below them the share of outliers, where there are any.

    norms (L, 5), percentiles 1, 25, 50, 75 and 99; outliers (L,), the fraction of patch tokens above `threshold` (L,),
    None where none is drawn; prefix (L, P), mean norms of the tokens in front of the patches. Darcet et al. 2024,
    figure 3. Raises DataError for arrays that do not fit, norms below 0 and fractions outside 0..1.
    """
    values, shares = np.asarray(norms, dtype=np.float64), np.asarray(outliers, dtype=np.float64)
    limits = None if threshold is None else np.asarray(threshold, dtype=np.float64)
    others = None if prefix is None else np.asarray(prefix, dtype=np.float64)
    _check(values, shares, limits, others)
    some = bool(shares.any())
    figure = depth_figure(HEIGHT + 0.8 * some)
    panels = figure.subplots(1 + some, 1, sharex=True, squeeze=False, height_ratios=(3, 1)[: 1 + some])
    upper = panels[0, 0]
    prepare(upper, len(values), "Token norms by layer", "norm")
    _draw_norms(upper, values)
    layers = np.arange(len(values))
    if limits is not None:
        upper.plot(layers, limits, "--", color=style.WRONG, linewidth=1.2, label="outliers lie above")
    if others is not None and others.size:
        places = np.repeat(layers, others.shape[1])
        upper.plot(places, others.ravel(), "D", color=style.INK, markersize=3.5, label="class token, registers")
    _scale(upper, [values, *(part for part in (limits, others) if part is not None)])
    if some:
        upper.set_xlabel("")
        _draw_outliers(panels[1, 0], shares)
    write_legend(figure, 3)
    return figure


def _draw_norms(axes: Axes, values: NDArray[Any]) -> None:
    layers = np.arange(len(values))
    for low, high, alpha, label in ((0, 4, 0.18, "98 % of patches"), (1, 3, 0.4, "half of patches")):
        if len(values) == 1:  # an area of one layer has no width
            axes.vlines(layers, values[:, low], values[:, high], color=style.TRAIN, alpha=alpha, lw=12, label=label)
        else:
            axes.fill_between(
                layers, values[:, low], values[:, high], color=style.TRAIN, alpha=alpha, linewidth=0, label=label
            )
    axes.plot(layers, values[:, 2], "o-", color=style.TRAIN, linewidth=1.4, markersize=3, label="median patch")


def _scale(axes: Axes, parts: list[NDArray[Any]]) -> None:
    """From 0 on, or in powers of ten where some norms are many times as large as others."""
    every = np.concatenate([part.ravel() for part in parts])
    positive = every[every > 0]
    if positive.size and positive.max() > _LOGARITHMIC_FROM * positive.min() and positive.size == every.size:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, 1.08 * float(every.max()) or 1)


def _draw_outliers(axes: Axes, shares: NDArray[Any]) -> None:
    style.tidy(axes)
    layers = np.arange(len(shares))
    axes.bar(layers, shares, width=0.6, color=style.WRONG)
    axes.set_xlabel("layer", **style.text_style())
    axes.set_ylabel("outliers", **style.text_style())
    axes.set_ylim(0, max(1.1 * float(shares.max()), 0.01))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0 if shares.max() > 0.03 else 1, symbol=" %"))


def _check(
    values: NDArray[Any], shares: NDArray[Any], limits: NDArray[Any] | None, others: NDArray[Any] | None
) -> None:
    num_layers = len(shares) if shares.ndim else 0
    fits = num_layers > 0 and values.shape == (num_layers, 5)
    fits = fits and (limits is None or limits.shape == (num_layers,))
    if not fits or not (others is None or (others.ndim == 2 and len(others) == num_layers)):
        raise DataError(
            f"Norms of shape {values.shape} and outliers {shares.shape} do not fit; give five percentiles and one "
            "fraction for each layer, and thresholds and norms of prefix tokens of as many layers"
        )
    parts = [values, *(part for part in (limits, others) if part is not None)]
    if not all((np.isfinite(part) & (part >= 0)).all() for part in parts):
        raise DataError("Some norms are below 0 or no numbers; give lengths of tokens")
    if not ((shares >= 0) & (shares <= 1)).all():
        raise DataError("Some outliers are outside 0 to 1; give fractions of the tokens")
