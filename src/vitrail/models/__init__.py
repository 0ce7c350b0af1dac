"""Models: tensors in, logits out. `catalog.py` names them; `create_model` builds one by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from vitrail.errors import ConfigError, from_validation, suggest
from vitrail.models.catalog import MODELS

if TYPE_CHECKING:
    from torch import nn

    from vitrail.models.families import AnyModelConfig


def model_config(name: str, **settings: Any) -> AnyModelConfig:
    """The config of the model called `name`, with `settings` changed; `timm:<name>` is any backbone of timm.

    Raises ConfigError for an unknown name (with the nearest valid one) and for settings that do not fit together.
    """
    from vitrail.models.families import FAMILIES

    named = _named_settings(name)
    config = FAMILIES[named.get("kind", "vit")].config
    unknown = [key for key in settings if key not in config.model_fields]
    if unknown:
        raise ConfigError(
            f"No model setting named {unknown[0]!r}.{suggest(unknown[0], config.model_fields)} "
            "`vitrail recipes NAME` lists them under model"
        )
    try:
        return cast("AnyModelConfig", config.model_validate({**named, **settings}))
    except ValidationError as error:
        raise from_validation(error) from None


def _named_settings(name: str) -> dict[str, Any]:
    prefix, colon, backbone = name.partition(":")
    if colon and prefix == "timm":
        from vitrail.models.cnn import timm_settings

        return timm_settings(backbone)
    if name not in MODELS:
        raise ConfigError(f"No model named {name!r}.{suggest(name, MODELS)} `vitrail models` lists them")
    return MODELS[name]


def build_model(config: AnyModelConfig) -> nn.Module:
    """The untrained module that a config describes; its weights come from torch's global generator."""
    from vitrail.models.families import FAMILIES

    return FAMILIES[config.kind].module(config)


def count_parameters(config: AnyModelConfig) -> int:
    """Parameters of the model that a config describes, without giving it any memory."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(config).parameters())


def count_operations(config: AnyModelConfig) -> int:
    """Multiply-adds of a forward pass of one image, counted as it runs on a device without memory.

    The field's tables call a thousand million of them a GFLOP.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), counter:
        model = build_model(config).eval().requires_grad_(False)  # the counter is at a loss with views of parameters
        model(torch.zeros(1, config.input_channels, *config.image_size))
    return counter.get_total_flops() // 2


def create_model(name: str, **settings: Any) -> nn.Module:
    """An untrained model by name, `settings` changed: `create_model("vit_tiny_patch16_224", num_classes=10)`.

    Takes (B, C, rows, columns) uint8 in 0..255 or float in 0..1 and gives logits (B, num_classes).
    Raises ConfigError for an unknown name or settings that do not fit together.
    """
    return build_model(model_config(name, **settings))
