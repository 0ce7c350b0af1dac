"""Methods of explanation side by side."""

from pathlib import Path

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_faithfulness, save_figure, style

NAMES = ["relevance", "rollout", "random"]
SHARES = [0.0, 0.5, 1.0]
DELETION = [[0.9, 0.3, 0.1], [0.9, 0.4, 0.1], [0.9, 0.6, 0.1]]
INSERTION = [[0.1, 0.8, 0.9], [0.1, 0.7, 0.9], [0.1, 0.5, 0.9]]
FAITHFULNESS = [[0.4, 0.3, 0.5], [0.2, 0.1, 0.3], [0.0, -0.1, 0.1]]
ROAD = [[0.3, 0.2, 0.4], [0.2, 0.1, 0.3], [0.0, -0.1, 0.1]]


def test_shows_curves_and_intervals() -> None:
    figure = draw_faithfulness(NAMES, SHARES, DELETION, INSERTION, FAITHFULNESS, ROAD)
    deletion, insertion, faithfulness, road = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Deletion: the lower, the better",
        "Insertion: the higher, the better",
        "Insertion less deletion, areas",
        "ROAD, least less most relevant first",
    ]
    for axes, rows in ((deletion, DELETION), (insertion, INSERTION)):
        shown = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in axes.lines}
        assert shown == dict(zip(NAMES, rows, strict=True))
        colors = {str(line.get_label()): line.get_color() for line in axes.lines}
        assert colors["random"] == style.FAINT
        assert len({*colors.values()}) == 3
    for axes, rows in ((faithfulness, FAITHFULNESS), (road, ROAD)):
        marks = [np.asarray(line.get_xydata()).tolist() for line in axes.lines if line.get_marker() == "o"]
        assert marks == [[[row[0], place]] for place, row in enumerate(rows)]
        bars = [np.asarray(line.get_xdata()).tolist() for line in axes.lines if line.get_marker() != "o"]
        assert bars[:3] == [row[1:] for row in rows]
    assert [text.get_text() for text in faithfulness.get_yticklabels()] == NAMES


@pytest.mark.parametrize("count", [1, 12])
def test_any_number_of_methods_can_be_drawn(count: int, hostile_names: list[str], tmp_path: Path) -> None:
    names = hostile_names[:count]
    rows, measures = np.full((count, 21), 0.5), np.zeros((count, 3))
    figure = draw_faithfulness(names, np.linspace(0, 1, 21), rows, rows, measures, measures)
    assert save_figure(figure, tmp_path / "faithfulness.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": NAMES[:2]}, "do not fit 2 methods and 3 shares"),
        ({"names": [], "deletion": np.zeros((0, 3)), "insertion": np.zeros((0, 3))}, "do not fit 0 methods"),
        ({"shares": [0.0, 1.0]}, "do not fit 3 methods and 2 shares"),
        ({"road": ROAD[:2]}, r"intervals \(3, 3\) and \(2, 3\)"),
        ({"insertion": [[0.1, 1.8, 0.9]] * 3}, "outside 0 to 1"),
        ({"deletion": [[0.1, np.nan, 0.9]] * 3}, "outside 0 to 1"),
    ],
)
def test_refuses_what_does_not_fit(change: dict, message: str) -> None:
    given = {
        "names": NAMES, "shares": SHARES, "deletion": DELETION, "insertion": INSERTION,
        "faithfulness": FAITHFULNESS, "road": ROAD,
    }  # fmt: skip
    with pytest.raises(DataError, match=message):
        draw_faithfulness(**{**given, **change})
