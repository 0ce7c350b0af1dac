"""Token merging: fewer tokens at inference, with the same weights.

Bolya et al. 2023, "Token Merging: Your ViT But Faster". Patches that look alike, by their keys, become one token, their
weighted mean; attention counts a merged token as many times as the patches it stands for.

Shapes: B images, N tokens, D embed_dim, H heads, K head_dim
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from vitrail.models.vit import Block


def encode_merging(blocks: Iterable[Block], tokens: Tensor, num_merged: int, num_prefix: int) -> tuple[Tensor, Tensor]:
    """The output of all blocks with `num_merged` tokens fewer after each one's attention, and the tokens' weights.

    (B, N, D) -> (B, M, D), and (B, M, 1) patches that each token stands for. The `num_prefix` first tokens are never
    merged; of the others at most half are in one block.
    """
    weights = tokens.new_ones(tokens.shape[0], tokens.shape[1], 1)
    for block in blocks:
        query, key, value = block.attn.split(block.norm1(tokens))
        heads = block.attn.mix(query, key, value, weights.log()[:, None, :, 0][:, :, None])  # (B, 1, 1, N) on scores
        tokens = tokens + block.drop_path1(block.ls1(block.attn.join(heads)))
        tokens, weights = merge_tokens(tokens, weights, key.mean(dim=1), num_merged, num_prefix)
        tokens = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
    return tokens, weights


def merge_tokens(
    tokens: Tensor, weights: Tensor, keys: Tensor, num_merged: int, num_prefix: int
) -> tuple[Tensor, Tensor]:
    """Tokens (B, N, D) and weights (B, N, 1) with the `num_merged` most alike pairs joined.

    Every second patch may join the most similar one of the others, by the cosine of their keys (B, N, K); the pairs
    most alike do. Section 3, "Bipartite soft matching".
    """
    num_patches = tokens.shape[1] - num_prefix
    num_merged = min(num_merged, num_patches // 2)
    if num_merged < 1:
        return tokens, weights
    prefix, patches = tokens[:, :num_prefix], tokens[:, num_prefix:] * weights[:, num_prefix:]
    likeness = F.normalize(keys[:, num_prefix:], dim=-1)
    likeness = likeness[:, ::2] @ likeness[:, 1::2].transpose(1, 2)  # (B, N/2, N/2)
    best, partner = likeness.max(dim=2)
    order = best.argsort(dim=1, descending=True)
    joining, staying = order[:, :num_merged, None], order[:, num_merged:, None]
    target = partner[..., None].gather(1, joining)  # (B, num_merged, 1)

    def joined(values: Tensor) -> Tensor:
        movers, others = values[:, ::2], values[:, 1::2]
        width = (-1, -1, values.shape[2])
        kept = movers.gather(1, staying.expand(width))
        others = others.scatter_add(1, target.expand(width), movers.gather(1, joining.expand(width)))
        return torch.cat([kept, others], dim=1)

    sums, patch_weights = joined(patches), joined(weights[:, num_prefix:])
    return torch.cat([prefix, sums / patch_weights], dim=1), torch.cat([weights[:, :num_prefix], patch_weights], dim=1)
