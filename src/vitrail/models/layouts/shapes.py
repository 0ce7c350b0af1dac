"""What the shapes of weights under our names tell of the Vision Transformer that they belong to.

Shapes: D embed_dim, C channels, K head_dim
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.errors import CheckpointError

USUAL_HEAD_DIM = 64  # of every size in the ViT, DeiT and DINOv2 papers but the three largest


def settings_from_shapes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of a ViTConfig that weights under our names tell, for square images where nothing else is known.

    The number of heads is not among them: `num_heads` is a guess, heads of 64 channels as in the papers.
    Raises CheckpointError for a tensor without which nothing can be told.
    """
    needed = (
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.weight",
    )
    for name, ndim in zip(needed, (4, 2, 2, 2), strict=True):
        if name not in weights:
            raise CheckpointError(
                f"The weights lack {name}, so the sizes of their model are unknown; the file is incomplete"
            )
        if weights[name].ndim != ndim:
            raise CheckpointError(
                f"{name} has shape {tuple(weights[name].shape)}, which is not one of a Vision Transformer"
            )
    dim, in_chans, *patch_size = weights["patch_embed.proj.weight"].shape
    hidden_dim = weights["blocks.0.mlp.fc2.weight"].shape[1]
    settings: dict[str, Any] = {
        "patch_size": tuple(patch_size),
        "in_chans": in_chans,
        "patch_norm": "patch_embed.pre_norm.weight" in weights,
        "embed_dim": dim,
        "depth": 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
        "num_heads": max(1, weights["blocks.0.attn.qkv.weight"].shape[0] // (3 * USUAL_HEAD_DIM)),
        "mlp_ratio": _ratio(hidden_dim, dim),
        "mlp_layer": "swiglu" if weights["blocks.0.mlp.fc1.weight"].shape[0] == 2 * hidden_dim else "mlp",
        "qkv_bias": "blocks.0.attn.qkv.bias" in weights,
        "proj_bias": "blocks.0.attn.proj.bias" in weights,
        "mlp_bias": "blocks.0.mlp.fc1.bias" in weights,
        "class_token": "cls_token" in weights,
        "distilled": "dist_token" in weights,
        "reg_tokens": weights["reg_token"].shape[1] if "reg_token" in weights else 0,
        "qk_norm": "blocks.0.attn.q_norm.weight" in weights,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in weights else None,
        "pos_embed": "learn" if "pos_embed" in weights else "none",
        "global_pool": _pool(weights, dim),
    }
    if weights["blocks.0.attn.qkv.weight"].shape[0] != 3 * dim:
        settings["head_dim"] = weights["blocks.0.attn.qkv.weight"].shape[0] // (3 * settings["num_heads"])
    if "head.weight" in weights:
        settings["num_classes"] = weights["head.weight"].shape[0]
    return settings


def _ratio(hidden_dim: int, dim: int) -> float:
    """The mlp_ratio of a hidden width: the smallest one that is not rounded to one less."""
    ratio = hidden_dim / dim
    return ratio if int(dim * ratio) == hidden_dim else math.nextafter(ratio, math.inf)


def _pool(weights: Mapping[str, Tensor], dim: int) -> str:
    if "attn_pool.latent" in weights:
        return "map"
    if "head.weight" in weights and weights["head.weight"].shape[1] == 2 * dim:
        return "token_avg"
    return "avg" if "fc_norm.weight" in weights or "cls_token" not in weights else "token"


def complete(settings: dict[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """`settings` with those that follow from others and the weights: image size, class position, place of the norm."""
    has_fc_norm = "fc_norm.weight" in weights
    settings["fc_norm"] = None if has_fc_norm == (settings["global_pool"] == "avg") else has_fc_norm
    patch_rows, patch_columns = settings["patch_size"]
    if settings["pos_embed"] != "learn":
        usual = (224 // patch_rows * patch_rows or patch_rows, 224 // patch_columns * patch_columns or patch_columns)
        settings.setdefault("image_size", usual)
        return settings
    num_positions = weights["pos_embed"].shape[-2]
    num_prefix = settings["class_token"] + settings["distilled"] + settings["reg_tokens"]
    if "image_size" in settings:
        rows, columns = settings["image_size"]
        num_patches = (rows // patch_rows) * (columns // patch_columns)
        if num_positions in (num_patches, num_patches + num_prefix):
            settings["no_embed_class"] = num_prefix > 0 and num_positions == num_patches
            return settings
    for without_class in (settings.get("no_embed_class", False), not settings.get("no_embed_class", False)):
        num_patches = num_positions - (0 if without_class else num_prefix)
        side = math.isqrt(max(num_patches, 0))
        if side and side * side == num_patches:
            settings["no_embed_class"] = without_class and num_prefix > 0
            settings["image_size"] = (side * patch_rows, side * patch_columns)
            return settings
    raise CheckpointError(
        f"{num_positions} position embeddings are not those of a square grid of patches; give the model they are for, with its image_size"
    )
