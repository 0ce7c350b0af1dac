"""Images with what they are and what the model took them for."""
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

_FRAME_WIDTH = 2.5  # points


def draw_predictions(
    images: NDArray[Any],
    labels: Sequence[str],
    predictions: Sequence[str],
    probabilities: Sequence[float] | NDArray[Any],
    heading: str | None = None,
) -> Figure:
    """A grid of images under label / prediction and its probability, right ones green with ✓, wrong ones red with ✗.

    Wrong ones have a thick frame too. images (N, H, W, C) uint8, of more than 40 the first; labels and predictions N
    class names; probabilities N in 0..1, of the predicted class; without a heading it counts the right ones. Raises
    DataError for no images, lengths that do not fit, and probabilities outside 0..1.
    """
    counts = (len(labels), len(predictions), len(probabilities))
    if counts != (len(images),) * 3:
        raise DataError(
            f"{counts[0]} labels, {counts[1]} predictions and {counts[2]} probabilities do not fit "
            f"{len(images)} images; give one of each an image"
        )
    impossible = [value for value in probabilities if not 0 <= value <= 1]
    if impossible:
        raise DataError(f"Probability {impossible[0]} is not between 0 and 1; give the predicted class's probability")

    names = _names(labels[:MAX_IMAGES], predictions[:MAX_IMAGES])
    figure, axes_list = image_grid(images, title_lines=2 + max((text.count("\n") for text in names), default=0))
    num_right = 0
    for axes, name, label, prediction, probability in zip(
        axes_list, names, labels, predictions, probabilities, strict=False
    ):
        right = label == prediction
        num_right += right
        color = style.RIGHT if right else style.WRONG
        title = f"{name}\n{'✓' if right else '✗'} {style.percent(float(probability), 0)}"
        axes.set_title(title, pad=4, linespacing=1.1, **style.text_style(style.SMALL_SIZE, color))
        if not right:
            for spine in axes.spines.values():
                spine.set(color=color, linewidth=_FRAME_WIDTH)
    shown = f"the first {MAX_IMAGES} of {len(images):,} images" if len(images) > MAX_IMAGES else f"{len(images)} shown"
    write_heading(figure, heading or f"Label / prediction: {num_right} right of {shown}")
    return figure


def _names(labels: Sequence[str], predictions: Sequence[str]) -> list[str]:
    """label / prediction on one line where all of them fit, else on two."""
    whole = [
        f"{style.one_line(label)} / {style.one_line(prediction)}"
        for label, prediction in zip(labels, predictions, strict=True)
    ]
    if all(style.text_inches(text, style.SMALL_SIZE) <= TITLE_WIDTH for text in whole):
        return whole
    return [
        f"{style.readable(label, TITLE_WIDTH - 0.1)} /\n{style.readable(prediction, TITLE_WIDTH)}"
        for label, prediction in zip(labels, predictions, strict=True)
    ]
