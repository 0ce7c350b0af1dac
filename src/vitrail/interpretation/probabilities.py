"""Attention probabilities, computed again from what the fused kernel was given.

Shapes: B images, N tokens, H heads, K head_dim, Q queries of a chunk
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_SCORES = 2**22  # of one chunk: 16 MiB in float32


@dataclass(frozen=True, eq=False)
class Attended:
    """One use of attention, as its kernel had it."""

    query: Tensor
    """as it meets the keys, so normalised and turned where the model does that, (B, H, N, K)"""
    key: Tensor
    """(B, H, N, K)"""
    value: Tensor
    """(B, H, N, K)"""
    heads: Tensor
    """each head's mixture of values, which gradients are taken of, (B, H, N, K)"""
    scale: float
    """what scores are multiplied by"""
    attn_mask: Tensor | None = None
    """which keys take part (bool), or what is added to scores (float), broadcast to (B, H, N, N)"""


def probability_chunks(attended: Attended, max_scores: int = MAX_SCORES) -> Iterator[tuple[slice, Tensor]]:
    """Each chunk of queries and its attention probabilities (B, H, Q, N) float32, equal to what the kernel used."""
    batch, num_heads, num_queries, _ = attended.query.shape
    query, key, mask = attended.query.detach().float(), attended.key.detach().float(), attended.attn_mask
    length = max(1, max_scores // (batch * num_heads * key.shape[2]))
    for start in range(0, num_queries, length):
        chunk = slice(start, min(start + length, num_queries))
        scores = query[:, :, chunk] @ key.transpose(2, 3) * attended.scale
        if mask is not None:
            own = mask[..., chunk, :] if mask.shape[-2] > 1 else mask
            scores = scores.masked_fill(~own, float("-inf")) if own.dtype == torch.bool else scores + own
        yield chunk, scores.softmax(dim=3)
