"""How alike the positions of patches are to a model."""

# Shapes: P = rows * columns patches, D embed_dim, K head_dim

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.errors import ConfigError
from vitrail.models.attention2d import Attention2dClassifier, to_tokens
from vitrail.models.cnn import TimmModel
from vitrail.models.conv_tokens import CompactTransformer
from vitrail.models.positions import Rotation, rotary_positions
from vitrail.models.vit import VisionTransformer

MOST_SIDE = 48  # patches along a side whose similarities are held, 21 MB; of larger grids every other row and column


class Positions(NamedTuple):
    """How alike positions are, ready for `draw_positions(similarity)`."""

    similarity: NDArray[np.float32]
    """(rows, columns, rows, columns) in -1..1: for the patch at [row, column] a map over the grid"""
    kind: str
    """learned, fixed or rotary"""
    width: int
    """values of an embedding, or of a head that is turned"""
    step: int
    """1, or where the grid is large: every so many rows and columns are there"""


def position_similarity(model: nn.Module, grid: tuple[int, int] | None = None) -> Positions:
    """The cosine similarity of the position embeddings of any two patches. Dosovitskiy et al. 2021, figure 7 centre.

    Rotary positions have no embeddings; their equivalent is the similarity of equal vectors turned as queries and keys
    at the two places are, which is the mean cosine of the differences between their angles. `grid` is that of rotary
    positions, by default the model's own. Raises ConfigError for models without positions of patches.
    """
    if isinstance(model, VisionTransformer) and model.config.pos_embed == "rope":
        head_dim = model.config.head_dim or model.config.embed_dim // model.config.num_heads
        found = rotary_positions(grid or model.grid, head_dim, model.config.rope_temperature)
        return _rotary(found, grid or model.grid)
    if isinstance(model, VisionTransformer | CompactTransformer | Attention2dClassifier):
        if model.pos_embed is None:
            raise ConfigError("The model has no position information (pos_embed=none), so no positions to compare")
        places = to_tokens(model.pos_embed) if isinstance(model, Attention2dClassifier) else model.pos_embed
        return _embedded(places, model.grid, learned=isinstance(model.pos_embed, nn.Parameter))
    if isinstance(model, TimmModel):
        return _of_timm(model)
    raise ConfigError("A CNN has no position embeddings: its kernels know places by the borders they meet")


def similarity(vectors: NDArray[Any] | Tensor, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Cosine similarities of vectors (P, D) of a grid, (rows, columns, rows, columns); of a large one every so many."""
    step = _step(grid)
    places = torch.as_tensor(vectors).detach().float().cpu().view(*grid, -1)[::step, ::step]
    rows, columns = places.shape[:2]
    unit = F.normalize(places.flatten(0, 1), dim=1)
    return (unit @ unit.T).clamp(-1, 1).view(rows, columns, rows, columns).numpy()


def _step(grid: tuple[int, int]) -> int:
    return -(-max(grid) // MOST_SIDE)


def _embedded(places: Tensor, grid: tuple[int, int], *, learned: bool) -> Positions:
    """Of embeddings (1, N, D), those of prefix tokens first, if they have any."""
    own = places[0, -grid[0] * grid[1] :]
    return Positions(similarity(own, grid), "learned" if learned else "fixed", own.shape[1], _step(grid))


def _rotary(rotation: Rotation, grid: tuple[int, int]) -> Positions:
    # Sine and cosine side by side have the product that the turned vectors have.
    both = torch.cat([rotation.sin, rotation.cos], dim=-1)
    return Positions(similarity(both, grid), "rotary", rotation.sin.shape[-1], _step(grid))


def _of_timm(model: TimmModel) -> Positions:
    """Those of timm's backbones: embeddings added to patches, else rotary ones of one frequency for all blocks."""
    name, net = model.config.name, model.net
    patch_size: Any = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    grid: tuple[int, int] | None = None if patch_size is None else (int(patch_size[0]), int(patch_size[1]))
    places = getattr(net, "pos_embed", None)
    if isinstance(places, Tensor) and places.ndim == 3 and grid is not None and places.shape[1] >= grid[0] * grid[1]:
        return _embedded(places, grid, learned=isinstance(places, nn.Parameter))
    rope = getattr(net, "rope", None)
    if rope is not None and grid is not None and hasattr(rope, "get_embed"):
        found = rope.get_embed(list(grid))
        found = torch.cat([*found], dim=-1) if isinstance(found, tuple) else found
        if found.ndim == 2 and found.shape[0] == grid[0] * grid[1]:
            sin, cos = found.detach().chunk(2, dim=-1)
            return _rotary(Rotation(sin, cos), grid)
    raise ConfigError(f"timm's {name} has no position embedding of each patch to compare")


class Structure(NamedTuple):
    """How alike positions are on average, by how they lie to each other."""

    neighbours: float
    """beside or above each other"""
    row: float
    """in the same row, neighbours included"""
    column: float
    """in the same column, neighbours included"""
    others: float
    """any two that are not neighbours"""


def position_structure(alike: NDArray[np.floating[Any]]) -> Structure:
    """What similarities (rows, columns, rows, columns) say of how positions lie; NaN where no two lie so."""
    rows, columns = alike.shape[:2]
    down = np.abs(np.arange(rows)[:, None] - np.arange(rows))[:, None, :, None]
    along = np.abs(np.arange(columns)[:, None] - np.arange(columns))[None, :, None, :]
    distance = down + along
    same_row, same_column = np.broadcast_to(down == 0, alike.shape), np.broadcast_to(along == 0, alike.shape)

    def mean(members: NDArray[np.bool_]) -> float:
        return float(alike[members].mean(dtype=np.float64)) if members.any() else float("nan")

    other = distance > 0
    return Structure(mean(distance == 1), mean(other & same_row), mean(other & same_column), mean(distance > 1))
