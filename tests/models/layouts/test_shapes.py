from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.models import build_model, model_config
from vitrail.models.layouts.shapes import complete, settings_from_shapes
from vitrail.models.vit_config import ViTConfig


def on_meta(config: ViTConfig) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(build_model(config).state_dict())


def told(config: ViTConfig) -> ViTConfig:
    weights = on_meta(config)
    return ViTConfig.model_validate(complete(settings_from_shapes(weights), weights))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"patch_size": 32, "image_size": 384, "in_chans": 1, "num_classes": 7},
        {"global_pool": "avg"},
        {"global_pool": "avg", "class_token": False, "fc_norm": False},
        {"global_pool": "map"},
        {"global_pool": "token_avg"},
        {"distilled": True},
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
        {"mlp_layer": "swiglu", "qk_norm": True, "patch_norm": True},
        {"qkv_bias": False, "proj_bias": False, "mlp_bias": False},
        {"pos_embed": "none"},
    ],
)
def test_shapes_tell_the_model(changed: dict[str, Any]) -> None:
    config = model_config("vit_tiny_patch16_224", depth=2, **changed)
    assert told(config) == config


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 6).map(lambda heads: 64 * heads), st.floats(0.2, 8))
def test_the_hidden_width_is_never_one_less(dim: int, ratio: float) -> None:
    config = ViTConfig.model_validate({"embed_dim": dim, "num_heads": 1, "depth": 1, "mlp_ratio": ratio})
    hidden = on_meta(config)["blocks.0.mlp.fc2.weight"].shape
    assert on_meta(told(config))["blocks.0.mlp.fc2.weight"].shape == hidden


def test_an_image_size_that_is_told_counts_where_it_fits() -> None:
    config = model_config("vit_tiny_patch16_224", depth=1, image_size=(112, 448))
    weights = on_meta(config)
    found = settings_from_shapes(weights)
    assert complete({**found, "image_size": (112, 448)}, weights)["image_size"] == (112, 448)
    assert complete({**found, "image_size": (224, 448)}, weights)["image_size"] == (224, 224)


def test_heads_that_nothing_tells_are_asked_for() -> None:
    config = ViTConfig.model_validate({"embed_dim": 96, "num_heads": 3, "depth": 1})
    weights = on_meta(config)
    with pytest.raises(
        CheckpointError, match=r"of embed_dim 96, do not tell how many attention heads they are for; name"
    ):
        complete(settings_from_shapes(weights), weights)
    assert complete({**settings_from_shapes(weights), "num_heads": 3}, weights)["head_dim"] is None
