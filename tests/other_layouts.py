"""Our weights as Google's and torchvision's programs name them, for files that tests read."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vitrail.models.layouts.packing import fill_biases


def to_google(weights: Mapping[str, Tensor], num_heads: int) -> dict[str, Tensor]:
    """Weights of a plain Vision Transformer, under our names, as an .npz file of vision_transformer has them."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        block = re.sub(r"^blocks\.(\d+)\.", r"Transformer/encoderblock_\1/", name)
        if name in ("cls_token", "pos_embed"):
            theirs["cls" if name == "cls_token" else "Transformer/posembed_input/pos_embedding"] = tensor
        elif ".attn.qkv." in name:
            base = block.split("attn.qkv.")[0] + "MultiHeadDotProductAttention_1/"
            for part, values in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                heads = values.unflatten(0, (num_heads, -1))
                is_bias = tensor.ndim == 1
                theirs[f"{base}{part}/{'bias' if is_bias else 'kernel'}"] = heads if is_bias else heads.permute(2, 0, 1)
        else:
            renamed, turned = _plain(block, tensor, num_heads)
            theirs[renamed] = turned
    return {name: tensor.contiguous() for name, tensor in theirs.items()}


def _plain(block: str, tensor: Tensor, num_heads: int) -> tuple[str, Tensor]:
    """The name and the tensor of a layer that needs no splitting."""
    for ours, theirs in (
        ("attn.proj.", "MultiHeadDotProductAttention_1/out/"),
        ("mlp.fc1.", "MlpBlock_3/Dense_0/"),
        ("mlp.fc2.", "MlpBlock_3/Dense_1/"),
        ("norm1.", "LayerNorm_0/"),
        ("norm2.", "LayerNorm_2/"),
        ("patch_embed.proj.", "embedding/"),
        ("head.", "head/"),
    ):
        block = block.replace(ours, theirs)
    block = re.sub(r"^norm\.", "Transformer/encoder_norm/", block)
    is_norm = "LayerNorm" in block or "encoder_norm" in block
    block = re.sub(r"weight$", "scale" if is_norm else "kernel", block)
    if tensor.ndim == 4:
        return block, tensor.permute(2, 3, 1, 0)
    if block.endswith("out/kernel"):
        return block, tensor.T.unflatten(0, (num_heads, -1))
    return block, tensor.T if tensor.ndim == 2 else tensor


def to_torchvision(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that a torchvision VisionTransformer of the same sizes loads, of plain weights under our names."""
    filled = fill_biases(weights, "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    names = (
        (r"^cls_token$", "class_token"),
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^pos_embed$", "encoder.pos_embedding"),
        (r"^norm\.", "encoder.ln."),
        (r"^head\.", "heads.head."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
        (r"\.attn\.proj\.", ".self_attention.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
        (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    )
    theirs: dict[str, Tensor] = {}
    for name, tensor in filled.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor
    return theirs
