"""Images side by side."""

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures.grid import image_grid


@pytest.mark.parametrize(("num_images", "num_rows"), [(1, 1), (8, 1), (9, 2), (10, 2), (17, 3), (41, 5)])
def test_rows(num_images: int, num_rows: int) -> None:
    _, axes_list = image_grid(np.zeros((num_images, 4, 4, 1), dtype=np.uint8), title_lines=1)
    boxes = [axes.get_position() for axes in axes_list]
    assert len(axes_list) == min(num_images, 40)
    assert len({round(box.y0, 6) for box in boxes}) == num_rows


@pytest.mark.parametrize("size", [(4, 4), (1, 50), (50, 3)])
@pytest.mark.parametrize("num_images", [1, 17])
def test_images_stay_apart_and_inside(size: tuple[int, int], num_images: int) -> None:
    _, axes_list = image_grid(np.zeros((num_images, *size, 3), dtype=np.uint8), title_lines=3)
    boxes = [axes.get_position() for axes in axes_list]
    assert all(0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1 for box in boxes)
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_small_images_are_crisp_and_large_ones_smooth() -> None:
    for side, expected in ((28, "nearest"), (64, "nearest"), (224, "antialiased")):
        _, (axes,) = image_grid(np.zeros((1, side, side, 3), dtype=np.uint8), title_lines=1)
        assert axes.images[0].get_interpolation() == expected


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 4, 4, 1), dtype=np.uint8), "no images"),
        (np.zeros((2, 4, 4), dtype=np.uint8), r"\(2, 4, 4\)"),
        (np.zeros((2, 4, 4, 2), dtype=np.uint8), "1 or 3"),
        (np.zeros((2, 4, 4, 3), dtype=np.float32), "float32"),
    ],
)
def test_refuses_what_cannot_be_drawn(images: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_grid(images, title_lines=1)
