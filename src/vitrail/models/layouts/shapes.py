"""What the shapes of weights under our names tell of the Vision Transformer that they belong to.

Shapes: D embed_dim, C channels
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.errors import CheckpointError

USUAL_HEAD_DIM = 64  # of every size in the ViT, DeiT and DINOv2 papers but the largest
_PROJECTION, _QKV, _FC1, _FC2 = (
    "patch_embed.proj.weight",
    "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.fc1.weight",
    "blocks.0.mlp.fc2.weight",
)


def settings_from_shapes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of a ViTConfig that weights under our names tell.

    The number of heads is not among them. Raises CheckpointError if a tensor that is needed for this lacks, or is odd.
    """
    for name, ndim in ((_PROJECTION, 4), (_QKV, 2), (_FC1, 2), (_FC2, 2)):
        if name not in weights:
            raise CheckpointError(f"The weights lack {name}, so their model is unknown; the file is incomplete")
        if weights[name].ndim != ndim or not weights[name].numel():
            raise CheckpointError(f"{name} of shape {tuple(weights[name].shape)} is of no Vision Transformer")
    dim, in_chans, *patch_size = weights[_PROJECTION].shape
    hidden_dim = weights[_FC2].shape[1]
    settings: dict[str, Any] = {
        "patch_size": tuple(patch_size),
        "in_chans": in_chans,
        "patch_norm": "patch_embed.pre_norm.weight" in weights,
        "embed_dim": dim,
        "depth": len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        "mlp_ratio": _ratio(hidden_dim, dim),
        "mlp_layer": "swiglu" if weights[_FC1].shape[0] == 2 * hidden_dim else "mlp",
        "qkv_bias": "blocks.0.attn.qkv.bias" in weights,
        "proj_bias": "blocks.0.attn.proj.bias" in weights,
        "mlp_bias": "blocks.0.mlp.fc1.bias" in weights,
        "class_token": "cls_token" in weights,
        "distilled": "dist_token" in weights,
        "reg_tokens": weights["reg_token"].shape[-2] if "reg_token" in weights else 0,
        "qk_norm": "blocks.0.attn.q_norm.weight" in weights,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in weights else None,
        "pos_embed": "learn" if "pos_embed" in weights else "none",
        "global_pool": _pool(weights, dim),
    }
    if "head.weight" in weights:
        settings["num_classes"] = weights["head.weight"].shape[0]
    return settings


def _ratio(hidden_dim: int, dim: int) -> float:
    """The mlp_ratio of a hidden width, which rounding must not make one less."""
    ratio = hidden_dim / dim
    return ratio if int(dim * ratio) == hidden_dim else math.nextafter(ratio, math.inf)


def _pool(weights: Mapping[str, Tensor], dim: int) -> str:
    if "attn_pool.latent" in weights:
        return "map"
    if "head.weight" in weights and weights["head.weight"].shape[-1] == 2 * dim:
        return "token_avg"
    return "avg" if "fc_norm.weight" in weights or "cls_token" not in weights else "token"


def complete(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """`settings` with those that follow from others: heads, place of the norm, image size, class position.

    Where `num_heads` is not among them, heads have 64 channels, as in the papers. An `image_size` that does not fit the
    position embeddings gives way to a square one. Raises CheckpointError where there are no such heads or squares.
    """
    done = dict(settings)
    inner = weights[_QKV].shape[0] // 3
    if "num_heads" not in done:
        if inner % USUAL_HEAD_DIM:
            raise CheckpointError(
                f"The weights, of embed_dim {done['embed_dim']}, do not tell how many attention heads they are for; "
                "name their model, or put its config.json beside them"
            )
        done["num_heads"] = inner // USUAL_HEAD_DIM
    done["head_dim"] = None if inner == done["embed_dim"] else inner // done["num_heads"]
    has_fc_norm = "fc_norm.weight" in weights
    done["fc_norm"] = None if has_fc_norm == (done["global_pool"] == "avg") else has_fc_norm
    rows, columns = done["patch_size"]
    if done["pos_embed"] != "learn":
        size = done.get("image_size", (224, 224))
        done["image_size"] = (max(size[0] // rows, 1) * rows, max(size[1] // columns, 1) * columns)
        return done
    num_positions = weights["pos_embed"].shape[-2]
    num_prefix = done["class_token"] + done["distilled"] + done["reg_tokens"]
    usual = bool(done.get("no_embed_class"))
    if "image_size" in done:
        num_patches = (done["image_size"][0] // rows) * (done["image_size"][1] // columns)
        if num_positions in (num_patches, num_patches + num_prefix):
            done["no_embed_class"] = num_prefix > 0 and num_positions == num_patches
            return done
    for no_embed_class in (usual, not usual):
        num_patches = max(num_positions - (0 if no_embed_class else num_prefix), 0)
        side = math.isqrt(num_patches)
        if side and side * side == num_patches:
            return done | {
                "no_embed_class": no_embed_class and num_prefix > 0,
                "image_size": (side * rows, side * columns),
            }
    raise CheckpointError(
        f"{num_positions} position embeddings are not those of a square grid of patches; "
        "name a model with the image_size that they are for"
    )
