"""Filters as pictures."""

import numpy as np
import pytest

from vitrail.errors import DataError
from vitrail.figures import draw_filters

RNG = np.random.default_rng(0)


def _shares(number: int) -> np.ndarray:
    shares = 1.0 / np.arange(1, number + 1) ** 1.5
    return shares / shares.sum()


@pytest.mark.parametrize(("size", "channels"), [((16, 16), 3), ((8, 8), 1), ((4, 9), 3), ((1, 1), 3), ((32, 32), 1)])
def test_every_component_is_in_the_picture(size: tuple[int, int], channels: int) -> None:
    components = RNG.random((9, *size, channels))
    image = draw_filters(components, _shares(9)).axes[0].images[0]
    picture = np.asarray(image.get_array())
    assert picture.ndim == (2 if channels == 1 else 3)
    zoom = 112 // max(size)
    down, right = zoom * size[0] + 2 + 38, zoom * size[1] + 2
    np.testing.assert_array_equal(picture[1 : 1 + zoom * size[0] : zoom, 1 : 1 + zoom * size[1] : zoom].squeeze(),
                                  components[0].squeeze())  # fmt: skip
    gap = max(12, 100 - zoom * size[1])
    eighth = picture[down + 1 : down + 1 + zoom * size[0] : zoom, 1 : 1 + zoom * size[1] : zoom]
    np.testing.assert_array_equal(eighth.squeeze(), components[7].squeeze())
    assert picture.shape[:2] == (2 * down - 38, 7 * (right + gap) - gap)


def test_shares_stand_under_the_components(drawn) -> None:
    shares = [0.5, 0.25, 0.2, 0.0499, 0.0001]
    figure = draw_filters(RNG.random((5, 8, 8, 3)), shares)
    drawn(figure)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["50.0 %", "25.0 %", "20.0 %", "5.0 %", "< 0.1 %"]
    assert axes.get_title("left") == "The first 5 principal components of the filters: 100.0 % of the variance"
    right = [text.get_position()[0] for text in axes.texts]
    assert right == sorted(right)


@pytest.mark.parametrize(("number", "shown"), [(1, 1), (28, 28), (29, 28), (768, 28)])
def test_as_many_as_in_the_paper(number: int, shown: int, drawn) -> None:
    shares = _shares(number)
    figure = draw_filters(RNG.random((number, 4, 4, 1)), shares)
    drawn(figure)
    assert len(figure.axes[0].texts) == shown
    assert f"{100 * shares[:shown].sum():.1f} % of" in figure.axes[0].get_title("left")


@pytest.mark.parametrize(
    ("number", "title"),
    [
        (1, "Kernel of the first convolution"),
        (32, "Kernels of the first convolution: 32 of them"),
        (96, "Kernels of the first convolution: 64 of them"),
    ],
)
def test_kernels_have_no_shares(number: int, title: str, drawn) -> None:
    figure = draw_filters(RNG.random((number, 3, 3, 3)), None)
    drawn(figure)
    assert figure.axes[0].get_title("left") == title
    assert len(figure.axes[0].texts) == 0


@pytest.mark.parametrize("size", [(32, 2), (2, 32), (1, 1), (64, 64)])
@pytest.mark.parametrize("explained", [True, False])
def test_any_size_fits_the_paper(size: tuple[int, int], explained: bool, drawn) -> None:
    figure = draw_filters(RNG.random((30, *size, 3)), _shares(30) if explained else None)
    texts = [text.get_window_extent() for text in drawn(figure)]
    assert not any(box.overlaps(other) for index, box in enumerate(texts) for other in texts[:index])


def test_narrow_enough_for_a_screen() -> None:
    for size in (4, 14, 16, 32, 113, 300):
        for shares in (_shares(14), None):
            assert draw_filters(RNG.random((14, size, size, 3)), shares).get_figwidth() < 6.2


@pytest.mark.parametrize(
    ("components", "explained", "message"),
    [
        (np.zeros((0, 4, 4, 3)), [], "do not fit"),
        (np.zeros((2, 4, 4)), [0.5, 0.5], r"\(2, 4, 4\)"),
        (np.zeros((2, 4, 4, 2)), [0.5, 0.5], "1 or 3"),
        (np.zeros((2, 4, 4, 3)), [1.0], "do not fit"),
        (np.full((2, 4, 4, 3), 1.5), [0.5, 0.5], "outside 0 to 1"),
        (np.full((2, 4, 4, 3), np.nan), None, "outside 0 to 1"),
        (np.zeros((2, 4, 4, 3)), [50, 30], "outside 0 to 1"),
    ],
)
def test_refuses_what_does_not_fit(components: np.ndarray, explained, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_filters(components, explained)
