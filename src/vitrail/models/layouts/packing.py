"""What several libraries keep apart and we keep in one tensor: query, key and value; gate and value; class position.

Shapes: D embed_dim
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with `q_proj`, `k_proj`, `v_proj` packed as `qkv`, and `fc1_g`, `fc1_x` (gate and value) as `fc1`.

    A bias that only some of query, key and value have is zero for the others.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        match = re.fullmatch(r"(.*\.)(?:[qkv]_proj|fc1_[gx])\.(weight|bias)", name)
        if match is None:
            packed[name] = tensor
            continue
        stem, kind = match.groups()
        target, parts = ("fc1", ("fc1_g", "fc1_x")) if ".fc1_" in name else ("qkv", ("q_proj", "k_proj", "v_proj"))
        together = [weights.get(f"{stem}{part}.{kind}") for part in parts]
        if kind == "bias":
            together = [torch.zeros_like(tensor) if part is None else part for part in together]
        if all(part is not None for part in together):
            packed[f"{stem}{target}.{kind}"] = torch.cat([part for part in together if part is not None])
        else:  # half of it lacks, which is told where names are checked
            packed[name] = tensor
    return packed


def split_qkv(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with each `qkv` as `q_proj`, `k_proj` and `v_proj`."""
    split: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if ".attn.qkv." not in name:
            split[name] = tensor
            continue
        for part, values in zip("qkv", tensor.chunk(3), strict=True):
            split[name.replace(".qkv.", f".{part}_proj.")] = values
    return split


def fold_class_position(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in which the position embedding of the class token, the first one, is part of the token itself.

    That is the same model; registers, which have no position, can then stand between class token and patches.
    """
    position, patches = weights["pos_embed"][:, :1], weights["pos_embed"][:, 1:]
    return {**weights, "cls_token": weights["cls_token"] + position, "pos_embed": patches}


def fold_prefix_positions(weights: Mapping[str, Tensor], num_patches: int) -> dict[str, Tensor]:
    """Weights in which positions of class token, distillation token and registers are part of the tokens themselves."""
    positions = weights["pos_embed"]
    folded, start = dict(weights), 0
    num_prefix = positions.shape[1] - num_patches
    for name in ("cls_token", "dist_token", "reg_token"):
        if num_prefix and name in weights:
            count = weights[name].shape[1]
            folded[name] = weights[name] + positions[:, start : start + count]
            start += count
    folded["pos_embed"] = positions[:, num_prefix:]
    return folded


def unfold_positions(weights: Mapping[str, Tensor], num_prefix: int) -> dict[str, Tensor]:
    """Weights with position embeddings of zeros for so many prefix tokens, in front of those of the patches."""
    positions = weights["pos_embed"]
    prefix = positions.new_zeros(1, num_prefix, positions.shape[2])
    return {**weights, "pos_embed": torch.cat([prefix, positions], dim=1)}


def fill_biases(weights: Mapping[str, Tensor], *layers: str) -> dict[str, Tensor]:
    """Weights with biases of zeros for the `layers`, such as "mlp.fc1", of each block that has none."""
    filled = dict(weights)
    for name, tensor in weights.items():
        if name.endswith(tuple(f".{layer}.weight" for layer in layers)):
            filled.setdefault(name.removesuffix("weight") + "bias", tensor.new_zeros(len(tensor)))
    return filled
