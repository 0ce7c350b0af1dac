"""Grids of sample images."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from vitrail.errors import DataError
from vitrail.figures import draw_samples, save_figure, style


def _pixels(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def test_shows_every_image_under_its_title(grey: np.ndarray) -> None:
    titles = [f"class {index}" for index in range(12)]
    figure = draw_samples(grey, titles)
    assert [axes.get_title() for axes in figure.axes] == titles
    for axes, image in zip(figure.axes, grey, strict=True):
        np.testing.assert_array_equal(_pixels(axes), image[:, :, 0])
    assert figure.get_suptitle() == "Sample images"


def test_grey_is_grey_from_black_to_white(grey: np.ndarray) -> None:
    drawn = draw_samples(np.full_like(grey, 128), ["dim"] * 12).axes[0].images[0]
    assert drawn.get_clim() == (0, 255)
    red, green, blue, _ = np.asarray(drawn.to_rgba(128))
    assert red == green == blue
    assert red == pytest.approx(128 / 255, abs=0.01)


def test_color_is_shown_as_given(color: np.ndarray) -> None:
    figure = draw_samples(color, ["a", "b", "c"])
    for axes, image in zip(figure.axes, color, strict=True):
        np.testing.assert_array_equal(_pixels(axes), image)


def test_says_that_more_images_are_there() -> None:
    figure = draw_samples(np.zeros((1797, 8, 8, 1), dtype=np.uint8), ["0"] * 1797)
    assert len(figure.axes) == 40
    assert figure.get_suptitle() == "Sample images, the first 40 of 1,797"


def test_the_heading_can_be_another(grey: np.ndarray) -> None:
    assert draw_samples(grey, ["a"] * 12, "Test images").get_suptitle() == "Test images"


def test_any_name_is_drawn_as_text(color: np.ndarray, hostile_names: list[str], tmp_path: Path) -> None:
    images = np.repeat(color[:1], len(hostile_names), axis=0)
    figure = draw_samples(images, hostile_names)
    assert all(not axes.title.get_parse_math() for axes in figure.axes)
    assert figure.axes[0].get_title() == "price in $ and $"
    assert all(style.text_inches(axes.get_title(), 8) <= 1.35 for axes in figure.axes)
    assert save_figure(figure, tmp_path / "samples.png").stat().st_size > 0


def test_refuses_titles_that_do_not_fit(grey: np.ndarray) -> None:
    with pytest.raises(DataError, match="11 titles do not fit 12 images"):
        draw_samples(grey, ["a"] * 11)


def test_refuses_no_images() -> None:
    with pytest.raises(DataError, match="no images"):
        draw_samples(np.zeros((0, 8, 8, 1), dtype=np.uint8), [])
