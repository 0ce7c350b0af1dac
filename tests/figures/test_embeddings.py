"""Maps of embeddings."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex, to_rgb

from vitrail.errors import DataError
from vitrail.figures import draw_embeddings, style
from vitrail.figures.embeddings import COLORS

SHARES = (0.352, 0.1241)
# How colours look without one kind of cones, in linear red, green and blue. Machado et al. 2009, severity 1.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _images(number: int, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, number)
    points = 4 * rng.normal(size=(num_classes, 2))[labels] + rng.normal(size=(number, 2))
    return points, labels, np.where(rng.random(number) < 0.05, (labels + 1) % num_classes, labels)


def _names(number: int) -> list[str]:
    return [f"class {index}" for index in range(number)]


def _dots(figure) -> list[PathCollection]:
    return [part for part in figure.axes[0].collections if isinstance(part, PathCollection)]


def test_every_image_has_a_dot_in_its_class_color() -> None:
    points = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    figure = draw_embeddings(points, [0, 1, 2, 1], [0, 1, 2, 0], ["a", "b", "c"], SHARES)
    *right, wrong = _dots(figure)
    assert [np.asarray(part.get_offsets()).tolist() for part in right] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert [to_hex(part.get_facecolor()[0]).upper() for part in right] == list(COLORS[:3])
    assert len({part.get_paths()[0].vertices.tobytes() for part in [*right, wrong]}) == 4
    assert np.asarray(wrong.get_offsets()).tolist() == [[6, 7]]
    assert to_hex(wrong.get_facecolor()[0]).upper() == COLORS[1]
    assert to_hex(wrong.get_edgecolor()[0]) == style.INK
    axes = figure.axes[0]
    assert axes.get_title("left") == "Embeddings: 3 right of 4 images"
    assert axes.get_xlabel() == "first principal component, 35.2 % of the variance"
    assert axes.get_ylabel() == "second principal component, 12.4 % of the variance"


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_colors_are_told_apart(kind: str) -> None:
    """By a distance of at least 15 in CIELAB, where 2.3 is just noticeable."""

    def lab(color: str) -> np.ndarray:
        channels = np.array(to_rgb(color))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.asarray(DEFICIENCIES[kind]) @ linear, 0, 1)
        matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        xyz = np.asarray(matrix) @ seen / [0.9505, 1, 1.089]
        root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])

    assert min(np.linalg.norm(lab(one) - lab(other)) for one, other in combinations(COLORS, 2)) > 15


@pytest.mark.parametrize("num_classes", [2, 8, 9, 16])
def test_few_classes_stand_in_a_legend(num_classes: int, drawn) -> None:
    figure = draw_embeddings(*_images(200, num_classes), _names(num_classes), SHARES)
    drawn(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*_names(num_classes), "mistake"]
    assert not legend.get_window_extent().overlaps(figure.axes[0].xaxis.label.get_window_extent())
    assert bool(figure.axes[0].texts) == (num_classes > 8)
    classes = legend.legend_handles[:num_classes]
    assert len({(handle.get_color(), handle.get_marker()) for handle in classes}) == num_classes


@pytest.mark.parametrize("num_classes", [17, 100, 1000])
def test_many_classes_are_named_where_they_lie(num_classes: int, drawn) -> None:
    points, labels, predicted = _images(1000, num_classes)
    figure = draw_embeddings(points, labels, predicted, _names(num_classes), SHARES)
    drawn(figure)
    axes = figure.axes[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mistake"]
    texts = {text.get_text(): text for text in axes.texts}
    assert 10 < len(texts) <= 60
    boxes = [text.get_window_extent() for text in texts.values()]
    assert not any(box.overlaps(other) for index, box in enumerate(boxes) for other in boxes[:index])
    most = int(np.bincount(labels).argmax())
    middle = np.median(points[labels == most], axis=0)
    np.testing.assert_allclose(texts[f"class {most}"].get_position(), middle)


def test_without_predictions_nothing_is_right_or_wrong() -> None:
    points, labels, _ = _images(50, 3)
    figure = draw_embeddings(points, labels, None, _names(3), SHARES)
    assert figure.axes[0].get_title("left") == "Embeddings: 50 images"
    assert len(_dots(figure)) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == _names(3)


def test_a_part_of_the_images_is_said() -> None:
    points, labels, predicted = _images(50, 3)
    right = int((labels == predicted).sum())
    for num_images, of in ((50, ""), (10_000, " of 10,000")):
        figure = draw_embeddings(points, labels, predicted, _names(3), SHARES, num_images)
        assert figure.axes[0].get_title("left") == f"Embeddings: {right} right of 50{of} images"


def test_many_mistakes_do_not_hide_the_points() -> None:
    points, labels, _ = _images(400, 3)
    wrong = (labels + 1) % 3
    (many,) = _dots(draw_embeddings(points, labels, wrong, _names(3), SHARES))
    *_, few = _dots(draw_embeddings(points, labels, np.where(np.arange(400) < 9, wrong, labels), _names(3), SHARES))
    assert (many.get_alpha(), few.get_alpha()) == (0.5, None)
    assert many.get_sizes()[0] < few.get_sizes()[0]


def test_two_axes_have_one_scale() -> None:
    figure = draw_embeddings([[0, 0], [10, 1]], [0, 1], [0, 1], ["a", "b"], SHARES)
    axes = figure.axes[0]
    corner, middle = axes.transData.transform([[0, 0], [1, 1]])
    assert (middle - corner)[0] == pytest.approx((middle - corner)[1])


@pytest.mark.parametrize(
    "points", [[[3.0, 4.0]], [[1.0, 1.0]] * 5, [[0.0, 1e9], [0.0, -1e9]], [[1e-12, 0.0], [0.0, 1e-12]]]
)
def test_any_points_are_inside(points: list[list[float]], drawn) -> None:
    figure = draw_embeddings(points, [0] * len(points), [0] * len(points), ["a"], SHARES)
    drawn(figure)
    places = figure.axes[0].transAxes.inverted().transform(figure.axes[0].transData.transform(points))
    assert ((places > 0) & (places < 1)).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a"]


@pytest.mark.parametrize("num_classes", [8, 15])
def test_hostile_names_are_drawn_as_text(num_classes: int, hostile_names: list[str], drawn) -> None:
    figure = draw_embeddings(*_images(300, num_classes), hostile_names[:num_classes], SHARES)
    assert not any(text.get_parse_math() for text in drawn(figure))


@pytest.mark.parametrize(
    ("points", "labels", "predicted", "explained", "message"),
    [
        (np.zeros((0, 2)), [], [], SHARES, "do not fit"),
        ([[0, 0, 0]], [0], [0], SHARES, r"\(1, 3\)"),
        ([[0, 0]], [0, 1], [0], SHARES, "do not fit"),
        ([[0, 0]], [0], [0, 1], SHARES, "do not fit"),
        ([[0, 0]], [0], [0], (0.5,), "do not fit"),
        ([[0, np.nan]], [0], [0], SHARES, "no numbers"),
        ([[0, 0]], [2], [0], SHARES, "outside 0 to 1"),
        ([[0, 0]], [0], [-1], SHARES, "outside 0 to 1"),
        ([[0, 0]], [0], [0], (35, 12), "give fractions"),
    ],
)
def test_refuses_what_does_not_fit(points, labels, predicted, explained, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_embeddings(points, labels, predicted, ["a", "b"], explained)
