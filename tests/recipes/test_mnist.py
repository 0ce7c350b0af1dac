import pytest

from vitrail.config import RunConfig
from vitrail.data.augment import AugmentConfig
from vitrail.models import count_parameters
from vitrail.recipes.mnist import mnist, s2_shallow_vit_mnist, s5_vit_mnist, s5_wide_heads_vit_mnist

PUBLISHED = [s2_shallow_vit_mnist(), s5_wide_heads_vit_mnist(), s5_vit_mnist()]


@pytest.mark.parametrize(
    ("config", "parameters", "epochs"),
    [(mnist(), 207_498, 4), (PUBLISHED[0], 40_394, 20), (PUBLISHED[1], 613_710, 5), (PUBLISHED[2], 371_910, 5)],
    ids=lambda value: value.recipe if isinstance(value, RunConfig) else str(value),
)
def test_size_and_length(config: RunConfig, parameters: int, epochs: int) -> None:
    assert count_parameters(config.model) == parameters
    assert config.training.epochs == epochs
    assert config.training.batch_size == 64
    assert (config.model.image_size, config.model.in_chans, config.model.num_classes) == ((28, 28), 1, 10)
    assert config.data.source == "mnist"


@pytest.mark.parametrize("config", PUBLISHED, ids=lambda config: config.recipe)
def test_published_systems_train_with_adam_at_a_constant_rate_and_nothing_else(config: RunConfig) -> None:
    training = config.training
    assert (training.optimizer, training.learning_rate, training.schedule) == ("adam", 3e-4, "constant")
    assert (training.warmup_rate, training.weight_decay, training.label_smoothing, training.ema_decay) == (0, 0, 0, 0)
    assert training.clip_norm is training.early_stop_epochs is None
    assert training.betas == (0.9, 0.999)
    assert config.data.augment == AugmentConfig()
    assert (config.model.mean, config.model.std) == ((0.5,), (0.5,))


@pytest.mark.parametrize("config", PUBLISHED, ids=lambda config: config.recipe)
def test_published_systems_read_a_class_token_and_know_positions(config: RunConfig) -> None:
    assert (config.model.class_token, config.model.global_pool, config.model.pos_embed) == (True, "token", "learn")
    assert (config.model.stem, config.model.patch_size, config.model.depth) == ("linear", (7, 7), 3)


def test_the_shallow_vit_is_the_published_one() -> None:
    model = s2_shallow_vit_mnist().model
    assert (model.embed_dim, model.num_heads, model.head_dim, model.mlp_ratio) == (32, 4, None, 4)
    assert (model.act_layer, model.qkv_bias) == ("relu", False)


def test_the_heads_of_the_wide_one_are_as_wide_as_the_model() -> None:
    model = s5_wide_heads_vit_mnist().model
    assert (model.embed_dim, model.num_heads, model.head_dim) == (100, 3, 100)
    assert (model.act_layer, model.pos_embed_std) == ("relu", 0)


def test_the_plain_one_has_two_heads_and_gelu() -> None:
    model = s5_vit_mnist().model
    assert (model.embed_dim, model.num_heads, model.head_dim, model.act_layer) == (100, 2, None, "gelu")


def test_digits_are_not_mirrored() -> None:
    augment = mnist().data.augment
    assert augment.moves
    assert augment.flip_rate == 0
