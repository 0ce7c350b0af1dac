"""Models of other libraries with weights that tell any mistake, and ours with the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.models import build_model
from vitrail.models.weights import HEADS, Imported, import_weights, load_weights

Scramble = Callable[[nn.Module], nn.Module]
Logits = Callable[..., tuple[Tensor, Imported]]


@pytest.fixture
def scramble() -> Scramble:
    """Draws every parameter anew, so that no bias is zero, no scale one, and attention far from even."""

    def draw(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            parameter.data.normal_(mean=float(is_scale), std=0.3, generator=generator)
        return model.eval()

    return draw


@pytest.fixture
def our_logits() -> Logits:
    """Imports weights, and gives our model's logits of images 0..1 with what was imported."""

    def compute(
        images: Tensor, weights: Mapping[str, Tensor], described: dict[str, Any] | None = None, config: Any = None
    ) -> tuple[Tensor, Imported]:
        imported = import_weights(weights, described, config)
        model = build_model(imported.config).eval()
        load_weights(model, imported.weights, () if "head.weight" in imported.weights else HEADS)
        with torch.inference_mode():
            return model(images), imported

    return compute


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """Random images of a shape, 0..1."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(0))

    return draw
