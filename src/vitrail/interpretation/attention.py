"""Attention as maps: a layer's, rolled out over all layers, and weighted by what it does for a class.

Probabilities are computed again from query and key, some queries at a time; none of it needs an N x N matrix of a
layer's heads. What flows through many layers is followed backwards from what the head reads, so that a vector (B, N) is
all that is kept: the row of the product of matrices that the papers describe.

Shapes: B images, N tokens, H heads, K head_dim, Q queries of a chunk
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.errors import ConfigError
from vitrail.interpretation.probabilities import Attended, probability_chunks
from vitrail.interpretation.targets import Target, target_values
from vitrail.interpretation.traces import Trace


def attention_map(found: Trace, layer: int = -1, head: int | None = None) -> Tensor:
    """What the head's readout attends to in one layer, by one head or the mean of all: (B, rows, columns).

    Of a class token its attention to the patches; of a mean, that of all patches. Raises ConfigError for a layer or a
    head that is not there.
    """
    attended = found.blocks[_place(layer, len(found.blocks), "layer", "layers")]
    which = None if head is None else _place(head, attended.query.shape[1], "head", "heads")
    weights = found.tokens.new_zeros(found.readout.shape)
    for chunk, probabilities in probability_chunks(attended):
        shares = probabilities.mean(dim=1) if which is None else probabilities[:, which]  # (B, Q, N)
        weights += _mixed(_first(found)[:, chunk], shares)
    return found.of_patches(weights)


def rollout(found: Trace) -> Tensor:
    """Attention rolled out over all layers, (B, rows, columns). Abnar and Zuidema 2020, section 3.

    Each layer is taken as half its heads' mean and half the residual connection; the row of what the head reads.
    """
    weights = found.readout.detach()
    for attended in reversed(found.blocks):
        weights = weights / 2 + _through(weights, attended) / 2
    return found.of_patches(weights)


def relevance(found: Trace, targets: Sequence[Target]) -> Tensor:
    """Gradient-weighted attention rolled out, (B, rows, columns), of a trace with gradients.

    Chefer et al. 2021, "Generic Attention-model Explainability", equations 5 and 6. Each layer adds the positive part
    of probability times its gradient, mean of heads. That gradient is the gradient of the head's output times the
    values, so attention stays fused. Pooling is one more such layer, which has no residual connection: a mean is
    attention with equal probabilities.
    """
    heads = [attended.heads for attended in found.blocks]
    pool = [] if found.pool is None else [found.pool.heads]
    values = target_values(found.logits, targets).sum()
    of_tokens, *of_heads = torch.autograd.grad(values, [found.tokens, *heads, *pool])
    gradients = of_heads[: len(heads)]
    if found.pool is not None:
        weights = torch.zeros_like(found.readout)
        one = weights.new_ones(len(weights), 1)
        pooled = _through(one, found.pool, of_heads[-1])
        weights[:, -pooled.shape[1] :] = pooled
    else:
        weights = _read(found, of_tokens)
    for attended, gradient in zip(reversed(found.blocks), reversed(gradients), strict=True):
        weights = weights + _through(weights, attended, gradient)
    return found.of_patches(weights)


def _read(found: Trace, gradient: Tensor) -> Tensor:
    """How much of the target each token brings to a mean or to a prefix token that is read, (B, N).

    Probability times its gradient, of weights that mix tokens, is gradient times token. A prefix token has no place
    that could speak against the target, so its size counts. Where nothing speaks for it, tokens count as they are read.
    """
    shares = found.readout.detach()
    if bool((shares > 0).sum(dim=1).max() == 1):  # one token alone: there is nothing to choose
        return shares
    parts = (gradient * found.tokens.detach()).sum(dim=2)
    num_prefix = found.num_prefix_tokens
    parts = torch.cat([parts[:, :num_prefix].abs(), parts[:, num_prefix:].clamp(min=0)], dim=1) * (shares > 0)
    return torch.where(parts.sum(dim=1, keepdim=True) > 0, parts, shares)


def _through(weights: Tensor, attended: Attended, gradient: Tensor | None = None) -> Tensor:
    """Weights of queries (B, Q) as weights of the keys (B, N): times the mean of the heads' probabilities.

    With the `gradient` of the heads' output, each probability is first multiplied by its own, if that is positive.
    """
    through = weights.new_zeros(len(weights), attended.key.shape[2])
    value = attended.value.detach().float()
    for chunk, probabilities in probability_chunks(attended):
        if gradient is not None:
            probabilities *= gradient[:, :, chunk].float() @ value.transpose(2, 3)
            probabilities.clamp_(min=0)
        through += _mixed(weights[:, chunk], probabilities.mean(dim=1))
    return through


def _mixed(weights: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, Q, N) mixed by weights (B, Q): (B, N)."""
    return (weights[:, None] @ rows)[:, 0]


def _first(found: Trace) -> Tensor:
    """Whose attention a map of one layer shows, as shares (B, N): the prefix tokens that are read, else all patches."""
    shares = found.readout.detach().clone()
    num_prefix = found.num_prefix_tokens
    if bool((shares[:, :num_prefix] > 0).any()):
        shares[:, num_prefix:] = 0
    return shares / shares.sum(dim=1, keepdim=True)


def _place(number: int, count: int, what: str, whats: str) -> int:
    """The place of a layer or head, counted from 0, or from the end as -1. Raises ConfigError if there is none."""
    if not -count <= number < count:
        raise ConfigError(f"{what}={number} is not there: the model has {count} {whats}, 0 to {count - 1}")
    return number % count
