"""Axes over a model's layers."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from vitrail.figures.depth import depth_figure, draw_heads, prepare, spread, write_legend, write_names


def _axes(num_layers: int) -> Axes:
    axes = depth_figure().subplots()
    prepare(axes, num_layers, "title", "value")
    return axes


@pytest.mark.parametrize("num_layers", [1, 2, 12, 48])
def test_layers_count_from_zero_and_all_are_inside(num_layers: int, drawn) -> None:
    axes = _axes(num_layers)
    drawn(axes.figure)
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks[0] == 0
    assert ticks == [int(tick) for tick in ticks]
    assert low < 0 <= num_layers - 1 < high < num_layers


def test_every_head_has_a_dot_above_its_layer() -> None:
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    axes = _axes(2)
    draw_heads(axes, values)
    (dots,) = axes.lines
    assert np.asarray(dots.get_xydata()).tolist() == [[0, 1], [0, 2], [0, 3], [1, 4], [1, 5], [1, 6]]


@pytest.mark.parametrize(
    ("names", "rotation", "shown"),
    [
        (["0", "1", "2"], 0, 3),
        ([str(layer) for layer in range(12)], 0, 12),
        ([f"blocks.{layer}" for layer in range(48)], 90, 24),
        (["relu", "layer1", "layer2", "layer3", "layer4"], 0, 5),
        (["W" * 80] * 8, 90, 8),
    ],
)
def test_names_turn_where_they_are_long(names: list[str], rotation: float, shown: int, drawn) -> None:
    axes = _axes(len(names))
    draw_heads(axes, np.ones((len(names), 2)))
    write_names(axes, names)
    write_legend(axes.figure)
    drawn(axes.figure)
    labels = axes.get_xticklabels()
    assert len(labels) == shown
    assert {label.get_rotation() for label in labels} == {rotation}
    boxes = [label.get_window_extent() for label in labels]
    assert not any(box.overlaps(other) for index, box in enumerate(boxes) for other in boxes[:index])


def test_hostile_names_are_drawn_as_text(hostile_names: list[str], drawn) -> None:
    axes = _axes(len(hostile_names))
    write_names(axes, hostile_names)
    drawn(axes.figure)
    assert not any(label.get_parse_math() for label in axes.get_xticklabels())


def test_spread() -> None:
    assert [spread(layers, 4.7) for layers in (1, 12, 29, 30, 48)] == [1, 1, 1, 2, 2]
