"""Which fit suits images of given shapes: by their ratios of width to height, and the model's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vitrail.data.preprocess import Fit

SAME = 1.02  # times the model's ratio, up to which stretching changes nothing that can be seen
MOST_CUT = 0.1  # part of an image that cropping may cost
MOST_IMAGES = 95  # per cent of the images that must lose no more than that


class Choice(NamedTuple):
    """A fit, and the sentence that says why; "" where images need no fitting at all."""

    fit: Fit
    reason: str


def choose_fit(shapes: np.ndarray, image_size: tuple[int, int]) -> Choice:
    """The fit for images of `shapes`, rows and columns (n, 2), and a model of `image_size`: a pure function of these.

    squash where all have nearly the model's ratio, and nothing is lost; crop where it cuts off little of nearly all of
    them; else pad, which keeps the whole of every image, and does nothing to those of the model's ratio.
    """
    rows, columns = image_size
    own, ratios = columns / rows, shapes[:, 1] / shapes[:, 0]
    wide, high = shapes[:, 1] * rows, shapes[:, 0] * columns
    kept = np.minimum(wide, high) / np.maximum(wide, high)  # part that cropping would leave
    if kept.min() == 1:  # then all fits are one, and images of another ratio that come later keep it
        return Choice("pad", "")
    if kept.min() >= 1 / SAME:
        return Choice("squash", _sentence(ratios, own, "squash", "which changes nothing to be seen"))
    cut = float(np.percentile(1 - kept, MOST_IMAGES))
    if cut <= MOST_CUT:
        return Choice(
            "crop", _sentence(ratios, own, "crop", f"which cuts off {cut:.0%} of an image at most, or nearly so")
        )
    return Choice("pad", _sentence(ratios, own, "pad", f"as cropping would cut off {cut:.0%} of some"))


_DONE: dict[Fit, str] = {"squash": "stretched", "crop": "cropped", "pad": "padded"}
_OTHERS: dict[Fit, str] = {
    "squash": "data.fit=pad keeps every ratio",
    "crop": "data.fit=pad keeps the whole of each",
    "pad": "data.fit=crop fills the model's view, data.fit=native lets a ViT leave the padding out",
}


def _sentence(ratios: np.ndarray, own: float, fit: Fit, why: str) -> str:
    low, high = np.percentile(ratios, [100 - MOST_IMAGES, MOST_IMAGES])
    seen = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    looked = f" (of {len(ratios):,} images looked at)" if len(ratios) > 1 else ""
    return (
        f"Images are {seen} times as wide as high{looked}, the model's {own:.2f}: they are {_DONE[fit]} "
        f"(data.fit={fit}), {why}; {_OTHERS[fit]}"
    )
