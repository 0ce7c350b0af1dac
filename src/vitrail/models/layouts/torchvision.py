"""torchvision's names for its VisionTransformer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for all its published weights
_HEADS = {1280: 16}  # embed_dim -> heads, where these are not of 64 channels: vit_h_14

# Patterns of its names -> ours, in this order; linear_1 and linear_2 are of weights from before torchvision 0.12.
_NAMES = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)


def recognises(names: Iterable[str]) -> bool:
    """Whether tensors are named as in torchvision's VisionTransformer."""
    return any(name.startswith("encoder.layers.encoder_layer_0.") for name in names)


def import_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's VisionTransformer under our names."""
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        ours[name] = tensor
    return ours


def describe(weights: Mapping[str, Tensor], described: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings that shapes do not tell. torchvision publishes no description."""
    projection = weights.get("conv_proj.weight")
    if projection is None or projection.ndim != 4:
        return {}
    dim, in_chans = projection.shape[:2]
    settings: dict[str, Any] = {"mean": _MEAN, "std": _STD} if in_chans == 3 else {}
    return settings | ({"num_heads": _HEADS[dim]} if dim in _HEADS else {})
