"""How far and how evenly the heads of each layer attend."""

# Shapes: B images, N tokens, P patches, L layers, H heads, Q queries of a chunk

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.errors import DataError
from vitrail.interpretation.probabilities import MAX_SCORES, Attended, probability_chunks
from vitrail.interpretation.traces import Trace

Size = tuple[int, int]  # rows, columns


class AttentionSpread(NamedTuple):
    """How far and how evenly heads attend: means over images and tokens."""

    distances: NDArray[np.float64]
    """from a patch to what it attends to, in pixels of the image that the model sees, (L, H)"""
    entropies: NDArray[np.float64]
    """of what a token attends to, in nats, (L, H)"""
    largest_distance: float
    """between the centres of two patches, in pixels"""
    uniform_distance: float
    """of a head that attends to all patches alike, in pixels"""
    largest_entropy: float
    """of a head that attends to all tokens alike, in nats: the logarithm of their number"""
    grid: Size
    """rows and columns of the patches"""
    num_images: int


def attention_spread(traces: Iterable[Trace], image_size: Size, max_scores: int = MAX_SCORES) -> AttentionSpread:
    """The mean attention distance and entropy of each head, over batches of images of `image_size` pixels.

    The distance of Dosovitskiy et al. 2021, figure 7 right: from the centre of a patch to the centres of all, weighted
    by attention; prefix tokens are left out and the rest sums to 1 again. The entropy is of all tokens, prefix ones
    too. What a mask leaves out, as padding, neither asks nor is asked. Probabilities are computed `max_scores` at a
    time. Raises DataError for no images.
    """
    sums: list[Tensor] = []
    uniform, patches, entropy, tokens, num_images = 0.0, 0, 0.0, 0, 0
    largest, grid = 0.0, (0, 0)
    for found in traces:
        grid = found.grid
        prefix, centres = found.num_prefix_tokens, patch_centres(grid, image_size).to(found.logits.device)
        taking = torch.ones(len(found.logits), prefix + len(centres), dtype=torch.bool, device=found.logits.device)
        if found.patch_mask is not None:
            taking[:, prefix:] = found.patch_mask
        blocks = [_of_block(attended, taking, centres, prefix, max_scores) for attended in found.blocks]
        sums.append(torch.stack(blocks))  # (L, 3, H)
        uniform += _uniform(taking[:, prefix:], centres)
        counts = taking.sum(dim=1).double()
        patches, tokens = patches + int(taking[:, prefix:].sum()), tokens + int(counts.sum())
        entropy += float((counts * counts.log()).sum())
        num_images += len(taking)
        largest = math.dist(centres[0].tolist(), centres[-1].tolist())
    if not sums:
        raise DataError("There are no images whose attention to look at; give one or more")
    distance, asking, entropies = torch.stack(sums).sum(dim=0).unbind(1)
    return AttentionSpread(
        (distance / asking.clamp(min=1)).numpy(),
        (entropies / tokens).numpy(),
        largest,
        uniform / patches,
        entropy / tokens,
        grid,
        num_images,
    )


def patch_centres(grid: Size, image_size: Size) -> Tensor:
    """Row and column of the middle of each patch, in pixels: (P, 2), in row-major order."""
    rows, columns = (
        (torch.arange(count, dtype=torch.float32) + 0.5) * side / count
        for count, side in zip(grid, image_size, strict=True)
    )
    return torch.cartesian_prod(rows, columns)


def _of_block(attended: Attended, taking: Tensor, centres: Tensor, prefix: int, max_scores: int) -> Tensor:
    """Of each head (3, H) float64: distances summed, how many patches have one, entropies summed."""
    sums = torch.zeros(3, attended.query.shape[1], dtype=torch.float64)
    for chunk, probabilities in probability_chunks(attended, max_scores):
        asking = taking[:, None, chunk]  # (B, 1, Q)
        entropies = torch.special.entr(probabilities).sum(dim=3)
        sums[2] += (entropies * asking).sum(dim=(0, 2)).double().cpu()
        first = max(prefix - chunk.start, 0)  # of the chunk's queries, the first that is a patch
        weights = probabilities[:, :, first:, prefix:]
        if not weights.numel():
            continue
        away = _distances(centres[chunk.start + first - prefix : chunk.stop - prefix], centres)
        mass = weights.sum(dim=3)
        known = asking[:, :, first:] & (mass > 0)  # a head may look at prefix tokens alone
        mean = (weights * away).sum(dim=3) / mass.where(mass > 0, 1.0)
        sums[0] += (mean * known).sum(dim=(0, 2)).double().cpu()
        sums[1] += known.sum(dim=(0, 2)).double().cpu()
    return sums


def _uniform(taking: Tensor, centres: Tensor) -> float:
    """The distances of equal attention, summed over the patches (B, P) that take part."""
    if bool(taking.all()):
        return len(taking) * float(_row_means(centres))
    return sum(float(_row_means(centres[own])) for own in taking)


def _row_means(centres: Tensor) -> Tensor:
    """For each of some centres its mean distance to all of them, summed."""
    parts = centres.split(1024)  # of many patches not all distances at once
    return torch.stack([_distances(part, centres).double().mean(dim=1).sum() for part in parts]).sum()


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """(Q, 2) and (P, 2) -> (Q, P); not by matrix products, whose rounding leaves a patch some way from itself."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")
