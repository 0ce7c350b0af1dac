"""Images that may be of no use: nearly empty, very dark or bright, blurred, by their pixels at a model's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from vitrail.data.findings import Finding, Kind
from vitrail.data.preprocess import Preprocess
from vitrail.data.thumbnails import to_grey, without_mask

MIN_SPREAD = 2.0  # standard deviation, of 255
MAX_DARK, MIN_BRIGHT = 32, 232  # what 98 % of the pixels are below, or above
MIN_BLUR_SIDE = 64  # smaller images are all blurred, or noise
MIN_BLUR_IMAGES = 30
# A Gaussian blur of s pixels leaves at most 0.54 / s^4: here 2.7 pixels. Of the median, besides: a set may be smooth.
MAX_BLURRED_SHARPNESS, MAX_SHARPNESS_RATE = 0.01, 0.02
_BLOCK = 256
_MAX_SIDE = 64  # of what brightness is looked at in


@dataclass(frozen=True, eq=False)
class Measures:
    """Of each image, float64 (N,): standard deviation, values that 2 and 98 % of the pixels are below, and sharpness.

    That is the variance of the Laplacian over that of the pixels, nan where it says nothing.
    """

    spread: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sharpness: np.ndarray


def join_measures(parts: Sequence[Measures]) -> Measures:
    """The measures of several blocks as one."""
    return Measures(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Measures)))


def measure(images: np.ndarray, preprocess: Preprocess) -> Measures:
    """The measures of uint8 (N, H, W, C), prepared so; what is padding does not count."""
    colours = without_mask(images)
    grey, inside = to_grey(colours), None
    if colours is not images:
        inside = images[..., -1] >= 128
    elif preprocess.fit == "pad":
        inside = _within_black(grey)
    thin = _thin(colours)
    small = _thin(grey).astype(np.float64)
    where = np.ones(small.shape, bool) if inside is None else _thin(inside)
    lightest, darkest = thin.max(axis=3), thin.min(axis=3)
    # Pixels of pure black are no sign of darkness: they may be the ground that digits stand on.
    high = _quantile(lightest, where & (lightest > 0), 0.98)
    return Measures(np.sqrt(_variance(small, where)), _quantile(darkest, where, 0.02), high, _sharpness(grey, inside))


def _quantile(values: np.ndarray, kept: np.ndarray, rate: float) -> np.ndarray:
    ordered = np.sort(np.where(kept, values.astype(np.int16), 256).reshape(len(values), -1), axis=1)
    count = kept.sum((1, 2))
    found = ordered[np.arange(len(ordered)), np.minimum((rate * count).astype(int), np.maximum(count - 1, 0))]
    return np.where(count == 0, 0, found).astype(np.float64)


def _thin(images: np.ndarray) -> np.ndarray:
    """Every so many rows and columns: enough to know how bright an image is."""
    rows, columns = (max(1, size // _MAX_SIDE) for size in images.shape[1:3])
    return images[:, ::rows, ::columns]


def _within_black(grey: np.ndarray) -> np.ndarray:
    """bool (N, H, W): what is not outside of the first and last row or column that are not all black.

    Padding is at two opposite edges only; an image with more black around it is taken whole, as digits are.
    """
    lit = grey > 0
    rows, columns = np.asarray(np.any(lit, axis=2)), np.asarray(np.any(lit, axis=1))
    inside = _between(rows)[:, :, None] & _between(columns)[:, None]
    whole = ~((rows[:, 0] & rows[:, -1]) | (columns[:, 0] & columns[:, -1]))
    return inside | whole[:, None, None]


def _between(lit: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(lit, axis=1) & np.maximum.accumulate(lit[:, ::-1], axis=1)[:, ::-1]


def _sharpness(grey: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    if min(grey.shape[1:]) < MIN_BLUR_SIDE:
        return np.full(len(grey), np.nan)
    found = np.empty(len(grey))
    for start in range(0, len(grey), _BLOCK):
        block = slice(start, start + _BLOCK)
        image = grey[block].astype(np.float32)
        middle, *around = _middle_and_around(image)
        laplacian = around[0] + around[1] + around[2] + around[3] - 4 * middle
        kept = None
        if inside is not None:  # nor does the edge of padding count, which is the sharpest there is
            kept = np.logical_and.reduce(_middle_and_around(inside[block]))
        found[block] = _variance(laplacian, kept) / np.maximum(_variance(middle, kept), 1)
    return found


def _middle_and_around(images: np.ndarray) -> list[np.ndarray]:
    ends = (slice(1, -1), slice(1, -1)), (slice(None, -2), slice(1, -1)), (slice(2, None), slice(1, -1))
    return [images[:, rows, columns] for rows, columns in (*ends, ends[1][::-1], ends[2][::-1])]


def _variance(values: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """Of each image, float64 (N,)."""
    if kept is None:
        return values.var(axis=(1, 2), dtype=np.float64)
    number = np.maximum(kept.sum((1, 2)), 1)
    mean = np.where(kept, values, 0).sum((1, 2), dtype=np.float64) / number
    return (np.where(kept, values - mean[:, None, None], 0) ** 2).sum((1, 2), dtype=np.float64) / number


def quality_findings(measures: Measures, places: Sequence[tuple[str, str]]) -> list[Finding]:
    """What is wrong with images of a set, all splits together; `places` are the split and name of each."""
    empty = measures.spread < MIN_SPREAD
    dark = ~empty & (measures.high < MAX_DARK)
    bright = ~empty & (measures.low > MIN_BRIGHT)
    blurred = ~empty & ~dark & ~bright & _blurred(measures.sharpness)
    said: tuple[tuple[Kind, np.ndarray, str, np.ndarray], ...] = (
        ("empty", empty, "{name} is nearly empty: its pixels differ by {value:.1f} of 255", measures.spread),
        ("dark", dark, "{name} is very dark: 98 % of it is below {value:.0f} of 255", measures.high),
        ("bright", bright, "{name} is very bright: 98 % of it is above {value:.0f} of 255", measures.low),
        ("blurred", blurred, "{name} is blurred: it has {value:.1%} of the detail that most have", _relative(measures)),
    )
    return [
        Finding(
            kind, split, (name,), text.format(name=name, value=values[index]), {"value": round(float(values[index]), 4)}
        )
        for kind, wrong, text, values in said
        for index, (split, name) in enumerate(places)
        if wrong[index]
    ]


def _relative(measures: Measures) -> np.ndarray:
    known = measures.sharpness[~np.isnan(measures.sharpness)]
    return measures.sharpness / (max(float(np.median(known)), 1e-9) if len(known) else 1.0)


def _blurred(sharpness: np.ndarray) -> np.ndarray:
    """Whether images have no details, and most others of the set have."""
    known = ~np.isnan(sharpness)
    if known.sum() < MIN_BLUR_IMAGES:
        return np.zeros(len(sharpness), bool)
    limit = min(MAX_BLURRED_SHARPNESS, MAX_SHARPNESS_RATE * float(np.median(sharpness[known])))
    return np.where(known, sharpness, np.inf) < limit
