import torch

from vitrail.models import build_model, count_parameters
from vitrail.recipes.photos import photos


def test_photos_is_small_and_for_square_colour_images() -> None:
    config = photos()
    assert count_parameters(config.model) == 245_002
    assert (config.model.image_size, config.model.in_chans, config.data.fit) == ((64, 64), 3, "pad")
    assert (config.training.epochs, config.training.batch_size, config.training.optimizer) == (115, 64, "muon")
    assert config.training.time_seconds is None


def test_photographs_are_moved_mirrored_recoloured_and_mixed() -> None:
    augment = photos().data.augment
    assert augment.moves
    assert augment.flip_rate == 0.5
    assert augment.color_jitter > 0
    assert augment.mixes


def test_its_model_takes_photographs() -> None:
    config = photos().model
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    assert build_model(config)(images).shape == (2, config.num_classes)


def test_mean_and_deviation_are_measured() -> None:
    assert photos().model.mean is photos().model.std is None
