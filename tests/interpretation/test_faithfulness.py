"""Deletion and insertion, on models whose evidence is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.errors import ConfigError, DataError
from vitrail.interpretation.faithfulness import Curves, blurred, deletion_curves, insertion_curves


def reads_one_pixel(images: np.ndarray) -> np.ndarray:
    """Logits that tell class 1 from class 0 by the pixel in row 1, column 2, and see nothing else."""
    seen = images[:, 1, 2, 0].astype(np.float64)
    return np.stack([-seen, seen], axis=1)


def linear(images: np.ndarray) -> np.ndarray:
    """Class 1 by a weighted sum of all pixels, whose weights rise row by row."""
    weights = np.linspace(-1, 1, images[0].size)
    seen = images.reshape(len(images), -1) / 255 @ weights
    return np.stack([np.zeros(len(images)), seen], axis=1)


def one_pixel() -> tuple[np.ndarray, np.ndarray]:
    """An image of which one pixel is white, and the map that knows which."""
    image = np.zeros((1, 4, 4, 1), np.uint8)
    image[0, 1, 2] = 255
    return image, image[..., 0].astype(np.float32)


def test_the_one_pixel_that_counts_is_deleted_first() -> None:
    image, perfect = one_pixel()
    curves = deletion_curves(reads_one_pixel, image, perfect, [1], fill=[0], num_steps=16)
    assert curves.shares.tolist() == [count / 16 for count in range(17)]
    # Sure with the pixel, undecided without: from the first step on a half.
    assert np.allclose(curves.probabilities[0], [1.0] + [0.5] * 16)
    assert np.allclose(curves.areas, 0.5 + 0.25 / 16)


def test_the_one_pixel_that_counts_is_deleted_last_by_the_inverted_map() -> None:
    image, perfect = one_pixel()
    curves = deletion_curves(reads_one_pixel, image, -perfect, [1], fill=[0], num_steps=16)
    assert np.allclose(curves.probabilities[0], [1.0] * 16 + [0.5])
    assert np.allclose(curves.areas, 1 - 0.25 / 16)


def test_the_one_pixel_that_counts_is_inserted_first() -> None:
    image, perfect = one_pixel()

    def answer(images: np.ndarray) -> np.ndarray:
        return reads_one_pixel((images > 200).astype(np.uint8) * 255)

    best = insertion_curves(answer, image, perfect, [1], num_steps=16)
    worst = insertion_curves(answer, image, -perfect, [1], num_steps=16)
    assert np.allclose(best.areas, 1 - 0.25 / 16)
    assert np.allclose(worst.areas, 0.5 + 0.25 / 16)


def test_areas_by_hand() -> None:
    curves = Curves(np.array([0.0, 0.25, 1.0]), np.array([[1.0, 0.5, 0.1], [0.2, 0.2, 0.2]]))
    assert np.allclose(curves.areas, [0.25 * 0.75 + 0.75 * 0.3, 0.2])


def test_of_a_linear_model_its_own_weights_are_the_best_order_and_their_inverse_the_worst() -> None:
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (6, 5, 5, 1), dtype=np.uint8)
    # What a pixel gives beyond the fill.
    weights = np.linspace(-1, 1, 25).reshape(5, 5)
    exact = weights * (images[..., 0] - 100.0)
    targets = [1] * 6

    def area(maps: np.ndarray) -> np.ndarray:
        return deletion_curves(linear, images, maps, targets, [100], num_steps=25).areas

    best, worst = area(exact), area(-exact)
    for seed in range(20):
        drawn = area(np.random.default_rng(seed).random(exact.shape))
        assert (best <= drawn + 1e-12).all()
        assert (drawn <= worst + 1e-12).all()
    assert (best < worst).all()


@given(st.integers(0, 1000), st.integers(1, 30), st.sampled_from([(2, 2), (3, 2), (6, 5)]))
def test_areas_are_shares_that_no_monotone_change_of_the_map_alters(
    seed: int, num_steps: int, grid: tuple[int, int]
) -> None:
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    maps = numbers.integers(0, 4, (2, *grid)).astype(np.float32)  # with ties
    for changed in (maps, np.exp(maps) - 9):
        deletion = deletion_curves(linear, images, changed, [0, 1], [9, 99, 200], num_steps, seed)
        insertion = insertion_curves(linear, images, changed, [0, 1], num_steps, seed)
        if changed is maps:
            first = deletion, insertion
        for curves, before in zip((deletion, insertion), first, strict=True):
            assert ((curves.areas >= 0) & (curves.areas <= 1)).all()
            assert (curves.probabilities == before.probabilities).all()
            assert len(curves.shares) == min(num_steps, grid[0] * grid[1]) + 1
            assert curves.shares[[0, -1]].tolist() == [0, 1]
    # Both end at the image as it is, or begin with it.
    assert np.allclose(deletion.probabilities[:, 0], insertion.probabilities[:, -1])


def test_a_map_that_says_nothing_gains_nothing_from_where_it_says_it() -> None:
    # Evidence in the first cells: in the order of reading, a constant map would look perfect.
    images = np.zeros((400, 1, 8, 1), np.uint8)
    images[:, 0, 0] = 255

    def answer(images: np.ndarray) -> np.ndarray:
        seen = images[:, 0, 0, 0] / 25.5
        return np.stack([-seen, seen], axis=1)

    areas = deletion_curves(answer, images, np.ones((400, 1, 8)), [1] * 400, [0]).areas
    assert abs(areas.mean() - 0.75) < 0.04
    assert abs(deletion_curves(answer, images, images[..., 0] * 1.0, [1] * 400, [0]).areas.mean() - 0.53125) < 1e-4


def test_whole_patches_change_where_the_map_has_one_value_a_patch() -> None:
    seen: list[np.ndarray] = []

    def answer(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return np.zeros((len(images), 2))

    images = np.full((1, 4, 4, 1), 200, np.uint8)
    deletion_curves(answer, images, np.array([[[1.0, 3.0], [0.0, 2.0]]]), [0], [7])
    shown = np.concatenate(seen)[..., 0]
    assert [(image == 7).sum() for image in shown] == [0, 4, 8, 12, 16]
    assert shown[1].tolist() == [[200, 200, 7, 7]] * 2 + [[200] * 4] * 2
    assert shown[2].tolist() == [[200, 200, 7, 7]] * 4


def test_what_tells_padding_is_never_changed() -> None:
    numbers = np.random.default_rng(0)
    images = numbers.integers(0, 256, (2, 8, 8, 4), dtype=np.uint8)
    images[..., 3] = numbers.choice([0, 255], (2, 8, 8))

    def answer(shown: np.ndarray) -> np.ndarray:
        assert all((image[..., 3] == images[..., 3]).all(axis=(1, 2)).any() for image in shown)
        return np.zeros((len(shown), 2))

    deletion_curves(answer, images, np.zeros((2, 4, 4)), [0, 0], [1, 2, 3])
    insertion_curves(answer, images, np.zeros((2, 4, 4)), [0, 0])


def test_of_a_blurred_image_shades_are_left() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    smooth = blurred(images).astype(float)
    assert smooth.std() < 0.2 * images.std()
    assert abs(smooth.mean() - images.mean()) < 5
    even = np.full((1, 9, 9, 1), 77, np.uint8)
    assert (blurred(even) == even).all()


def test_mistakes_are_refused() -> None:
    images = np.zeros((1, 4, 4, 1), np.uint8)
    with pytest.raises(ConfigError, match="num_steps=0 is too few; use 1 or more, 20 is usual"):
        deletion_curves(linear, images, np.zeros((1, 2, 2)), [0], [0], num_steps=0)
    with pytest.raises(DataError, match="A map of 5x5 cells does not fit"):
        insertion_curves(linear, images, np.zeros((1, 5, 5)), [0])
    with pytest.raises(DataError, match="Maps"):
        deletion_curves(linear, images, np.zeros((2, 2, 2)), [0], [0])
