import re
from typing import Any

import pytest
from torch import nn

from vitrail.errors import ConfigError
from vitrail.models import model_config
from vitrail.models.vit import VisionTransformer
from vitrail.models.vit_config import ViTConfig

TINY: dict[str, Any] = {
    "image_size": 12,
    "patch_size": 4,
    "in_chans": 3,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"image_size": 30, "patch_size": 4},
            "image_size=30 is not a multiple of patch_size=4; use 28 or 32, or another patch_size",
        ),
        (
            {"image_size": (32, 27), "patch_size": (8, 7)},
            "image_size=27 is not a multiple of patch_size=7; use 21 or 28, or another patch_size",
        ),
        (
            {"image_size": 3, "patch_size": 4},
            "image_size=3 is not a multiple of patch_size=4; use 4, or another patch_size",
        ),
        (
            {"embed_dim": 24, "num_heads": 5},
            "embed_dim=24 is not a multiple of num_heads=5; change one of them, or give head_dim",
        ),
        (
            {"embed_dim": 24, "num_heads": 5, "head_dim": 6, "global_pool": "map"},
            "embed_dim=24 is not a multiple of num_heads=5, which global_pool='map' needs",
        ),
        (
            {"class_token": False},
            "global_pool='token' needs class_token=true; use global_pool='avg' or 'map' without one",
        ),
        (
            {"pos_embed": "sincos2d", "embed_dim": 18},
            "embed_dim=18 is not a multiple of 4, which pos_embed='sincos2d' needs",
        ),
        (
            {"class_token": False, "global_pool": "token_avg"},
            "global_pool='token_avg' needs class_token=true; use global_pool='avg' or 'map' without one",
        ),
        (
            {"distilled": True, "global_pool": "avg"},
            "distilled=true needs global_pool='token' and no fc_norm: its two tokens answer together",
        ),
        (
            {"distilled": True, "fc_norm": True},
            "distilled=true needs global_pool='token' and no fc_norm: its two tokens answer together",
        ),
        (
            {"pos_embed": "rope", "embed_dim": 30},
            "pos_embed='rope' needs heads of a multiple of 4, not 10; change num_heads or give head_dim",
        ),
        (
            {"pos_embed": "rope", "head_dim": 6},
            "pos_embed='rope' needs heads of a multiple of 4, not 6; change num_heads or give head_dim",
        ),
        (
            {"patch_norm": True, "stem": "conv"},
            "patch_norm=true needs stem='linear'; a convolutional stem has no patches to normalise",
        ),
        ({"patch_size": 12}, "patch_size=12x12 leaves one patch, and nothing to attend to; use a smaller patch_size"),
        (
            {"patch_size": (8, 4), "image_size": (8, 4)},
            "patch_size=8x4 leaves one patch, and nothing to attend to; use a smaller patch_size",
        ),
        ({"reg_tokens": -1}, "reg_tokens=-1 is not possible; use 0 or more"),
        ({"norm_eps": 0}, "norm_eps=0 is not possible; use a number greater than 0"),
        ({"patch_drop_rate": 1}, "patch_drop_rate=1 is not possible; use a number less than 1"),
        ({"init_values": 0.0}, "init_values=0.0 is not possible; use a number greater than 0"),
        ({"mlp_layer": "glu"}, "mlp_layer='glu' is not possible. Did you mean 'swiglu'? Use one of mlp, swiglu"),
        ({"mean": (0.5,)}, "mean=0.5 is not one value a channel for in_chans=3; give 3"),
        ({"std": (0.5, 0.25), "in_chans": 1}, "std=0.5,0.25 is not one value a channel for in_chans=1; give 1"),
        ({"std": (0.5, 0.0, 0.5)}, "std=0.0 is not possible; use a number greater than 0"),
        (
            {"stem": "conv", "patch_size": 7, "image_size": 28},
            "patch_size=7x7 is not possible with stem='conv'; use 4, 8, 16 or 32",
        ),
        ({"stem": "conv", "patch_size": (4, 8)}, "patch_size=4x8 is not possible with stem='conv'; use 4, 8, 16 or 32"),
        ({"stem": "conv", "patch_size": 2}, "patch_size=2x2 is not possible with stem='conv'; use 4, 8, 16 or 32"),
        (
            {"stem": "conv", "embed_dim": 15},
            "embed_dim=15 is odd, which stem='conv' cannot halve; use an even one",
        ),
        (
            {"mlp_ratio": 0.01},
            "mlp_ratio=0.01 leaves the MLP of embed_dim=24 no hidden layer; use a larger one",
        ),
        ({"depth": 0}, "depth=0 is not possible; use a number greater than 0"),
        ({"num_classes": -1}, "num_classes=-1 is not possible; use a number greater than 0"),
        ({"drop_rate": 1.0}, "drop_rate=1.0 is not possible; use a number less than 1"),
        ({"drop_path_rate": -0.1}, "drop_path_rate=-0.1 is not possible; use 0 or more"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio=nan is not possible; use a finite number"),
        ({"image_size": (28, 28, 1)}, "image_size=(28, 28, 1) is not possible; use 2 values"),
        ({"image_size": "large"}, "image_size='large' is not possible; use a list of values"),
        ({"global_pool": "mean"}, "global_pool='mean' is not possible. Use one of token, avg, token_avg, map"),
        (
            {"act_layer": "GELU"},
            "act_layer='GELU' is not possible. Did you mean 'gelu'? Use one of gelu, gelu_tanh, relu, silu",
        ),
        ({"kind": "cnn"}, "kind='cnn' is not possible. Use one of vit"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        model_config("vit_tiny_patch16_224", **{**TINY, **settings})


@pytest.mark.parametrize("size", [28, 28.0, [28], (28, 28), [28, 28]])
def test_one_number_is_rows_and_columns(size: Any) -> None:
    assert ViTConfig(image_size=size, patch_size=7).image_size == (28, 28)


def test_a_config_survives_json() -> None:
    config = ViTConfig(image_size=(8, 12), patch_size=(4, 3), in_chans=1, mean=(0.1,), std=(1 / 3,), head_dim=7)
    assert ViTConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("settings", "prefix", "after"),
    [
        ({}, 1, False),
        ({"global_pool": "avg"}, 1, True),
        ({"global_pool": "avg", "fc_norm": False, "class_token": False}, 0, False),
        ({"global_pool": "map", "fc_norm": True}, 1, True),
        ({"global_pool": "token_avg", "reg_tokens": 4}, 5, False),
        ({"distilled": True, "reg_tokens": 2}, 4, False),
    ],
)
def test_what_follows_from_the_choices(settings: dict[str, Any], prefix: int, after: bool) -> None:
    config = ViTConfig.model_validate({**TINY, **settings})
    assert (config.num_prefix_tokens, config.norm_after_pooling) == (prefix, after)
    model = VisionTransformer(config)
    assert model.num_prefix_tokens == prefix
    assert (isinstance(model.norm, nn.LayerNorm), isinstance(model.fc_norm, nn.LayerNorm)) == (not after, after)


def test_a_small_stem_may_leave_one_patch_of_convolutions() -> None:
    assert ViTConfig.model_validate({**TINY, "stem": "conv", "patch_size": 16}).patch_size == (16, 16)
