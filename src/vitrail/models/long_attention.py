"""Attention over so many positions that their scores would not fit: memory linear in their number.

Shapes: B images, H heads, N positions, K head_dim, G = B * H, Q queries of a chunk
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MAX_SCORES = 2**20  # of one chunk: 4 MiB in float32, which caches hold; with 2**24 chunks take 1.4 times as long


def has_fused_kernel(query: Tensor, key: Tensor, value: Tensor, dropout_rate: float = 0.0) -> bool:
    """Whether torch attends to these (B, H, N, K) without an (N, N) matrix of scores.

    On CPUs one kernel does, for any type and width of heads, but not with dropout, and not where it is switched off
    (`torch.nn.attention.sdpa_kernel`).
    """
    if query.device.type == "cuda":
        cuda = torch.backends.cuda
        params = cuda.SDPAParams(query, key, value, None, dropout_rate, False, False)
        return cuda.can_use_flash_attention(params) or cuda.can_use_efficient_attention(params)
    return query.device.type == "cpu" and dropout_rate == 0.0 and _is_flash_enabled()


@torch.compiler.assume_constant_result
def _is_flash_enabled() -> bool:
    return torch.backends.cuda.flash_sdp_enabled()  # for the CPU's kernel too, whatever its name


def attend(query: Tensor, key: Tensor, value: Tensor, dropout_rate: float = 0.0) -> Tensor:
    """Each head's mixture of values, (B, H, N, K), in memory linear in N: by torch's kernel, or in chunks of queries.

    Scores are scaled by K^-0.5. Up to MAX_SCORES of them are not worth chunks.
    """
    # Where channels are not next to each other in memory, the CPU's kernel is not taken.
    query, key, value = (part if part.stride(-1) == 1 else part.contiguous() for part in (query, key, value))
    num_scores = query.shape[:-1].numel() * key.shape[2]
    if num_scores <= MAX_SCORES or has_fused_kernel(query, key, value, dropout_rate):
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout_rate)
    return attend_in_chunks(query, key, value, dropout_rate)


# Compiled, every chunk would be written out.
@torch.compiler.disable()  # pyright: ignore[reportUntypedFunctionDecorator]
def attend_in_chunks(query: Tensor, key: Tensor, value: Tensor, dropout_rate: float = 0.0) -> Tensor:
    """What `attend` gives, at most about MAX_SCORES scores at a time; the gradient computes them again."""
    heads = [part.flatten(0, 1) for part in (query, key, value)]
    # Chunks draw from a generator of their own, so that the gradient can draw the same again.
    seed = int(torch.randint(2**62, ())) if dropout_rate else 0
    mixture: Tensor = _Chunks.apply(*heads, dropout_rate, seed)  # pyright: ignore[reportAssignmentType]  # untyped
    return mixture.unflatten(0, query.shape[:2])


class _Chunks(torch.autograd.Function):
    """Query, key and value (G, N, K) -> mixtures (G, N, K); gradients as Dao et al. 2022, appendix B.2 has them.

    Written by hand, as the one that torch would find keeps every chunk's scores, and as checkpoints are slower.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, dropout_rate: float, seed: int) -> Tensor:
        mixture = query.new_empty(*query.shape[:2], value.shape[2])
        with torch.autocast(query.device.type, enabled=False):
            for chunk, probabilities, kept in _chunks(query, key, dropout_rate, seed):
                used = probabilities if kept is None else probabilities.mul_(kept)
                mixture[:, chunk] = torch.bmm(used, value)
        ctx.save_for_backward(query, key, value, mixture)
        ctx.dropout_rate, ctx.seed = dropout_rate, seed
        return mixture

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # there is one output, so one gradient
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        query, key, value, mixture = ctx.saved_tensors
        # Under a row's softmax only what differs from the row's mean counts, which needs no scores to be known.
        mean = (grad * mixture).sum(dim=2, keepdim=True)
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for chunk, probabilities, kept in _chunks(query, key, ctx.dropout_rate, ctx.seed):
            grad_probabilities = torch.bmm(grad[:, chunk], value.transpose(1, 2))
            used = probabilities
            if kept is not None:
                grad_probabilities.mul_(kept)
                used = kept.mul_(probabilities)
            grad_value.baddbmm_(used.transpose(1, 2), grad[:, chunk])
            grad_scores = grad_probabilities.sub_(mean[:, chunk]).mul_(probabilities)
            grad_query[:, chunk] = torch.bmm(grad_scores, key)
            grad_key.baddbmm_(grad_scores.transpose(1, 2), query[:, chunk])
        scale = query.shape[2] ** -0.5
        return grad_query.mul_(scale), grad_key.mul_(scale), grad_value, None, None


def _chunks(
    query: Tensor, key: Tensor, dropout_rate: float, seed: int
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Each chunk's place, its probabilities (G, Q, N), and what dropout multiplies them by, if anything."""
    generator = torch.Generator(query.device).manual_seed(seed)
    length = max(1, MAX_SCORES // key.shape[:2].numel())
    for start in range(0, query.shape[1], length):
        chunk = slice(start, start + length)
        scores = torch.bmm(query[:, chunk] * query.shape[2] ** -0.5, key.transpose(1, 2))
        probabilities = scores.softmax(dim=2)
        kept = None
        if dropout_rate:
            kept = torch.empty_like(probabilities).bernoulli_(1 - dropout_rate, generator=generator)
            kept.div_(1 - dropout_rate)
        yield chunk, probabilities, kept
