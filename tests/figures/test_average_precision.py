"""Average precision by class."""

from pathlib import Path

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_average_precision, save_figure


def test_shows_a_bar_for_each_class_the_lowest_first() -> None:
    figure = draw_average_precision([0.9, 0.25, np.nan, 0.5], [0.5, 0.1, 0.0, 0.2], ("sea", "sky", "sun", "tree"))
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.5, 0.9]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["sky", "tree", "sea"]
    assert axes.yaxis_inverted()
    (marks,) = axes.lines
    assert np.asarray(marks.get_xydata()).tolist() == [[0.1, 0], [0.2, 1], [0.5, 2]]
    assert [text.get_text() for text in axes.texts] == ["25.0 %", "50.0 %", "90.0 %"]
    assert axes.get_title("left") == "Average precision: 55.0 % on average"
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"average precision", "by chance"}


def test_of_many_classes_the_lowest_are_drawn() -> None:
    values = np.linspace(1, 0, 100)
    figure = draw_average_precision(values, np.full(100, 0.1), [f"class {index}" for index in range(100)])
    (axes,) = figure.axes
    assert len(axes.patches) == 40
    assert axes.get_yticklabels()[0].get_text() == "class 99"
    assert axes.get_title("left") == "Average precision: 50.0 % on average, the 40 lowest of 100"


@pytest.mark.parametrize("count", [1, 40])
def test_any_names_can_be_drawn(count: int, hostile_names: list[str], tmp_path: Path) -> None:
    names = [hostile_names[index % len(hostile_names)] for index in range(count)]
    figure = draw_average_precision(np.ones(count), np.ones(count), names)
    assert save_figure(figure, tmp_path / "average_precision.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("values", "shares", "message"),
    [
        ([0.5], [0.5, 0.5], "do not fit 2 classes"),
        ([0.5, 1.5], [0.5, 0.5], "outside 0 to 1"),
        ([0.5, 0.5], [0.5, -1], "outside 0 to 1"),
        ([np.nan, np.nan], [0.5, 0.5], "or there are none"),
    ],
)
def test_refuses_what_cannot_be_drawn(values: list[float], shares: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_average_precision(values, shares, ("a", "b"))
