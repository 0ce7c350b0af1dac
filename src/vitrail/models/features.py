"""What a model computes on the way to its logits, for embeddings, probes and explanations.

Shapes: B images, N tokens, D embed_dim, H heads, K head_dim
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class BlockFeatures(NamedTuple):
    """The inside of one block."""

    tokens: Tensor
    """the block's output, (B, N, D)"""
    query: Tensor
    """as it meets the keys, so normalised and turned where the model does that, (B, H, N, K)"""
    key: Tensor
    """(B, H, N, K)"""
    value: Tensor
    """(B, H, N, K)"""
    heads: Tensor
    """each head's mixture of values, before they are projected together, (B, H, N, K)"""
    normed: Tensor
    """what query, key and value are made of: the block's input after its first norm, (B, N, D)"""


class Features(NamedTuple):
    """Named intermediates of a forward pass; the same numbers as without looking."""

    blocks: tuple[BlockFeatures, ...]
    """one for each block; () for a network without attention"""
    tokens: Tensor
    """what is pooled: the encoder's output after its last norm (B, N, D), prefix tokens first; of a CNN, its maps"""
    pooled: Tensor
    """the vector that the head reads, (B, D)"""
    logits: Tensor
    """(B, num_classes)"""
    grid: tuple[int, int]
    """rows and columns of the patches among `tokens`, or of the maps"""
    num_prefix_tokens: int = 0
    """tokens in front of the patches: class token, distillation token, registers"""
    patch_mask: Tensor | None = None
    """which patches take part, bool (B, P); None where all do"""
