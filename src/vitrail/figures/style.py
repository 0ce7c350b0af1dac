"""What all figures share: colours, sizes, and text that is shown as it was given."""
# Matplotlib leaves its keyword arguments open.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure

# Told apart with every kind of colour vision, after Okabe and Ito 2008; green and red are dark enough for text.
INK = "#222222"
FAINT = "#9A9A9A"
TRAIN = "#0072B2"
VALIDATION = "#D55E00"
RIGHT = "#00795A"
WRONG = "#C8200E"
SHARES = "Blues"
SIGNED = "RdBu"  # red below 0, white, and the same blues above

HEADING_SIZE = 11.0
LABEL_SIZE = 9.0
SMALL_SIZE = 8.0

# DejaVu Sans comes with matplotlib; the others fill in scripts it lacks, where a system has them.
_FAMILIES = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans CJK KR",
    "Noto Sans JP",
    "Noto Sans SC",
    "Noto Sans KR",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "WenQuanYi Micro Hei",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Nirmala UI",
    "Leelawadee UI",
    "Segoe UI",
)
_NO_GLYPH = "□"
_POINTS = 72  # in an inch
_FINE = 300  # dots per inch to measure at; with fewer, letters snap to whole dots


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of `width` and `height` in inches, tied to no window."""
    return Figure(figsize=(width, height), facecolor="white")


def text_style(size: float = LABEL_SIZE, color: str = INK) -> dict[str, Any]:
    """Settings for any text: what a user's names hold, such as $ or _, is never read as a formula."""
    return {"fontsize": size, "color": color, "family": list(_installed()), "parse_math": False, "usetex": False}


def text_on(color: Sequence[float]) -> str:
    """Black or white, whichever stands out more from a background of red, green and blue in 0..1 (WCAG 2.1)."""
    channels = np.asarray(color)[:3]
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "white" if linear @ [0.2126, 0.7152, 0.0722] < 0.179 else "black"


def one_line(text: str) -> str:
    """`text` without line breaks; a character that no font has becomes a box, so that drawing never warns."""
    return "".join(char if _has_glyph(char) else _NO_GLYPH for char in " ".join(str(text).split()))


def readable(text: str, max_inches: float, size: float = SMALL_SIZE) -> str:
    """`text` on one line no longer than `max_inches`, cut in the middle, as names often differ at their ends."""
    line = one_line(text)
    most = int(max_inches * _POINTS / (0.25 * size))  # no letter is narrower than a quarter of its size
    if len(line) <= most and text_inches(line, size) <= max_inches:
        return line

    def cut(kept: int) -> str:
        return f"{line[: (kept + 1) // 2]}…{line[len(line) - kept // 2 :]}"

    too_long = bisect_left(
        range(1, min(most, len(line) - 1) + 1), True, key=lambda kept: text_inches(cut(kept), size) > max_inches
    )
    return cut(too_long)  # so many are kept, as the range begins with 1


def text_inches(text: str, size: float) -> float:
    """The length of one line of `text` as drawn, in inches."""
    font = font_manager.FontProperties(family=list(_installed()), size=size)
    width, _, _ = RendererAgg(1, 1, _FINE).get_text_width_height_descent(text, font, ismath=False)
    return width / _FINE


def percent(share: float, decimals: int) -> str:
    """A fraction in 0..1 as a percentage, never rounded up to a certainty that was not given."""
    if 1 - 0.5 * 10 ** (-decimals - 2) <= share < 1:
        return f"> {100 - 10**-decimals:.{decimals}f} %"
    return f"{100 * share:.{decimals}f} %"


def tidy(axes: Axes) -> None:
    """Take the frame to two thin lines and the ticks to the common size and colour."""
    axes.set_facecolor("white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=SMALL_SIZE, color=FAINT)


def _has_glyph(char: str) -> bool:
    # Some fonts claim control characters, only to draw nothing.
    return unicodedata.category(char) != "Cc" and any(ord(char) in _characters(family) for family in _installed())


@cache
def _installed() -> tuple[str, ...]:
    known = set(font_manager.get_font_names())
    return tuple(family for family in _FAMILIES if family in known)


@cache
def _characters(family: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(family)).get_charmap())
