"""Probabilities in chunks, against torch's own attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vitrail.interpretation.probabilities import Attended, probability_chunks


@pytest.mark.parametrize("mask", ["none", "keys", "bias"])
@pytest.mark.parametrize("max_scores", [1, 2 * 3 * 7 * 2, 2**22])
def test_chunks_give_what_the_kernel_used(mask, max_scores):
    numbers = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 4, generator=numbers) for _ in range(3))
    attn_mask = {
        "none": None,
        "keys": torch.tensor([True] * 5 + [False] * 2)[None, None, None].expand(2, 1, 1, 7),
        "bias": torch.randn(1, 3, 7, 7, generator=numbers),
    }[mask]
    heads = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, scale=0.3)
    chunks = list(probability_chunks(Attended(query, key, value, heads, 0.3, attn_mask), max_scores))
    assert len(chunks) == {1: 7, 84: 4, 2**22: 1}[max_scores]
    for chunk, probabilities in chunks:
        torch.testing.assert_close(probabilities.sum(dim=3), torch.ones(2, 3, probabilities.shape[2]))
        torch.testing.assert_close(probabilities @ value, heads[:, :, chunk])
