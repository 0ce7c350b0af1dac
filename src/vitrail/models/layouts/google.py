"""The names of Google's vision_transformer and big_vision, as in their .npz files of Flax weights.

Kernels are (in, out), of convolutions (rows, columns, in, out), of attention (D, H, K) and (H, K, D).

Shapes: D embed_dim, H heads, K head_dim
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.models.layouts.packing import pack

_ROOTS = ("opt/target/", "params/img/", "params/")  # what may stand in front of all names, the longest first
_SCANNED = "Transformer/encoderblock/"  # big_vision may keep all blocks in one tensor
_HALF = (0.5, 0.5, 0.5)  # mean and deviation of all of them

# Patterns of its names -> ours, in this order; numbers within a block differ between the two repositories.
_NAMES = (
    (r"^cls$", "cls_token"),
    (r"^(Transformer/posembed_input/)?pos_embedding$", "pos_embed"),
    (r"^embedding/", "patch_embed.proj."),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^head/", "head."),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"LayerNorm_0/", "norm1."),
    (r"LayerNorm_[12]/", "norm2."),
    (r"MultiHeadDotProductAttention_\d/(q)uery/", r"attn.q_proj."),
    (r"MultiHeadDotProductAttention_\d/(k)ey/", r"attn.k_proj."),
    (r"MultiHeadDotProductAttention_\d/(v)alue/", r"attn.v_proj."),
    (r"MultiHeadDotProductAttention_\d/out/", "attn.proj."),
    (r"MlpBlock_\d/Dense_0/", "mlp.fc1."),
    (r"MlpBlock_\d/Dense_1/", "mlp.fc2."),
    (r"\.(kernel|scale)$", ".weight"),
)


def recognises(names: Iterable[str]) -> bool:
    """Whether tensors are named as in Google's .npz files of Vision Transformers."""
    names = set(names)
    return any(f"{root}embedding/kernel" in names for root in ("", *_ROOTS)) and any(
        "Transformer/encoderblock" in name for name in names
    )


def _flat(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by their names without root, one tensor for each block."""
    root = next((root for root in _ROOTS if f"{root}embedding/kernel" in weights), "")
    flat: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if not name.startswith(root) or (not root and name.startswith("opt/")):
            continue  # a training's state beside its weights
        name = name.removeprefix(root)
        if name.startswith(_SCANNED):
            inner = name.removeprefix(_SCANNED)
            flat |= {f"Transformer/encoderblock_{index}/{inner}": part for index, part in enumerate(tensor)}
        else:
            flat[name] = tensor
    return flat


def import_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of Google's Vision Transformers under our names.

    A head behind a layer `pre_logits` is left out with it: models fine-tuned on classes have no such layer.
    """
    ours: dict[str, Tensor] = {}
    flat = _flat(weights)
    has_pre_logits = any(name.startswith("pre_logits/") for name in flat)
    for name, tensor in flat.items():
        if has_pre_logits and name.startswith(("pre_logits/", "head/")):
            continue
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        ours[name] = _turned(name, tensor)
    return pack(ours)


def _turned(name: str, tensor: Tensor) -> Tensor:
    """A tensor in our order of axes, named as ours."""
    if name.endswith("_proj.weight"):
        turned = tensor.flatten(1).T
    elif name.endswith("_proj.bias"):
        turned = tensor.flatten()
    elif name.endswith("attn.proj.weight"):
        turned = tensor.flatten(0, -2).T
    elif name == "patch_embed.proj.weight" and tensor.ndim == 4:
        turned = tensor.permute(3, 2, 0, 1)
    elif name == "pos_embed" and tensor.ndim == 2:
        turned = tensor[None]
    elif name.endswith(".weight") and tensor.ndim == 2:
        turned = tensor.T
    else:
        turned = tensor
    return turned.contiguous()


def describe(weights: Mapping[str, Tensor], described: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings that our shapes do not tell: the number of heads is in the shape of a kernel (D, H, K)."""
    flat = _flat(weights)
    kernels = [tensor for name, tensor in flat.items() if name.endswith("/query/kernel")]
    if not kernels or kernels[0].ndim != 3:
        raise CheckpointError("The weights have no kernels of attention heads, (D, H, K); the file is incomplete")
    settings: dict[str, Any] = {"num_heads": kernels[0].shape[1]}
    return settings | ({"mean": _HALF, "std": _HALF} if flat["embedding/kernel"].shape[-2] == 3 else {})
