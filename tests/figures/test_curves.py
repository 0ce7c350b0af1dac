"""Training curves."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from vitrail.errors import DataError
from vitrail.figures import draw_curves, save_figure, style

EPOCHS = np.linspace(0.05, 4, 80)
NOISE = np.random.default_rng(0).normal(0, 0.05, 80)
LOSS = 2 * np.exp(-EPOCHS) + 0.2 + NOISE
ACCURACY = 1 - LOSS / 3
VALIDATION = ([1, 2, 3, 4], [1.0, 0.6, 0.5, 0.55], [0.6, 0.7, 0.8, 0.78])


def _lines(axes: Axes, color: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in axes.lines if line.get_color() == color
    ]


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [legend.get_title().get_text(), *(text.get_text() for text in legend.get_texts())]


def test_two_panels_with_both_curves() -> None:
    loss, accuracy = draw_curves(EPOCHS, LOSS, ACCURACY, *VALIDATION, best_epoch=3).axes
    assert (loss.get_title("left"), loss.get_xlabel(), loss.get_ylabel()) == ("Loss by epoch", "epoch", "loss (nats)")
    assert (accuracy.get_title("left"), accuracy.get_ylabel()) == ("Accuracy by epoch", "accuracy")
    for axes, train, validation in ((loss, LOSS, VALIDATION[1]), (accuracy, ACCURACY, VALIDATION[2])):
        (_, raw), (_, smooth) = _lines(axes, style.TRAIN)
        np.testing.assert_array_equal(raw, train)
        assert np.abs(np.diff(smooth)).sum() < 0.5 * np.abs(np.diff(raw)).sum()
        assert np.abs(smooth - (2 * np.exp(-EPOCHS) + 0.2 if axes is loss else raw)).max() < 0.2
        ((places, values),) = _lines(axes, style.VALIDATION)
        assert places.tolist() == VALIDATION[0]
        assert values.tolist() == validation
    assert _legend(loss) == ["", "training", "validation", "best epoch 3: 0.5"]
    assert _legend(accuracy) == ["", "training", "validation", "best epoch 3: 80.00 %"]


def test_best_epoch_is_marked_on_the_validation_curve() -> None:
    for axes, value in zip(
        draw_curves(EPOCHS, LOSS, ACCURACY, *VALIDATION, best_epoch=3).axes, (0.5, 0.8), strict=True
    ):
        ((place, marked),) = _lines(axes, style.INK)
        assert (place.item(), marked.item()) == (3, value)
    for axes in draw_curves(EPOCHS, LOSS, ACCURACY, *VALIDATION, best_epoch=None).axes:
        assert _lines(axes, style.INK) == []
        assert _legend(axes) == ["", "training", "validation"]


def test_mixed_images_leave_training_accuracy_out_and_say_so() -> None:
    loss, accuracy = draw_curves(EPOCHS, LOSS, np.full(80, np.nan), *VALIDATION, best_epoch=3).axes
    assert len(_lines(loss, style.TRAIN)) == 2
    assert _lines(accuracy, style.TRAIN) == []
    assert _legend(accuracy) == [
        "training accuracy left out where images are mixed", "validation", "best epoch 3: 80.00 %"
    ]  # fmt: skip


def test_accuracy_mixed_in_part_has_a_gap() -> None:
    partly = np.where(EPOCHS < 2, np.nan, ACCURACY)
    figure = draw_curves(EPOCHS, LOSS, partly, *VALIDATION, best_epoch=None)
    _, (_, smooth) = _lines(figure.axes[1], style.TRAIN)
    np.testing.assert_array_equal(np.isnan(smooth), EPOCHS < 2)
    assert _legend(figure.axes[1])[0] != ""


def test_smooth_line_keeps_a_constant_and_the_mean_of_a_trend() -> None:
    _, (_, constant) = _lines(draw_curves(EPOCHS, np.full(80, 0.7), ACCURACY, [], [], [], None).axes[0], style.TRAIN)
    np.testing.assert_allclose(constant, 0.7, rtol=1e-12)
    trend = np.arange(80.0)
    _, (_, smooth) = _lines(draw_curves(EPOCHS, trend, ACCURACY, [], [], [], None).axes[0], style.TRAIN)
    np.testing.assert_allclose(smooth[5:-5], trend[5:-5])


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (([0.5], [2.0], [0.2]), ([], [], [])),
        (([], [], []), ([1], [1.9], [0.3])),
        (([0.5], [2.0], [0.2]), ([1], [1.9], [0.3])),
        (([0.5, 1.0], [2.0, float("inf")], [0.0, 1.0]), ([1], [float("nan")], [0.3])),
        (([0.5], [float("nan")], [float("nan")]), ([], [], [])),
    ],
)
def test_the_first_steps_can_be_drawn(
    train: tuple[list[float], ...], validation: tuple[list[float], ...], tmp_path: Path
) -> None:
    figure = draw_curves(*train, *validation, best_epoch=1.0)
    assert save_figure(figure, tmp_path / "curves.png").stat().st_size > 0
    for axes, column in zip(figure.axes, (1, 2), strict=True):
        low, high = axes.get_ylim()
        assert all(low <= value <= high for value in [*train[column], *validation[column]] if np.isfinite(value))


def test_many_steps_can_be_drawn(tmp_path: Path) -> None:
    epochs = np.linspace(0, 300, 100_000)
    figure = draw_curves(epochs, np.exp(-epochs), 1 - np.exp(-epochs), *VALIDATION, best_epoch=None)
    assert save_figure(figure, tmp_path / "curves.png").stat().st_size > 0


def test_legend_covers_no_line(tmp_path: Path) -> None:
    figure = draw_curves(EPOCHS, LOSS, ACCURACY, *VALIDATION, best_epoch=4)
    save_figure(figure, tmp_path / "curves.png")
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())


def test_refuses_nothing() -> None:
    with pytest.raises(DataError, match="nothing to draw"):
        draw_curves([], [], [], [], [], [], None)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_refuses_lengths_that_do_not_fit(which: int) -> None:
    columns = [[1.0, 2.0]] * 3
    short = [column[:1] if index == which else column for index, column in enumerate(columns)]
    with pytest.raises(DataError, match="of train have shapes"):
        draw_curves(*short, *columns, best_epoch=None)
    with pytest.raises(DataError, match="of validation have shapes"):
        draw_curves(*columns, *short, best_epoch=None)
