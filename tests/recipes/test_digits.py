from vitrail.models import count_parameters
from vitrail.recipes.digits import digits


def test_digits_is_small_and_gentle() -> None:
    config = digits()
    assert count_parameters(config.model) == 169_802
    assert (config.model.image_size, config.model.in_chans, config.model.num_classes) == ((8, 8), 1, 10)
    assert (config.training.epochs, config.training.batch_size, config.training.optimizer) == (60, 64, "muon")
    assert config.data.augment.moves
    assert config.data.augment.flip_rate == 0  # a mirrored digit is another one, or none


def test_mean_and_deviation_are_measured() -> None:
    assert digits().model.mean is digits().model.std is None
