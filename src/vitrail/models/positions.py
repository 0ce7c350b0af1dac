"""Where a patch lies in its image: sine-cosine, learned and rotary positions, for grids of any shape.

Shapes: N tokens, D embed_dim, K head_dim
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.errors import CheckpointError, ConfigError


def sincos2d_pos_embed(grid: tuple[int, int], dim: int, temperature: float = 10_000.0) -> Tensor:
    """Fixed sine-cosine position embeddings of a `grid` of (rows, columns) patches: (1, rows*columns, D).

    The quarters of D hold sine and cosine of the column, then of the row. Raises ConfigError unless D is a
    multiple of 4. Beyer et al. 2022, "Better plain ViT baselines", section 2.
    """
    if dim % 4:
        raise ConfigError(f"embed_dim={dim} is not a multiple of 4, which pos_embed='sincos2d' needs")
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float32), torch.arange(grid[1], dtype=torch.float32), indexing="ij"
    )
    frequencies = temperature ** -(torch.arange(dim // 4, dtype=torch.float32) / max(dim // 4 - 1, 1))
    column_angles = columns.flatten()[:, None] * frequencies
    row_angles = rows.flatten()[:, None] * frequencies
    parts = (column_angles.sin(), column_angles.cos(), row_angles.sin(), row_angles.cos())
    return torch.cat(parts, dim=1)[None]


def resize_pos_embed(
    pos_embed: Tensor, old_grid: tuple[int, int], grid: tuple[int, int], antialias: bool = True
) -> Tensor:
    """Position embeddings of the patches of one grid (rows, columns) for another, by bicubic interpolation.

    (1, N, D) -> (1, rows*columns, D); prefix tokens, such as the class token, must be taken off first. The same grid
    gives the same values. Raises CheckpointError if N is not old rows * columns. Dosovitskiy et al. 2021, section 3.2;
    with `antialias` smoothed where it shrinks, as in timm.
    """
    if pos_embed.shape[1] != math.prod(old_grid):
        raise CheckpointError(
            f"{pos_embed.shape[1]} position embeddings are not those of a grid of {old_grid[0]}x{old_grid[1]} patches"
        )
    if tuple(old_grid) == tuple(grid):
        return pos_embed
    maps = pos_embed.float().unflatten(1, old_grid).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    maps = F.interpolate(maps, size=grid, mode="bicubic", antialias=antialias, align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(pos_embed.dtype)


class Rotation(NamedTuple):
    """Rotary positions of patches: sine and cosine of each one's angles, both (..., N, K)."""

    sin: Tensor
    cos: Tensor


def rotary_positions(grid: tuple[int, int], head_dim: int, temperature: float = 100.0) -> Rotation:
    """2-D rotary positions of a `grid` of (rows, columns) patches: (rows*columns, K) each.

    Centres of patches lie in -1..1 along each side, so a larger image has no larger angles. A quarter of K holds the
    row's angles, the next the column's; the second half repeats the first. Siméoni et al. 2025 (DINOv3), section 3.2.
    Raises ConfigError unless K is a multiple of 4.
    """
    if head_dim % 4:
        raise ConfigError(f"head_dim={head_dim} is not a multiple of 4, which pos_embed='rope' needs")
    rows, columns = (2 * (torch.arange(size, dtype=torch.float32) + 0.5) / size - 1 for size in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)  # (N, 2)
    frequencies = temperature ** -torch.arange(0, 1, 4 / head_dim, dtype=torch.float32)
    angles = (2 * math.pi * places[:, :, None] * frequencies).flatten(1).tile(2)  # (N, K)
    return Rotation(angles.sin(), angles.cos())


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (B, H, N, K) turned by their positions; tokens in front that have none, as the class token, stay.

    Su et al. 2021, equation 34, on halves of K.
    """
    num_prefix = heads.shape[-2] - rotation.sin.shape[-2]
    patches = heads[..., num_prefix:, :]
    low, high = patches.chunk(2, dim=-1)
    turned = patches * rotation.cos + torch.cat([-high, low], dim=-1) * rotation.sin
    turned = turned.to(heads.dtype)
    return torch.cat([heads[..., :num_prefix, :], turned], dim=-2) if num_prefix else turned
