"""Confusion matrices."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from vitrail.errors import DataError
from vitrail.figures import draw_confusion, save_figure


def _random(num_classes: int) -> np.ndarray:
    rng = np.random.default_rng(num_classes)
    return rng.poisson(2, (num_classes, num_classes)) + np.diag(rng.integers(20, 90, num_classes))


def _names(num_classes: int) -> list[str]:
    return [f"class {index}" for index in range(num_classes)]


def test_counts_stand_in_their_cells() -> None:
    counts = np.array([[1200, 3, 0], [4, 5, 6], [0, 0, 9]])
    axes = draw_confusion(counts, ["a", "b", "c"]).axes[0]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "1,200", (1, 0): "3", (0, 1): "4", (1, 1): "5", (2, 1): "6", (2, 2): "9"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert axes.get_title("left") == "Confusion matrix: 1,214 right of 1,227 images"


def test_color_is_the_share_of_the_row() -> None:
    counts = [[8, 2, 0], [1, 1, 2], [0, 0, 0]]
    figure = draw_confusion(counts, ["a", "b", "without images"])
    image = figure.axes[0].images[0]
    np.testing.assert_allclose(np.asarray(image.get_array()), [[0.8, 0.2, 0], [0.25, 0.25, 0.5], [0, 0, 0]])
    assert image.get_clim() == (0, 1)
    assert figure.axes[1].get_ylabel() == "share of the true class's images"


def test_text_is_readable_on_every_color() -> None:
    """At least the contrast of 4.5 that WCAG 2.1 asks for, over all shares."""

    def luminance(color: np.ndarray) -> float:
        linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    counts = np.array([[share, 100 - share] for share in range(1, 31)])
    padded = np.zeros((30, 30), dtype=np.int64)
    padded[:, :2] = counts
    padded[:, 2] = np.arange(30) * 2
    axes = draw_confusion(padded, _names(30)).axes[0]
    image = axes.images[0]
    shares = np.asarray(image.get_array())
    assert len(axes.texts) == np.count_nonzero(padded)
    for text in axes.texts:
        column, row = (int(place) for place in text.get_position())
        cell = np.asarray(image.to_rgba(shares[row, column])).ravel()[:3]
        dark, light = sorted([luminance(cell), luminance(np.array(to_rgb(text.get_color())))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, shares[row, column]


@pytest.mark.parametrize(("num_classes", "has_text"), [(1, True), (30, True), (31, False)])
def test_no_text_above_thirty_classes(num_classes: int, has_text: bool) -> None:
    axes = draw_confusion(_random(num_classes), _names(num_classes)).axes[0]
    assert bool(axes.texts) == has_text


@pytest.mark.parametrize(("num_classes", "num_names"), [(100, 100), (101, 51), (1000, 100)])
def test_many_classes(num_classes: int, num_names: int, tmp_path: Path) -> None:
    figure = draw_confusion(_random(num_classes), _names(num_classes))
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == num_names
    place = int(figure.axes[0].get_yticks()[1])
    assert labels[1].get_text() == f"class {place}"
    assert max(figure.get_size_inches()) < 20
    if num_classes == 100:
        assert save_figure(figure, tmp_path / "confusion.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("names", "rotation"), [(["0", "1"], 0), (["a quite long class name", "b"], 45), (_names(40), 90)]
)
def test_names_turn_where_they_are_long(names: list[str], rotation: float) -> None:
    axes = draw_confusion(_random(len(names)), names).axes[0]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {rotation}
    assert {label.get_rotation() for label in axes.get_yticklabels()} == {0}


@pytest.mark.parametrize("names", [_names(2), _names(12), _names(50), ["W" * 40, "i" * 40, "a" * 40], ["x"]])
def test_nothing_is_cut_off_or_overlaps(names: list[str]) -> None:
    figure = draw_confusion(_random(len(names)) * 100, names)
    FigureCanvasAgg(figure).draw()
    axes, bar = figure.axes
    paper = figure.bbox
    parts = [axes.xaxis.label, axes.yaxis.label, bar.yaxis.label, *axes.get_yticklabels(), *axes.get_xticklabels()]
    for part in [*parts, axes._left_title]:  # pyright: ignore[reportAttributeAccessIssue]
        box = part.get_window_extent()
        assert paper.x0 <= box.x0, part
        assert paper.x1 >= box.x1, part
        assert paper.y0 <= box.y0, part
        assert paper.y1 >= box.y1, part
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert not any(above.overlaps(below) for above, below in pairwise(boxes))
    for text in axes.texts:
        box = text.get_window_extent()
        assert box.width <= axes.get_window_extent().width / len(names)


def test_any_name_is_drawn_as_text(hostile_names: list[str], tmp_path: Path) -> None:
    figure = draw_confusion(_random(len(hostile_names)), hostile_names)
    labels = [*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()]
    assert all(not label.get_parse_math() for label in labels)
    assert labels[0].get_text() == "price in $ and $"
    assert save_figure(figure, tmp_path / "confusion.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("confusion", "classes", "message"),
    [
        ([], [], "does not fit 0 classes"),
        ([[1, 2], [3, 4]], ["a"], "does not fit 1 classes"),
        ([[1, 2]], ["a", "b"], "does not fit 2 classes"),
        ([[0, 0], [0, 0]], ["a", "b"], "at least one image"),
        ([[5, -1], [0, 0]], ["a", "b"], "none below 0"),
    ],
)
def test_refuses_what_is_no_confusion_matrix(confusion: list[list[int]], classes: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_confusion(confusion, classes)
