"""Attention entropies."""

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_attention_entropy, style

MAXIMUM = float(np.log(197))


def test_shows_each_head_and_the_maximum(drawn) -> None:
    figure = draw_attention_entropy([[0.0, 1.5], [3.0, MAXIMUM]], MAXIMUM)
    drawn(figure)
    (axes,) = figure.axes
    dots, line = axes.lines
    assert np.asarray(dots.get_xydata()).tolist() == [[0, 0], [0, 1.5], [1, 3], [1, MAXIMUM]]
    assert (line.get_color(), np.asarray(line.get_ydata()).tolist()) == (style.VALIDATION, [MAXIMUM] * 2)
    assert axes.get_title("left") == "Attention entropy by layer"
    assert axes.get_ylabel() == "entropy (nats)"
    assert axes.get_ylim()[1] > MAXIMUM
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "a head", "attending to all tokens alike: 5.28 nats"
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(1, 1), (48, 25)])
@pytest.mark.parametrize("value", [-1e-6, MAXIMUM + 1e-6])
def test_rounding_is_no_mistake(shape: tuple[int, int], value: float, drawn) -> None:
    drawn(draw_attention_entropy(np.full(shape, value), MAXIMUM))


def test_one_token_has_no_entropy(drawn) -> None:
    drawn(draw_attention_entropy([[0.0]], 0.0))


@pytest.mark.parametrize(
    ("entropy", "message"),
    [
        (np.zeros((3, 0)), r"\(3, 0\)"),
        ([1.0], "layer and head"),
        ([[6.0]], "outside 0 to 5.283 nats"),
        ([[-1.0]], "outside 0 to 5.283 nats"),
        ([[np.nan]], "outside 0 to 5.283 nats"),
    ],
)
def test_refuses_what_does_not_fit(entropy, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_attention_entropy(entropy, MAXIMUM)
