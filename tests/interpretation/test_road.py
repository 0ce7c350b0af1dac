"""ROAD: what is imputed, and parity with pytorch-grad-cam."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vitrail.errors import ConfigError, DataError
from vitrail.interpretation.road import impute, linear_imputation, road


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """pytorch-grad-cam's ROAD."""
    found = pytest.importorskip("pytorch_grad_cam.metrics.road")
    return SimpleNamespace(imputer=found.NoisyLinearImputer, combined=found.ROADCombined)


def ramp(rows: int, columns: int) -> np.ndarray:
    """A plane: rising by 3 a row and by 2 a column."""
    return (3.0 * np.arange(rows)[:, None] + 2.0 * np.arange(columns) + 10)[..., None]


def test_a_ramp_is_imputed_exactly() -> None:
    # Each pixel of a plane is the mean of the eight around it.
    image, missing = ramp(12, 9), np.zeros((12, 9), bool)
    missing[3:9, 2:7] = True
    assert np.allclose(linear_imputation(image, missing), image[missing], atol=1e-9)
    found = impute(image.astype(np.uint8), missing, np.random.default_rng(0), noise=0)
    assert (found == image).all()


@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_what_is_imputed_lies_between_what_is_known(seed: int, share: float) -> None:
    numbers = np.random.default_rng(seed)
    image, missing = numbers.random((7, 6, 2)), numbers.random((7, 6)) < share
    missing[numbers.integers(7), numbers.integers(6)] = False
    found = linear_imputation(image, missing)
    assert found.shape == (missing.sum(), 2)
    assert (found >= image[~missing].min(axis=0) - 1e-9).all()
    assert (found <= image[~missing].max(axis=0) + 1e-9).all()


def test_one_missing_pixel_is_the_weighted_mean_of_those_around_it() -> None:
    image = np.arange(9.0).reshape(3, 3, 1) ** 2
    missing = np.zeros((3, 3), bool)
    missing[1, 1] = True
    wanted = (1 + 9 + 25 + 49) / 6 + (0 + 4 + 36 + 64) / 12
    assert np.allclose(linear_imputation(image, missing), wanted)
    missing[:] = False
    missing[0, 0] = True  # in a corner there are three, whose weights sum to 5/12
    assert np.allclose(linear_imputation(image, missing), ((1 + 9) / 6 + 16 / 12) / (5 / 12))
    assert linear_imputation(image, np.zeros((3, 3), bool)).shape == (0, 1)


def test_noise_has_its_deviation_and_what_is_known_has_none() -> None:
    image, missing = np.full((64, 64, 3), 100, np.uint8), np.zeros((64, 64), bool)
    missing[:, 8:] = True
    image[..., 1] = 250  # near the end of what fits
    found = impute(image, missing, np.random.default_rng(0), noise=4.0)
    assert abs(found[missing][:, 0].std() - 4) < 0.1
    assert (found[~missing] == image[~missing]).all()
    with_padding = np.dstack([image, image[..., 0]])
    assert (impute(with_padding, missing, np.random.default_rng(0))[..., 3] == 100).all()


# Theirs calls numpy on tensors.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("channels", [1, 3])
def test_imputes_as_grad_cam_does(share: float, channels: int, other: SimpleNamespace) -> None:
    numbers = np.random.default_rng(1)
    # Not square: their code is told rows and columns too.
    image, missing = numbers.random((10, 14, channels)), numbers.random((10, 14)) < share
    theirs = other.imputer(noise=0.0)(
        torch.from_numpy(image.transpose(2, 0, 1)).float(), torch.from_numpy(~missing).float()
    )
    assert np.allclose(linear_imputation(image, missing), theirs.numpy().transpose(1, 2, 0)[missing], atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")
def test_scores_as_grad_cam_does(other: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # their noise
    monkeypatch.setattr("vitrail.interpretation.road.impute", partial(impute, noise=0.0))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 100, 4), nn.Softmax(dim=1)).eval()
    numbers = np.random.default_rng(2)
    images = numbers.integers(0, 256, (5, 10, 10, 3), dtype=np.uint8)
    # Maps without ties, whose values lie so that a percentile falls between them.
    maps = np.stack([numbers.permutation(100).reshape(10, 10) for _ in range(5)]).astype(np.float32) / 99
    targets = [0, 1, 2, 3, 1]

    def answer(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255
            return model[:2](batch).numpy()

    shares = (0.2, 0.5, 0.8)
    ours = road(answer, images, maps, targets, shares).scores
    theirs = other.combined(percentiles=[20, 50, 80])(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255,
        maps,
        [lambda output, target=target: output[target] for target in targets],
        model,
    )
    # They halve the difference; and an image is of whole steps of grey here.
    assert np.allclose(ours / 2, theirs, atol=2e-3)
    assert np.abs(ours).max() > 0.02


def reads_left_half(images: np.ndarray) -> np.ndarray:
    """Class 1 where the left half has stripes, by their contrast."""
    contrast = np.abs(np.diff(images[:, :, : images.shape[2] // 2, 0].astype(float), axis=1)).mean(axis=(1, 2))
    return np.stack([np.full(len(images), 50.0), contrast], axis=1)


def test_right_evidence_is_above_0_wrong_below_and_none_at_0() -> None:
    images = np.zeros((12, 16, 16, 1), np.uint8)
    images[:, ::2] = 255
    right = np.zeros((12, 4, 4))
    right[:, :, :2] = 1
    score = {name: road(reads_left_half, images, maps, [1] * 12).scores for name, maps in
             (("right", right), ("wrong", -right), ("none", 0 * right))}  # fmt: skip
    assert score["right"].mean() > 0.4
    assert score["wrong"].mean() < -0.4
    assert abs(score["none"].mean()) < 0.25
    assert all((np.abs(values) <= 1).all() for values in score.values())


def test_the_same_seed_gives_the_same_scores() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    maps = np.random.default_rng(1).random((3, 4, 4))
    first, second = (road(reads_left_half, images, maps, [0, 1, 1], seed=5) for _ in range(2))
    assert (first.most == second.most).all()
    assert first.shares.tolist() == [0.2, 0.4, 0.6, 0.8]
    assert first.least.shape == first.most.shape == (3, 4)


def test_mistakes_are_refused() -> None:
    images = np.zeros((1, 4, 4, 1), np.uint8)
    for shares in ((), (0.0,), (0.5, 1.0)):
        with pytest.raises(ConfigError, match="are not all between 0 and 1; use such as"):
            road(reads_left_half, images, np.zeros((1, 2, 2)), [0], shares)
    with pytest.raises(DataError, match="A map of one cell has no order"):
        road(reads_left_half, images, np.zeros((1, 1, 1)), [0])
    with pytest.raises(DataError, match="leave at least one"):
        linear_imputation(np.zeros((2, 2, 1)), np.ones((2, 2), bool))
