"""Pointing at evidence whose place is known."""

import numpy as np
import pytest

from vitrail.errors import ConfigError, DataError
from vitrail.interpretation.pointing import mosaics, planted_squares, pointing


def test_by_hand() -> None:
    region = np.zeros((3, 4, 4), bool)
    region[:, 1:3, 1:3] = True  # a quarter of each of the four cells
    region[1, 2:] = False
    region[2] = False
    region[2, :2, :2] = True
    maps = np.array([[[4.0, 0.0], [0.0, 0.0]], [[-1.0, -2.0], [-3.0, 0.0]], [[1.0, 3.0], [-5.0, 4.0]]])
    found = pointing(maps, region)
    assert found.hits.tolist() == [True, False, False]
    assert np.allclose(found.shares, [0.25, np.nan, 1 / 8], equal_nan=True)
    assert found.hit_chances.tolist() == [1.0, 0.5, 0.25]
    assert found.areas.tolist() == [0.25, 0.125, 0.25]


def test_chance_is_what_random_maps_have() -> None:
    planted = planted_squares(2000, image_size=16, square_size=4, seed=1)
    found = pointing(np.random.default_rng(0).random((2000, 4, 4)), planted.regions)
    assert abs(found.hits.mean() - found.hit_chances.mean()) < 0.04
    assert abs(found.shares.mean() - found.areas.mean()) < 0.005
    constant = pointing(np.ones((2000, 4, 4)), planted.regions)
    assert abs(constant.hits.mean() - constant.hit_chances.mean()) < 0.04
    assert np.allclose(constant.shares, constant.areas)


def test_the_region_itself_is_a_perfect_map() -> None:
    planted = planted_squares(50)
    found = pointing(planted.regions.astype(float), planted.regions)
    assert found.hits.all()
    assert (found.shares == 1).all()


def test_a_square_has_the_colour_of_its_class() -> None:
    planted = planted_squares(40, image_size=20, square_size=5, num_classes=3, seed=2)
    assert planted.images.shape == (40, 20, 20, 3)
    assert planted.images.dtype == np.uint8
    assert sorted(np.bincount(planted.labels)) == [13, 13, 14]
    assert (planted.regions.sum(axis=(1, 2)) == 25).all()
    colors = {label: planted.images[planted.labels == label][planted.regions[planted.labels == label]]
              for label in range(3)}  # fmt: skip
    assert all(len(np.unique(color, axis=0)) == 1 for color in colors.values())
    assert len({tuple(color[0]) for color in colors.values()}) == 3
    blank = planted_squares(10, num_blank=6)
    assert blank.labels[10:].tolist() == [4] * 6
    assert blank.regions.any(axis=(1, 2)).tolist() == [True] * 10 + [False] * 6
    assert (planted_squares(40, seed=3).images == planted_squares(40, seed=3).images).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_mosaic_has_one_image_of_its_class_where_it_says(channels: int) -> None:
    # Images are as bright as their class says, so that a quarter tells its class.
    labels = np.repeat(np.arange(4), 3)
    images = np.broadcast_to((10 + 20 * labels)[:, None, None, None], (12, 7, 6, channels)).astype(np.uint8)
    made = mosaics(images, labels, 60)
    assert made.images.shape == (60, 7, 6, channels)
    assert sorted(np.bincount(made.labels)) == [15] * 4
    assert (made.regions.sum(axis=(1, 2)) == 9).all()
    for image, label, region in zip(made.images, made.labels, made.regions, strict=True):
        assert (image[region] == 10 + 20 * label).all()
        corners = [image[0, 0, 0], image[0, -1, 0], image[-1, 0, 0], image[-1, -1, 0]]
        assert [int(corner) for corner in corners].count(10 + 20 * label) == 1
    assert len(np.unique(made.regions.reshape(60, -1), axis=0)) == 4


def test_two_classes_of_few_images_make_mosaics() -> None:
    images = np.zeros((3, 4, 4, 1), np.uint8)
    made = mosaics(images, [0, 5, 5], 10)
    assert {*made.labels.tolist()} == {0, 5}


def test_halving_takes_the_mean_of_four() -> None:
    images = np.zeros((2, 4, 4, 1), np.uint8)
    images[0, 0] = [[0], [8], [100], [100]]
    images[0, 1] = [[4], [8], [100], [101]]
    made = mosaics(images, [0, 1], 1)  # which of the two classes is drawn does not matter
    quarter = made.images[0, :2, :2, 0] if (made.images[0, :2, :2] > 0).any() else made.images[0, 2:, :2, 0]
    assert quarter.tolist() in ([[5, 100], [0, 0]], [[0, 0], [0, 0]])


def test_mistakes_are_refused() -> None:
    with pytest.raises(DataError, match="Images of 1 class and 4x4 pixels make no mosaic"):
        mosaics(np.zeros((3, 4, 4, 1), np.uint8), [2, 2, 2], 4)
    with pytest.raises(DataError, match="do not fit"):
        pointing(np.zeros((2, 2, 2)), np.zeros((3, 4, 4), bool))
    with pytest.raises(DataError, match="Some regions are empty"):
        pointing(np.zeros((1, 2, 2)), np.zeros((1, 4, 4), bool))
    with pytest.raises(ConfigError, match="square_size=32 does not fit image_size=32"):
        planted_squares(3, square_size=32)
    with pytest.raises(ConfigError, match="num_classes=5 is not possible; use 2 to 4"):
        planted_squares(3, num_classes=5)


@pytest.mark.slow
def test_maps_of_a_trained_vit_point_at_planted_evidence() -> None:
    import torch
    from torch.nn import functional as F

    from vitrail.engines.pytorch import TorchEngine
    from vitrail.interpretation.methods import default_method, evidence_maps
    from vitrail.interpretation.subjects import Subject
    from vitrail.interpretation.targets import Target
    from vitrail.models.vit import VisionTransformer
    from vitrail.models.vit_config import ViTConfig

    torch.manual_seed(0)
    sizes = {"image_size": (32, 32), "patch_size": (4, 4), "embed_dim": 48, "depth": 3, "num_heads": 3}
    config = ViTConfig(**sizes, num_classes=5, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = VisionTransformer(config)
    train, test = planted_squares(2048, num_blank=512, seed=1), planted_squares(200, seed=2)
    images, labels = torch.from_numpy(train.images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(train.labels)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(300):
        batch = torch.randint(0, len(labels), (32,))
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    subject = Subject.of(TorchEngine(model, torch.device("cpu")), config)
    assert (subject.answer(test.images).argmax(axis=1) == test.labels).mean() > 0.99
    targets = [Target(int(label)) for label in test.labels]
    for method in {default_method(subject), "relevance"}:
        found = pointing(evidence_maps(subject, test.images, targets, method), test.regions)
        assert found.hits.mean() >= 0.95, method
        assert np.nanmean(found.shares) > 5 * found.areas.mean(), method
