"""Models of ours in folders that other libraries load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.checkpoint import ModelCard
from vitrail.data.preprocess import Preprocess
from vitrail.models import build_model
from vitrail.models.vit_config import ViTConfig

TINY: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "num_classes": 3,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2,
    "mean": (0.4, 0.5, 0.6),
    "std": (0.2, 0.3, 0.4),
}

Made = Callable[..., tuple[nn.Module, ModelCard]]


@pytest.fixture
def made() -> Made:
    """`made(**settings)`: a small model with every weight drawn anew, and its card."""

    def make(fit: str = "squash", crop_rate: float = 1.0, **settings: Any) -> tuple[nn.Module, ModelCard]:
        config = ViTConfig.model_validate({**TINY, **settings})
        generator = torch.Generator().manual_seed(1)
        model = build_model(config).eval()
        for name, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            parameter.data.normal_(mean=float(is_scale), std=0.3, generator=generator)
        preprocess = Preprocess.model_validate(
            {"image_size": config.image_size, "channels": config.in_chans, "fit": fit, "crop_rate": crop_rate}
        )
        classes = ("cat", "dog", "späteř")
        return model, ModelCard(model_name="tiny", model=config, classes=classes, preprocess=preprocess)

    return make


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """Random images of a shape, uint8."""

    def draw(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))

    return draw
