"""How a training went."""

# Shapes: S logged steps, E evaluations
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from vitrail.errors import DataError
from vitrail.figures import style

_SMOOTH_FROM = 20  # steps; fewer are drawn as they are


def draw_curves(
    train_epochs: ArrayLike,
    train_loss: ArrayLike,
    train_accuracy: ArrayLike,
    validation_epochs: ArrayLike,
    validation_loss: ArrayLike,
    validation_accuracy: ArrayLike,
    best_epoch: float | None,
) -> Figure:
    """Loss and accuracy by epoch in two panels: training, light with its smooth course over it, and validation.

    train_* (S,), one value a logged step at a fraction of epochs; validation_* (E,), one an evaluation; either may be
    empty. Losses in nats, accuracies as fractions in 0..1. train_accuracy is NaN where images are mixed and have no
    single label; there it is left out, and the figure says so. best_epoch is marked, unless None. Raises DataError if
    both are empty or lengths do not fit.
    """
    train = _columns("train", train_epochs, train_loss, train_accuracy)
    validation = _columns("validation", validation_epochs, validation_loss, validation_accuracy)
    if not train[0].size and not validation[0].size:
        raise DataError("There is nothing to draw yet; train for at least one logged step")

    figure = style.new_figure(9.5, 4.1)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _panel(loss_axes, (train[0], train[1]), (validation[0], validation[1]), best_epoch, "{:.3g}".format)
    _panel(
        accuracy_axes,
        (train[0], train[2]),
        (validation[0], validation[2]),
        best_epoch,
        partial(style.percent, decimals=2),
    )
    _label(loss_axes, "Loss by epoch", "loss (nats)")
    _label(accuracy_axes, "Accuracy by epoch", "accuracy")
    loss_axes.set_ylim(0, 1.03 * loss_axes.get_ylim()[1])
    low, high = accuracy_axes.get_ylim()
    accuracy_axes.set_ylim(max(0.0, low), min(1.02, high))
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    _legend(loss_axes, "")
    _legend(accuracy_axes, "training accuracy left out where images are mixed" if np.isnan(train[2]).any() else "")
    return figure


def _columns(name: str, *columns: ArrayLike) -> tuple[NDArray[Any], ...]:
    arrays = tuple(np.asarray(column, dtype=np.float64) for column in columns)
    if len({array.shape for array in arrays}) != 1 or arrays[0].ndim != 1:
        lengths = ", ".join(str(array.shape) for array in arrays)
        raise DataError(f"Epochs, loss and accuracy of {name} have shapes {lengths}; give three arrays of one length")
    return arrays


def _panel(
    axes: Axes,
    train: tuple[NDArray[Any], NDArray[Any]],
    validation: tuple[NDArray[Any], NDArray[Any]],
    best_epoch: float | None,
    write: Callable[[float], str],
) -> None:
    style.tidy(axes)
    epochs, values = train
    if np.isfinite(values).any():
        smoothed = values
        if len(values) >= _SMOOTH_FROM:
            axes.plot(epochs, values, color=style.TRAIN, alpha=0.35, linewidth=0.8)
            smoothed = _smooth(values)
        marker = "." if len(values) == 1 else ""
        axes.plot(epochs, smoothed, color=style.TRAIN, linewidth=1.6, marker=marker, label="training")
    epochs, values = validation
    if epochs.size:
        axes.plot(epochs, values, "o--", color=style.VALIDATION, linewidth=1.4, markersize=3.5, label="validation")
    if best_epoch is not None:
        axes.axvline(best_epoch, color=style.FAINT, linewidth=0.8, linestyle=":", zorder=0)
        for index in np.flatnonzero(np.isclose(epochs, best_epoch))[:1]:
            label = f"best epoch {best_epoch:g}: {write(float(values[index]))}"
            axes.plot(
                epochs[index],
                values[index],
                "o",
                markersize=9,
                fillstyle="none",
                markeredgewidth=1.6,
                color=style.INK,
                label=label,
            )


def _smooth(values: NDArray[Any]) -> NDArray[Any]:
    """The mean over a window of a twentieth of the steps around each; NaN stays NaN."""
    half = max(1, len(values) // 40)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    means = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return np.where(finite, means, np.nan)


def _label(axes: Axes, title: str, y_label: str) -> None:
    axes.set_title(title, loc="left", **style.text_style(style.HEADING_SIZE))
    axes.set_xlabel("epoch", **style.text_style())
    axes.set_ylabel(y_label, **style.text_style())
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(axes: Axes, note: str) -> None:
    """Below the panel, where it covers no line."""
    handles, _ = axes.get_legend_handles_labels()
    legend = axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=max(1, len(handles)),
        frameon=False,
        handlelength=2.6,
        fontsize=style.SMALL_SIZE,
        labelcolor=style.INK,
    )
    if note:
        legend.set_title(note)
        legend.get_title().set(**style.text_style(style.SMALL_SIZE))
