"""Probes by layer."""

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_layer_probes, style

ACCURACIES, INTERVALS = [0.5, 0.8, 0.9], [[0.45, 0.55], [0.75, 0.84], [0.87, 0.93]]


def test_shows_accuracies_with_intervals_and_the_head(drawn) -> None:
    figure = draw_layer_probes(ACCURACIES, INTERVALS, ["0", "1", "2"], (0.95, 0.93, 0.97))
    drawn(figure)
    (axes,) = figure.axes
    probe, head = axes.lines
    assert np.asarray(probe.get_xydata()).tolist() == [[0, 0.5], [1, 0.8], [2, 0.9]]
    assert np.asarray(head.get_ydata()).tolist() == [0.95, 0.95]
    bars = axes.collections[0].get_segments()
    assert [bar[:, 1].tolist() for bar in bars] == INTERVALS
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((0.93, 0.97))
    assert head.get_color() == style.VALIDATION
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "probe", "95 % interval", "the model's own head: 95.0 %"
    ]  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]


@pytest.mark.parametrize("names", [["0"], [f"blocks.{layer}" for layer in range(48)], ["relu", "W" * 90]])
@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_any_accuracy_is_inside(names: list[str], value: float, drawn) -> None:
    bounds = np.clip([[value - 0.1, value + 0.1]] * len(names), 0, 1)
    figure = draw_layer_probes(np.full(len(names), value), bounds, names)
    drawn(figure)
    low, high = figure.axes[0].get_ylim()
    assert low <= value <= high
    assert 0 <= low < high <= 1.02
    assert len(figure.legends[0].get_texts()) == 2


@pytest.mark.parametrize(
    ("accuracies", "intervals", "names", "head", "message"),
    [
        ([], np.zeros((0, 2)), [], None, "do not fit 0 layers"),
        ([0.5], [[0.4, 0.6]], ["a", "b"], None, "do not fit 2 layers"),
        ([0.5], [0.4, 0.6], ["a"], None, r"\(2,\)"),
        ([50], [[40, 60]], ["a"], None, "outside 0 to 1"),
        ([np.nan], [[0.4, 0.6]], ["a"], None, "outside 0 to 1"),
        ([0.5], [[0.4, 0.6]], ["a"], (95, 93, 97), "outside 0 to 1"),
    ],
)
def test_refuses_what_does_not_fit(accuracies, intervals, names: list[str], head, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_layer_probes(accuracies, intervals, names, head)
