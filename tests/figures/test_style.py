"""Text and colours that all figures share."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from vitrail.figures import style


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("two\n  lines ", "two lines"),
        ("", ""),
        ("✓ ✗ Жук Ö 😀", "✓ ✗ Жук Ö 😀"),
        ("a\x07b", "a□b"),
        ("\udcff", "□"),
        ("$x_1$", "$x_1$"),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    assert style.one_line(text) == expected


def test_readable_cuts_the_middle_out() -> None:
    room = style.text_inches("tennis racket", 8)
    assert style.readable("tennis racket", room) == "tennis racket"
    head, tail = style.readable("tennis racket on the left", room).split("…")
    assert head.startswith("tennis")
    assert tail.endswith("left")
    assert 0 <= len(head) - len(tail) <= 1
    assert style.readable("W", 0.01) == "…"


def test_readable_keeps_to_its_room_and_fills_it(hostile_names: list[str]) -> None:
    for name in hostile_names:
        for room in (0.3, 0.9, 1.35):
            length = style.text_inches(style.readable(name, room), style.SMALL_SIZE)
            assert length <= room
            if style.text_inches(style.one_line(name), style.SMALL_SIZE) > room:
                assert length > room - 0.15


def test_readable_cuts_a_name_as_long_as_a_book() -> None:
    assert len(style.readable("long " * 100_000, 1.0)) < 40


def test_narrowest_letter_is_as_wide_as_assumed() -> None:
    assert style.text_inches("i" * 100, 8) > 100 * 0.25 * 8 / 72


@pytest.mark.parametrize(
    ("share", "decimals", "expected"),
    [
        (0.5, 0, "50 %"),
        (0.994, 0, "99 %"),
        (0.996, 0, "> 99 %"),
        (1.0, 0, "100 %"),
        (0.0, 0, "0 %"),
        (0.93824, 2, "93.82 %"),
        (0.99999, 2, "> 99.99 %"),
    ],
)
def test_percent(share: float, decimals: int, expected: str) -> None:
    assert style.percent(share, decimals) == expected


@pytest.mark.parametrize("color", [style.INK, style.RIGHT, style.WRONG])
def test_text_colors_are_readable_on_white(color: str) -> None:
    """At least the contrast of 4.5 that WCAG 2.1 asks for."""
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5
