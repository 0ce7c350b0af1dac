"""Attention distances."""

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_attention_distance, style

DISTANCES = np.array([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])


def test_shows_each_head_and_uniform_attention(drawn) -> None:
    figure = draw_attention_distance(DISTANCES, 120, 52.138)
    drawn(figure)
    (axes,) = figure.axes
    dots, line = axes.lines
    assert np.asarray(dots.get_xydata()).tolist() == [[0, 10], [0, 20], [0, 30], [1, 40], [1, 50], [1, 60]]
    assert (line.get_color(), np.asarray(line.get_ydata()).tolist()) == (style.VALIDATION, [52.138, 52.138])
    assert axes.get_title("left") == "Mean attention distance by layer"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer", "distance (pixels)")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "a head",
        "attending to all alike: 52.1 pixels",
    ]


@pytest.mark.parametrize(("shape", "value"), [((1, 1), 0.0), ((48, 25), 50.0), ((2, 1), 120.0)])
def test_any_distance_is_inside(shape: tuple[int, int], value: float, drawn) -> None:
    figure = draw_attention_distance(np.full(shape, value), 120.0, 52.1)
    drawn(figure)
    low, high = figure.axes[0].get_ylim()
    assert low <= value < high
    assert 52.1 < high <= 1.02 * 120


def test_a_single_patch_has_no_distance(drawn) -> None:
    drawn(draw_attention_distance([[0.0]], 0.0, 0.0))


@pytest.mark.parametrize(
    ("distances", "uniform", "message"),
    [
        ([], 1, r"\(0,\)"),
        (np.zeros((0, 3)), 1, "layer and head"),
        ([1.0, 2.0], 1, r"\(2,\)"),
        ([[1.0, 121.0]], 1, "outside 0 to 120 pixels"),
        ([[1.0, -0.1]], 1, "outside 0 to 120 pixels"),
        ([[1.0, np.nan]], 1, "outside 0 to 120 pixels"),
        ([[1.0]], 130, "outside 0 to 120 pixels"),
    ],
)
def test_refuses_what_does_not_fit(distances, uniform: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_attention_distance(distances, 120, uniform)
