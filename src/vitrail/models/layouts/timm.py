"""timm's names, which are ours but for a few; what timm's config.json says of a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vitrail.errors import CheckpointError

# An activation of torch or timm, by the name of its class -> ours.
_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "GELUTanhFast": "gelu_tanh", "ReLU": "relu", "SiLU": "silu"}


def recognises(names: Iterable[str]) -> bool:
    """Whether tensors are named as in timm's VisionTransformer or Eva."""
    names = set(names)
    return "patch_embed.proj.weight" in names and any(name.startswith("blocks.0.") for name in names)


def import_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of timm's VisionTransformer, VisionTransformerDistilled and Eva (DINOv3) under our names."""
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        name = re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name)
        ours[name] = tensor
    return ours


def describe(described: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that shapes do not tell, from the config.json of a timm model on the hub.

    timm itself builds the `architecture` with its `model_args`, without memory; what it built is read.
    Raises CheckpointError for an architecture that timm does not know, or that is no Vision Transformer of ours.
    """
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    name, pretrained = str(described["architecture"]), dict(described.get("pretrained_cfg") or {})
    arguments = {key: value for key, value in dict(described.get("model_args") or {}).items() if key != "num_classes"}
    if not timm.is_model(name):
        raise CheckpointError(f"timm {timm.__version__} has no model {name!r}; a newer timm may have it")
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, **arguments)
    if not isinstance(model, VisionTransformer | Eva):
        raise CheckpointError(f"{name} is a {type(model).__name__} and no Vision Transformer; use it as timm:{name}")
    size = tuple(model.patch_embed.img_size)
    if "img_size" not in arguments and "input_size" in pretrained:
        size = tuple(pretrained["input_size"][1:])
    block = model.blocks[0]
    settings: dict[str, Any] = {
        "num_heads": block.attn.num_heads,
        "norm_eps": block.norm1.eps,
        "global_pool": described.get("global_pool") or model.global_pool,
        "no_embed_class": model.no_embed_class,
        "image_size": size,
    }
    settings |= {key: tuple(pretrained[key]) for key in ("mean", "std") if key in pretrained}
    if hasattr(block.mlp, "act"):
        settings["act_layer"] = _ACTIVATIONS[type(block.mlp.act).__name__]
    return settings
