import math

import numpy as np
import pytest

from vitrail.interpretation.occlusion import WINDOWS, num_passes, occlusion, window_size
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target

FILL = np.array([100.2, 50, 200], np.float32)


class Linear:
    """Answers that are sums of weighed pixels, and what they were given."""

    def __init__(self, rows: int, columns: int, channels: int = 3, num_classes: int = 4) -> None:
        self.weights = np.random.default_rng(0).normal(size=(rows, columns, channels, num_classes))
        self.given: list[np.ndarray] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        self.given.append(images)
        return np.einsum("nijc,ijck->nk", images.astype(np.float64), self.weights).astype(np.float32)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def by_loops(images: np.ndarray, weights: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """What each pixel's windows take from a sum of weighed pixels, mean over the windows that cover it."""
    parts = ((images.astype(float) - np.rint(FILL)) * weights).sum(axis=3)
    total, count = np.zeros(parts.shape), np.zeros(parts.shape)
    starts = [
        [step * math.ceil(own / 2) for step in range(math.ceil((side - own) / math.ceil(own / 2)) + 1)]
        for own, side in zip(window, parts.shape[1:], strict=True)
    ]
    for row in starts[0]:
        for column in starts[1]:
            place = np.s_[:, row : row + window[0], column : column + window[1]]
            total[place] += parts[place].sum(axis=(1, 2), keepdims=True)
            count[place] += 1
    assert count.min() > 0
    return total / count


@pytest.mark.parametrize(("shape", "window"), [((8, 8), (2, 2)), ((30, 17), (4, 3)), ((12, 60), (2, 8))])
def test_a_pixel_has_the_mean_fall_of_its_windows(shape: tuple[int, int], window: tuple[int, int]) -> None:
    linear, images = Linear(*shape), noise(2, *shape, 3)
    subject = Subject(linear, FILL)
    assert window_size(shape) == window
    maps = occlusion(subject, images, [Target(1), Target(3, against=0)])
    weights = np.stack([linear.weights[..., 1], linear.weights[..., 3] - linear.weights[..., 0]])
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, by_loops(images, weights, window), rtol=1e-3, atol=0.5)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (30, 17), (224, 224), (100, 450), (1, 9)])
def test_the_number_of_passes_is_known_and_bounded(shape: tuple[int, int]) -> None:
    linear = Linear(*shape, num_classes=1)
    subject = Subject(linear, FILL)
    assert num_passes(shape) <= (2 * WINDOWS - 1) ** 2 + 1 == 226
    if math.prod(shape) < 1000:
        occlusion(subject, noise(1, *shape, 3), [Target(0)])
        assert sum(map(len, linear.given)) == num_passes(shape)


def test_covered_images_come_in_bounded_batches() -> None:
    linear = Linear(80, 224, num_classes=1)
    occlusion(Subject(linear, FILL), noise(1, 80, 224, 3), [Target(0)])
    assert [len(given) for given in linear.given] == [1, 78, 78, 69]


def test_one_channel_is_enough() -> None:
    linear, images = Linear(9, 8, channels=1), noise(1, 9, 8, 1)
    assert occlusion(Subject(linear, FILL[:1]), images, [Target(0)]).shape == (1, 9, 8)


def test_what_is_padded_stays_padded() -> None:
    linear, images = Linear(8, 12, channels=4), noise(1, 8, 12, 4)
    images[..., 3] = 255
    images[:, :, 8:, 3] = 0
    maps = occlusion(Subject(linear, FILL), images, [Target(0)])
    assert maps.shape == (1, 8, 12)
    for given in linear.given:
        np.testing.assert_array_equal(given[..., 3], np.broadcast_to(images[..., 3], given.shape[:3]))
    assert any((given[..., :3] != images[..., :3]).any() for given in linear.given)
