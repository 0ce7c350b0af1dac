"""Small maps as one picture."""

import numpy as np

from vitrail.figures.mosaic import canvas, mosaic, text_dots
from vitrail.figures.style import HEADING_SIZE


def test_tiles_lie_row_by_row_in_frames() -> None:
    tiles = np.array([[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]])
    picture, centers, size = mosaic(tiles, 2, zoom=(2, 1), gap=(1, 2), fill=0.0, frame=9.0)
    assert picture.astype(int).tolist() == [
        [9, 9, 9, 9, 0, 0, 9, 9, 9, 9],
        [9, 1, 2, 9, 0, 0, 9, 3, 4, 9],
        [9, 1, 2, 9, 0, 0, 9, 3, 4, 9],
        [9, 9, 9, 9, 0, 0, 9, 9, 9, 9],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [9, 9, 9, 9, 0, 0, 0, 0, 0, 0],
        [9, 5, 6, 9, 0, 0, 0, 0, 0, 0],
        [9, 5, 6, 9, 0, 0, 0, 0, 0, 0],
        [9, 9, 9, 9, 0, 0, 0, 0, 0, 0],
    ]
    assert centers == [(1.5, 1.5), (7.5, 1.5), (1.5, 6.5)]
    assert size == (4, 4)


def test_colors_stay_together() -> None:
    tiles = np.random.default_rng(0).random((2, 3, 4, 3))
    picture, _, _ = mosaic(tiles, 2, zoom=(1, 1), gap=(0, 0), fill=1.0, frame=0.5)
    assert picture.shape == (5, 12, 3)
    np.testing.assert_array_equal(picture[1:4, 7:11], tiles[1])


def test_an_element_is_a_dot() -> None:
    figure, axes = canvas((30, 70, 3), (20, 10, 15, 5), min_width=0)
    figure.set_dpi(150)
    np.testing.assert_allclose(figure.get_size_inches() * 150, (100, 50))
    np.testing.assert_allclose(axes.get_window_extent().bounds, (20, 15, 70, 30))


def test_room_for_a_title() -> None:
    width = text_dots("A title that is longer than its picture", HEADING_SIZE)
    figure, axes = canvas((30, 70), (20, 10, 15, 5), min_width=width)
    figure.set_dpi(150)
    assert width > 300
    np.testing.assert_allclose(figure.get_size_inches() * 150, (width, 50))
    np.testing.assert_allclose(axes.get_window_extent().bounds, (20, 15, 70, 30))
