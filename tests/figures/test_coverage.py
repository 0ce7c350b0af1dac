"""Accuracy against coverage."""

from pathlib import Path

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_coverage, save_figure, style

COVERAGE, ACCURACY = [1.0, 0.8, 0.5, 0.1], [0.82, 0.9, 0.96, 1.0]


def test_shows_the_curve() -> None:
    figure = draw_coverage(COVERAGE, ACCURACY)
    (axes,) = figure.axes
    (line,) = axes.lines
    assert np.asarray(line.get_xydata()).tolist() == [list(point) for point in zip(COVERAGE, ACCURACY, strict=True)]
    assert axes.get_title("left") == "Accuracy by share of images answered"
    assert axes.get_xlabel() == "coverage: images answered, the surest first"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["images answered"]


def test_marks_the_chosen_threshold() -> None:
    figure = draw_coverage(COVERAGE, ACCURACY, chosen=(0.7312, 0.5, 0.96))
    marks = [line for line in figure.axes[0].lines if line.get_color() == style.INK]
    assert [np.asarray(line.get_xydata()).tolist() for line in marks] == [[[0.5, 0.96]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "images answered", "above 0.731: 50.0 % answered, 96.0 % of them right"
    ]  # fmt: skip


@pytest.mark.parametrize("chosen", [None, (0.0, 1.0, 0.5), (0.999, 0.001, 1.0)])
@pytest.mark.parametrize("points", [([1.0], [0.5]), ([1.0], [1.0]), ([1.0, 0.5], [0.0, 0.0])])
def test_any_curve_can_be_drawn(points: tuple[list[float], list[float]], chosen, tmp_path: Path) -> None:
    figure = draw_coverage(*points, chosen=chosen)
    assert save_figure(figure, tmp_path / "coverage.png").stat().st_size > 0
    low, high = figure.axes[0].get_ylim()
    assert all(low <= value <= high for value in [*points[1], *([] if chosen is None else [chosen[2]])])


@pytest.mark.parametrize(
    ("accuracy", "ticks"),
    [
        ([1.0, 1.0], [98, 99, 100]),
        ([0.9972, 1.0], [98, 99, 100]),
        ([0.0, 0.0], [0, 1, 2]),
        ([0.82, 1.0], [80, 85, 90, 95, 100]),
        ([0.013, 0.99], [0, 20, 40, 60, 80, 100]),
    ],
)
def test_ticks_are_whole_per_cents_up_to_100(accuracy: list[float], ticks: list[int]) -> None:
    figure = draw_coverage([1.0, 0.5], accuracy)
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"{tick} %" for tick in ticks]


def test_many_points_can_be_drawn(tmp_path: Path) -> None:
    coverage = np.linspace(1, 1e-5, 100_000)
    figure = draw_coverage(coverage, 1 - coverage / 4)
    assert save_figure(figure, tmp_path / "coverage.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("coverage", "accuracy", "chosen", "message"),
    [
        ([1.0], [0.5, 0.6], None, "do not fit"),
        ([[1.0]], [[0.5]], None, "do not fit"),
        ([], [], None, "at least one point"),
        ([1.0], [95.0], None, "outside 0 to 1"),
        ([1.0], [float("nan")], None, "outside 0 to 1"),
        ([1.0], [0.5], (0.5, 0.5, float("nan")), "outside 0 to 1"),
    ],
)
def test_refuses_what_does_not_fit(coverage: list, accuracy: list, chosen, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_coverage(coverage, accuracy, chosen)
