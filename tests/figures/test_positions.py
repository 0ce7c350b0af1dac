"""Similarities of positions."""

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_positions, style


def _similarity(rows: int, columns: int, width: int = 16) -> np.ndarray:
    places = np.random.default_rng(0).normal(size=(rows, columns, width))
    places /= np.linalg.norm(places, axis=2, keepdims=True)
    return np.einsum("ijd,kld->ijkl", places, places)


def _texts(labels) -> list[str]:
    return [label.get_text() for label in labels]


def test_each_patch_has_its_map() -> None:
    similarity = _similarity(2, 3)
    axes = draw_positions(similarity).axes[0]
    picture = np.asarray(axes.images[0].get_array())
    side = 50  # of a pixel, as a map is at most 150 dots
    for row in range(2):
        for column in range(3):
            top, left = row * (2 * side + 7) + 1, column * (3 * side + 7) + 1
            tile = picture[top : top + 2 * side : side, left : left + 3 * side : side]
            np.testing.assert_allclose(tile, np.clip(similarity[row, column], -1, 1))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("input patch column", "input patch row")
    assert _texts(axes.get_xticklabels()) == ["1", "2", "3"]
    assert _texts(axes.get_yticklabels()) == ["1", "2"]


@pytest.mark.parametrize(
    ("side", "step", "expected"),
    [
        (7, 1, [1, 2, 3, 4, 5, 6, 7]),
        (14, 1, [1, 3, 5, 7, 9, 11, 13]),
        (24, 1, [2, 5, 8, 11, 14, 17, 20, 23]),
        (37, 1, [1, 6, 11, 16, 21, 26, 31, 36]),
        (16, 2, [1, 5, 9, 13, 17, 21, 25, 29]),
    ],
)
def test_large_grids_are_drawn_in_part(side: int, step: int, expected: list[int], drawn) -> None:
    figure = draw_positions(_similarity(side, 2), step)
    drawn(figure)
    assert _texts(figure.axes[0].get_yticklabels()) == [str(number) for number in expected]


def test_the_map_shown_is_that_of_the_labelled_patch() -> None:
    similarity = _similarity(24, 1)
    picture = np.asarray(draw_positions(similarity).axes[0].images[0].get_array())
    assert np.isclose(picture[1 : 1 + 24 * 3 : 3, 1], 1).nonzero()[0].tolist() == [
        1
    ]  # the second row is the first shown


def test_colors_have_a_middle_only_where_some_are_opposite() -> None:
    image = draw_positions(_similarity(3, 3)).axes[0].images[0]
    assert image.get_clim() == (-1, 1)
    assert image.get_cmap().name == style.SIGNED
    alike = 0.5 + 0.5 * np.abs(_similarity(3, 3))
    image = draw_positions(alike).axes[0].images[0]
    assert image.get_clim() == (alike.min(), 1)
    assert image.get_cmap().name == style.SHARES


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 7), (6, 10), (37, 37), (37, 2), (2, 37)])
def test_every_grid_fits_the_paper(size: tuple[int, int], drawn) -> None:
    figure = draw_positions(_similarity(*size))
    texts = drawn(figure)
    assert {"Similarity of position embeddings", "cosine similarity"} <= {text.get_text() for text in texts}
    assert len(figure.axes) == 2
    assert max(figure.get_size_inches()) < 6.5
    for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(box.overlaps(other) for index, box in enumerate(boxes) for other in boxes[:index])


def test_the_title_is_clear_of_the_scale(drawn) -> None:
    figure = draw_positions(_similarity(2, 2))
    (title,) = [text for text in drawn(figure) if text.get_text().startswith("Similarity of")]
    scale = figure.axes[1]
    ticks = [tick for tick in scale.yaxis.get_major_ticks() if tick.get_loc() <= scale.get_ylim()[1]]
    labels = [tick.label2.get_window_extent() for tick in ticks]
    assert title.get_window_extent().y0 > max(label.y1 for label in labels) + 0.04 * figure.dpi


def test_places_that_are_all_alike(drawn) -> None:
    drawn(draw_positions(np.ones((3, 4, 3, 4))))


@pytest.mark.parametrize(
    ("similarity", "message"),
    [
        (np.zeros((0, 0, 0, 0)), "no map for each patch"),
        (np.zeros((4, 4)), r"\(4, 4\)"),
        (np.zeros((2, 3, 3, 2)), r"\(2, 3, 3, 2\)"),
        (np.full((2, 2, 2, 2), 1.5), "outside -1 to 1"),
        (np.full((2, 2, 2, 2), np.nan), "outside -1 to 1"),
    ],
)
def test_refuses_what_does_not_fit(similarity: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_positions(similarity)
