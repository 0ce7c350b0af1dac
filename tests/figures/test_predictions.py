"""Grids of predictions."""

from pathlib import Path

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_predictions, save_figure, style


def test_right_and_wrong(color: np.ndarray) -> None:
    figure = draw_predictions(color, ["cat", "dog", "cat"], ["cat", "cat", "cat"], [0.9, 0.61, 1.0])
    right, wrong, _ = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        "cat / cat\n✓ 90 %",
        "dog / cat\n✗ 61 %",
        "cat / cat\n✓ 100 %",
    ]
    assert [axes.title.get_color() for axes in figure.axes] == [style.RIGHT, style.WRONG, style.RIGHT]
    assert figure.get_suptitle() == "Label / prediction: 2 right of 3 shown"
    # Without colour the frame and the mark still tell them apart.
    assert all(wrong.spines[side].get_linewidth() > 2 > right.spines[side].get_linewidth() for side in wrong.spines)


def test_shows_the_images(grey: np.ndarray) -> None:
    figure = draw_predictions(grey, ["a"] * 12, ["b"] * 12, np.full(12, 0.5, dtype=np.float32))
    for axes, image in zip(figure.axes, grey, strict=True):
        np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), image[:, :, 0])


def test_long_names_go_on_two_lines_everywhere(color: np.ndarray) -> None:
    labels = ["automobile", "cat", "golden retriever in deep and wet snow"]
    figure = draw_predictions(color, labels, ["long-distance coach", "cat", "cat"], [0.5, 0.6, 0.7])
    first, second, third = (axes.get_title().split("\n") for axes in figure.axes)
    assert first == ["automobile /", "long-distance coach", "✗ 50 %"]
    assert second == ["cat /", "cat", "✓ 60 %"]
    assert third[0].startswith("golden")
    assert third[0].endswith("snow /")
    assert third[1:] == ["cat", "✗ 70 %"]
    assert all(style.text_inches(line, 8) <= 1.35 for line in (*first, *second, *third))


def test_counts_only_what_is_shown() -> None:
    labels = ["a"] * 50
    predictions = ["a"] * 30 + ["b"] * 20
    figure = draw_predictions(np.zeros((50, 8, 8, 1), dtype=np.uint8), labels, predictions, [0.5] * 50)
    assert len(figure.axes) == 40
    assert figure.get_suptitle() == "Label / prediction: 30 right of the first 40 of 50 images"


def test_names_alike_when_cut_are_still_wrong(color: np.ndarray) -> None:
    label, prediction = "bird " * 6 + "x" + " bird" * 6, "bird " * 6 + "y" + " bird" * 6
    figure = draw_predictions(color[:1], [label], [prediction], [0.5])
    assert figure.axes[0].title.get_color() == style.WRONG


def test_any_name_is_drawn_as_text(color: np.ndarray, hostile_names: list[str], tmp_path: Path) -> None:
    num_images = len(hostile_names)
    images = np.repeat(color[:1], num_images, axis=0)
    figure = draw_predictions(images, hostile_names, hostile_names[::-1], [0.5] * num_images)
    assert all(not axes.title.get_parse_math() for axes in figure.axes)
    assert save_figure(figure, tmp_path / "predictions.png").stat().st_size > 0


@pytest.mark.parametrize("counts", [(2, 3, 3), (3, 2, 3), (3, 3, 2)])
def test_refuses_lengths_that_do_not_fit(color: np.ndarray, counts: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match="do not fit 3 images"):
        draw_predictions(color, ["a"] * counts[0], ["a"] * counts[1], [0.5] * counts[2])


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_refuses_what_is_no_probability(color: np.ndarray, probability: float) -> None:
    with pytest.raises(DataError, match="is not between 0 and 1"):
        draw_predictions(color[:1], ["a"], ["a"], [probability])


def test_refuses_no_images() -> None:
    with pytest.raises(DataError, match="no images"):
        draw_predictions(np.zeros((0, 8, 8, 1), dtype=np.uint8), [], [], [])
