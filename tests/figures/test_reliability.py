"""Reliability diagrams."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from vitrail.errors import DataError
from vitrail.figures import draw_reliability, save_figure

NAN = float("nan")
# The second bin is empty, the third one small.
BEFORE = ([0.15, NAN, 0.5, 0.7, 0.95], [0.2, NAN, 1.0, 0.55, 0.8], [20, 0, 9, 300, 1500])
AFTER = ([NAN, 0.3, 0.5, 0.7, 0.9], [NAN, 0.25, 0.5, 0.71, 0.9], [0, 40, 400, 600, 789])


def _points(axes: Axes) -> dict[tuple[float, float], float | None]:
    """The accuracies drawn, and how strongly."""
    drawn = [dots for dots in axes.collections if isinstance(dots, PathCollection)]
    return {(float(x), float(y)): dots.get_alpha() for dots in drawn for x, y in np.asarray(dots.get_offsets())}


def _gaps(axes: Axes) -> set[tuple[float, float, float]]:
    drawn = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    return {(float(a[0]), float(a[1]), float(b[1])) for lines in drawn for a, b in lines.get_segments()}


def _heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_panel_shows_every_bin_that_has_images() -> None:
    figure = draw_reliability(BEFORE)
    upper, lower = figure.axes
    assert upper.get_title("left") == "Reliability"
    assert _points(upper) == {(0.15, 0.2): 1, (0.5, 1.0): 0.35, (0.7, 0.55): 1, (0.95, 0.8): 1}
    assert _gaps(upper) == {(0.15, 0.15, 0.2), (0.5, 0.5, 1.0), (0.7, 0.7, 0.55), (0.95, 0.95, 0.8)}
    assert _heights(lower) == BEFORE[2]
    assert [bar.get_x() for bar in lower.patches] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])  # pyright: ignore
    assert _legend(figure) == ["as sure as right", "gap", "accuracy", "of fewer than 10 images"]


def test_two_panels_show_before_and_after_on_one_scale() -> None:
    figure = draw_reliability(BEFORE, AFTER, 1.837)
    before, after, counts_before, counts_after = figure.axes
    assert before.get_title("left") == "Before calibration"
    assert after.get_title("left") == "After calibration, temperature 1.84"
    assert set(_points(after)) == {(0.3, 0.25), (0.5, 0.5), (0.7, 0.71), (0.9, 0.9)}
    assert (_heights(counts_before), _heights(counts_after)) == (BEFORE[2], AFTER[2])
    assert counts_before.get_ylim() == counts_after.get_ylim()
    assert before.get_ylim() == after.get_ylim()


def test_legend_explains_small_bins_only_where_there_are_some() -> None:
    assert _legend(draw_reliability(AFTER)) == ["as sure as right", "gap", "accuracy"]
    assert _legend(draw_reliability(AFTER, BEFORE)) == [
        "as sure as right",
        "gap",
        "accuracy",
        "of fewer than 10 images",
    ]


@pytest.mark.parametrize("calibrated", [None, AFTER])
def test_legend_is_whole(calibrated, tmp_path: Path) -> None:
    figure = draw_reliability(BEFORE, calibrated)
    save_figure(figure, tmp_path / "reliability.png")
    legend, canvas = figure.legends[0].get_window_extent(), figure.bbox
    assert canvas.x0 <= legend.x0
    assert legend.x1 <= canvas.x1


@pytest.mark.parametrize("bins", [([0.7], [1.0], [1]), ([NAN, 1.0], [NAN, 0.0], [0, 1_000_000]), BEFORE])
def test_any_bins_can_be_drawn(bins: tuple[list[float], ...], tmp_path: Path) -> None:
    figure = draw_reliability(bins, bins)  # pyright: ignore[reportArgumentType]
    assert save_figure(figure, tmp_path / "reliability.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        (([0.5], [0.5, 0.6], [1]), "do not fit"),
        (([[0.5]], [[0.5]], [[1]]), "do not fit"),
        (([], [], []), "at least one image"),
        (([NAN], [NAN], [0]), "at least one image"),
        (([0.5, 0.5], [0.5, 0.5], [3, -1]), "at least one image"),
        (([0.5], [50.0], [1]), "outside 0 to 1"),
        (([NAN], [0.5], [1]), "outside 0 to 1"),
    ],
)
def test_refuses_bins_that_do_not_fit(bins: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_reliability(bins)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DataError, match=message):
        draw_reliability(BEFORE, bins)  # pyright: ignore[reportArgumentType]
