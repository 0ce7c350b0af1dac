"""Cells of a map: the pixels they cover, their order, other grids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.errors import DataError
from vitrail.interpretation.cells import cells_of, check_images, num_colors, ranked, regridded, target_probabilities


def test_cells_are_patches() -> None:
    assert cells_of((2, 2), (4, 6)).tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[2, 2, 2, 3, 3, 3]] * 2
    assert cells_of((2, 3), (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(9, 30), st.integers(9, 30))
def test_every_pixel_has_a_cell_and_every_cell_a_pixel(rows: int, columns: int, height: int, width: int) -> None:
    sizes = np.bincount(cells_of((rows, columns), (height, width)).ravel())
    assert len(sizes) == rows * columns
    assert sizes.min() >= (height // rows) * (width // columns)


@pytest.mark.parametrize("grid", [(5, 4), (4, 5), (0, 1)])
def test_a_map_finer_than_the_image_is_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=f"A map of {grid[0]}x{grid[1]} cells does not fit an image of 4x4 pixels"):
        cells_of(grid, (4, 4))


def test_the_most_evidence_comes_first() -> None:
    assert ranked(np.array([[[0.5, -1.0], [np.nan, 2.0]]])).tolist() == [[1, 2, 3, 0]]


def test_equal_values_come_in_any_order() -> None:
    places = ranked(np.zeros((4000, 1, 4)))
    counts = np.array([np.bincount(column, minlength=4) for column in places.T])
    assert np.abs(counts - 1000).max() < 120  # more than four deviations
    assert (places == ranked(np.zeros((4000, 1, 4)))).all()
    assert (places != ranked(np.zeros((4000, 1, 4)), seed=1)).any()


@given(st.lists(st.floats(-3, 3, width=16), min_size=6, max_size=6), st.integers(0, 5))
def test_order_is_that_of_any_monotone_map(values: list[float], seed: int) -> None:
    maps = np.array(values).reshape(1, 2, 3)
    assert (ranked(maps, seed) == ranked(3 * maps**3 + maps - 7, seed)).all()
    assert sorted(ranked(maps, seed)[0]) == list(range(6))


def test_coarser_is_the_mean_and_finer_lies_between() -> None:
    maps = np.arange(16.0).reshape(1, 4, 4)
    assert regridded(maps, (4, 4)).tolist() == maps.tolist()
    assert regridded(maps, (2, 2)).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    assert regridded(np.array([[[0.0, 1.0]]]), (1, 4)).tolist() == [[[0.0, 0.25, 0.75, 1.0]]]
    # Three cells of two: the middle one takes half of each.
    assert np.allclose(regridded(np.array([[[0.0, 1.0, 5.0]]]), (1, 2)), [[[1 / 3, 11 / 3]]])


def test_finer_is_what_torch_calls_bilinear() -> None:
    import torch

    maps = np.random.default_rng(0).random((2, 3, 5)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size=(14, 11), mode="bilinear")[0]
    assert np.allclose(regridded(maps, (14, 11)), wanted.numpy(), atol=1e-6)


@given(st.integers(1, 8), st.integers(1, 8))
def test_other_grids_keep_a_constant(rows: int, columns: int) -> None:
    assert np.allclose(regridded(np.full((1, 5, 3), 0.7), (rows, columns)), 0.7)


def test_a_channel_of_padding_is_no_colour() -> None:
    assert [num_colors(np.zeros((1, 2, 2, channels), np.uint8)) for channels in (1, 2, 3, 4)] == [1, 1, 3, 3]


def test_many_images_are_answered_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitrail.interpretation.cells._BATCH_VALUES", 12)
    sizes: list[int] = []

    def answer(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return images[:, 0, 0, :].astype(np.float32)

    images = np.random.default_rng(0).integers(0, 5, (7, 1, 2, 2), dtype=np.uint8)
    targets = [0, 1, 0, 1, 1, 0, 1]
    found = target_probabilities(answer, iter(images), targets, (1, 2, 2))
    logits = images[:, 0, 0].astype(float)
    assert sizes == [3, 3, 1]
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(found, wanted[np.arange(7), targets])


@pytest.mark.parametrize(
    ("images", "maps", "targets", "message"),
    [
        (np.zeros((2, 3, 3, 1)), np.zeros((2, 1, 1)), np.zeros(2, int), "Images .* float64 do not fit"),
        (np.zeros((0, 3, 3, 1), np.uint8), np.zeros((0, 1, 1)), np.zeros(0, int), "at least 1"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros((1, 1, 1)), np.zeros(2, int), "Maps"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros((2, 1, 1)), np.zeros(3, int), "targets"),
    ],
)
def test_what_does_not_fit_is_refused(images: np.ndarray, maps: np.ndarray, targets: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_images(images, maps, targets)


def test_one_map_without_its_axis_of_images_is_refused() -> None:
    with pytest.raises(DataError, match=r"give \(images, rows, columns\)"):
        ranked(np.zeros((2, 2)))
