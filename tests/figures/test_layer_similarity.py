"""Similarity of layers."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from vitrail.errors import DataError
from vitrail.figures import draw_layer_similarity


def _cka(num_layers: int) -> np.ndarray:
    layers = np.arange(num_layers)
    return np.exp(-np.abs(layers[:, None] - layers) / max(1, num_layers / 3))


def test_numbers_stand_in_their_cells(drawn) -> None:
    cka = [[1, 0.5, -0.01], [0.5, 1, 0.997], [-0.01, 0.997, 1]]
    figure = draw_layer_similarity(cka, ["0", "1", "2"])
    drawn(figure)
    axes, bar = figure.axes
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(1, 0): "0.50", (2, 0): "0.00", (0, 1): "0.50", (2, 1): "1.00", (0, 2): "0.00", (1, 2): "1.00"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    assert axes.get_ylim()[0] < axes.get_ylim()[1]  # the first layer is the lowest
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.get_title("left") == "Similarity of layers (CKA)"
    assert bar.get_ylabel() == "linear CKA"


def test_numbers_are_readable_on_every_color() -> None:
    """At least the contrast of 4.5 that WCAG 2.1 asks for."""

    def luminance(color: np.ndarray) -> float:
        linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    cka = np.linspace(0, 1, 14 * 14).reshape(14, 14)
    axes = draw_layer_similarity(cka, [str(layer) for layer in range(14)]).axes[0]
    assert len(axes.texts) == 14 * 13
    for text in axes.texts:
        column, row = (int(place) for place in text.get_position())
        cell = np.asarray(axes.images[0].to_rgba(cka[row, column])).ravel()[:3]
        dark, light = sorted([luminance(cell), luminance(np.array(to_rgb(text.get_color())))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, cka[row, column]


@pytest.mark.parametrize(
    ("names", "num_names"),
    [
        (["0"], 1),
        ([str(layer) for layer in range(14)], 14),
        ([str(layer) for layer in range(15)], 15),
        ([f"blocks.{layer}" for layer in range(48)], 24),
        (["relu", "layer1", "features.stages.3.blocks.5.a_long_name"], 3),
    ],
)
def test_nothing_is_cut_off_or_overlaps(names: list[str], num_names: int, drawn) -> None:
    figure = draw_layer_similarity(_cka(len(names)), names)
    drawn(figure)
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert len(labels) == num_names
        boxes = [label.get_window_extent() for label in labels]
        assert not any(box.overlaps(other) for index, box in enumerate(boxes) for other in boxes[:index])
    assert bool(axes.texts) == (1 < len(names) <= 14)
    assert figure.get_figwidth() < 8


def test_hostile_names_are_drawn_as_text(hostile_names: list[str], drawn) -> None:
    drawn(draw_layer_similarity(_cka(len(hostile_names)), hostile_names))


@pytest.mark.parametrize(
    ("cka", "names", "message"),
    [
        (np.zeros((0, 0)), [], "do not fit 0 layers"),
        ([[1.0, 0.5]], ["a", "b"], r"\(1, 2\)"),
        ([[1.0]], ["a", "b"], "do not fit 2 layers"),
        ([[1.0, np.nan], [np.nan, 1.0]], ["a", "b"], "numbers"),
    ],
)
def test_refuses_what_does_not_fit(cka, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_layer_similarity(cka, names)
