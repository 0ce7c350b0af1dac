import re

import pytest
import torch
from torch import nn

from vitrail.errors import ConfigError
from vitrail.models import build_model, count_operations, count_parameters, create_model, model_config
from vitrail.models.vit import VisionTransformer


def test_counting_takes_no_memory_and_no_random_numbers() -> None:
    state = torch.get_rng_state()
    huge = model_config("vit_large_patch16_224", embed_dim=65_536, depth=100)
    assert count_parameters(huge) > 5 * 10**12
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "name", ["vit_micro_conv4_8", "vit_micro_conv8_28", "vit_micro_conv16_64", "s2_shallow_vit", "s5_wide_heads_vit"]
)
def test_the_count_is_that_of_the_model(name: str) -> None:
    model, config = create_model(name), model_config(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(config)
    assert model(torch.zeros(2, config.in_chans, *config.image_size, dtype=torch.uint8)).shape == (2, 10)


def test_settings_change_a_model() -> None:
    model = create_model("vit_tiny_patch16_224", num_classes=7, depth=1, image_size=32)
    assert isinstance(model, VisionTransformer)
    assert model.config == model_config("vit_tiny_patch16_224", num_classes=7, depth=1, image_size=(32, 32))
    assert isinstance(model.head, nn.Linear)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_creating_is_building_the_config() -> None:
    torch.manual_seed(0)
    created = create_model("s2_shallow_vit").state_dict()
    torch.manual_seed(0)
    built = build_model(model_config("s2_shallow_vit")).state_dict()
    assert created.keys() == built.keys()
    assert all(torch.equal(created[key], built[key]) for key in created)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vit_tniy",
            "No model named 'vit_tniy'. Did you mean 'vit_tiny_patch16_224'? `vitrail models` lists them",
        ),
        ("ViT_Base_Patch16_224", "Did you mean 'vit_base_patch16_224'?"),
        ("perceiver", "No model named 'perceiver'. `vitrail models` lists them"),
        ("", "No model named ''. `vitrail models` lists them"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        create_model(name)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    message = (
        "No model setting named 'embed_dims'. Did you mean 'embed_dim'? `vitrail recipes NAME` lists them under model"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        create_model("s5_vit", embed_dims=64)


def multiply_adds(tokens: int, queries: int, dim: int, hidden_dim: int) -> int:
    """Of one block: keys and values, queries, scores and mixtures, projection, MLP."""
    return 2 * tokens * dim**2 + queries * (dim**2 + 2 * tokens * dim + dim**2 + 2 * dim * hidden_dim)


@pytest.mark.parametrize(
    ("pool", "last"),
    [
        ("avg", multiply_adds(50, 50, 192, 768)),
        # The class token's last block: four products of one token with 192x192 weights, its MLP, and scores and
        # mixtures of all tokens at full width for each of three heads; no key or value.
        ("token", 4 * 192**2 + 2 * 192 * 768 + 2 * 3 * 50 * 192),
    ],
)
def test_operations_are_counted_as_by_hand(pool: str, last: int) -> None:
    config = model_config("vit_tiny_patch16_224", image_size=112, global_pool=pool, depth=3)
    expected = 49 * 16 * 16 * 3 * 192 + 192 * 1000
    expected += 2 * multiply_adds(50, 50, 192, 768) + last
    assert count_operations(config) == pytest.approx(expected, rel=1e-6)


def test_vit_base_has_the_published_number_of_operations() -> None:
    assert count_operations(model_config("vit_base_patch16_224", global_pool="avg")) / 1e9 == pytest.approx(17.56, 0.01)


def test_counting_operations_draws_no_random_numbers() -> None:
    state = torch.get_rng_state()
    count_operations(model_config("s5_vit"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "published"), [("pit_ti_224", 0.71), ("cait_xxs24_224", 2.53)])
def test_operations_of_backbones_that_add_to_a_parameter(name: str, published: float) -> None:
    """Their tokens are no batch's own: the counter took them for an error. The tables are timm's, of GMACs."""
    assert count_operations(model_config(f"timm:{name}")) / 1e9 == pytest.approx(published, rel=0.02)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^depth=0 is not possible; use a number greater than 0$"):
        create_model("s5_vit", depth=0)
