import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.config import RunConfig
from vitrail.data.augment import AugmentConfig
from vitrail.models import build_model, count_parameters
from vitrail.models.attention2d import Attention2dConfig
from vitrail.recipes.cifar10 import attention2d_cifar10, s1_attention2d_cifar10
from vitrail.training.optim import create_optimizers


def steps(config: RunConfig, number: int) -> list[Tensor]:
    """The losses of some steps on one batch, by the recipe's optimizers at their full rates."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (8,), generator=generator)
    torch.manual_seed(0)
    model = build_model(config.model).train()
    optimizers, losses = create_optimizers(model, config.training), []
    for _ in range(number):
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.detach())
    return losses


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(attention2d_cifar10(), 172_490), (s1_attention2d_cifar10(), 304_330)],
    ids=lambda value: value.recipe if isinstance(value, RunConfig) else str(value),
)
def test_size_and_data(config: RunConfig, parameters: int) -> None:
    assert count_parameters(config.model) == parameters
    assert (config.model.image_size, config.model.in_chans, config.model.num_classes) == ((32, 32), 3, 10)
    assert config.data.source == "cifar10"


def test_the_published_one_trains_as_published_and_with_nothing_else() -> None:
    config = s1_attention2d_cifar10()
    training = config.training
    assert (training.optimizer, training.learning_rate, training.momentum) == ("sgd", 0.01, 0.9)
    assert (training.batch_size, training.schedule, training.clip_norm) == (32, "constant", None)
    assert (training.warmup_rate, training.weight_decay, training.label_smoothing, training.ema_decay) == (0, 0, 0, 0)
    assert config.data.augment == AugmentConfig()
    assert (config.model.mean, config.model.std) == ((0, 0, 0), (1, 1, 1))


def test_the_published_ones_sizes_are_published_but_for_the_stem() -> None:
    model = s1_attention2d_cifar10().model
    assert isinstance(model, Attention2dConfig)
    assert (model.num_heads, model.depth, model.mlp_ratio, model.act_layer, model.bias) == (4, 6, 4, "gelu", False)
    assert (model.stem, model.patch_size, model.embed_dim, model.pos_embed) == ("linear", (4, 4), 64, "learn")


def test_photographs_are_moved_and_mirrored() -> None:
    augment = attention2d_cifar10().data.augment
    assert augment.moves
    assert augment.flip_rate == 0.5


@pytest.mark.parametrize("recipe", [attention2d_cifar10, s1_attention2d_cifar10])
def test_some_steps_learn_a_batch(recipe: object) -> None:
    losses = steps(recipe(), 15)  # type: ignore[operator]
    assert losses[0].item() == pytest.approx(2.3, abs=0.15)
    assert losses[-1] < 0.85 * losses[0]
