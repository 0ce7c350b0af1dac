"""Small models whose parameters are all drawn anew, and images for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.models.vit import VisionTransformer
from vitrail.models.vit_config import ViTConfig


@pytest.fixture(scope="session")
def images() -> Callable[..., Tensor]:
    """`images(2, 3, 12, 12, seed=0)`: that many random images, float in 0..1, equal for equal seeds."""

    def draw(*shape: int, seed: int = 0) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed))

    return draw


@pytest.fixture(scope="session")
def scrambled() -> Callable[..., Any]:
    """`scrambled(model)`: every parameter drawn anew, so that no bias is zero, no scale one, no attention even."""

    def draw(model: nn.Module, seed: int = 1) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            parameter.data.normal_(mean=float(is_scale), std=0.3, generator=generator)
        return model.eval()

    return draw


@pytest.fixture(scope="session")
def tiny_vit(scrambled: Callable[..., Any]) -> Callable[..., VisionTransformer]:
    """`tiny_vit(depth=3)`: a scrambled ViT for images of 12x12 RGB in 9 patches, evaluated, with settings changed."""

    def build(**settings: Any) -> VisionTransformer:
        sizes = {"image_size": 12, "patch_size": 4, "num_classes": 5, "embed_dim": 24, "depth": 2, "num_heads": 3}
        return scrambled(VisionTransformer(ViTConfig.model_validate({**sizes, **settings})))

    return build
