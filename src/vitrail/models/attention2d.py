"""Self-attention on maps: every position of an image attends to every other, and maps stay maps.

Queries, keys, values and what follows them are 1x1 convolutions. It is the computation of `attention.py` on tokens,
with the weights of `Attention` as kernels, which a test holds. Maps lie channels last in memory, so that a 1x1
convolution is one matrix product and no map is ever copied to become tokens.

Shapes: B images, C channels, D embed_dim, H heads, K head_dim, N = rows * columns positions
"""

from __future__ import annotations

from typing import Annotated, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.models.config import (
    ImageModelConfig,
    PositiveInt,
    Rate,
    Size,
    check_heads,
    check_mlp,
    check_positions,
    check_stem,
)
from vitrail.models.features import BlockFeatures, Features
from vitrail.models.layers import ACTIVATIONS, DropPath, Normalize, init_weights, make_stem
from vitrail.models.positions import resize_pos_embed, sincos2d_pos_embed


class Attention2dConfig(ImageModelConfig):
    """Everything that defines an Attention2dClassifier. Raises ConfigError through `create_model` for impossible sizes.

    The defaults are those of the published description but for stem and positions, which it has none of.
    """

    kind: Literal["attention2d"] = "attention2d"
    """the family of models"""
    patch_size: Size = (4, 4)
    """rows and columns of pixels that become one position; 1 is pixel level"""
    stem: Literal["linear", "conv"] = "linear"
    """linear: one projection of each patch; conv: log2(patch_size) 3x3 convolutions of stride 2, which rounds up"""
    embed_dim: PositiveInt = 64
    """channels of the maps"""
    depth: PositiveInt = 6
    """number of blocks"""
    num_heads: PositiveInt = 4
    """attention heads of a block, which share its channels evenly"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """hidden channels of the MLP, as a multiple of embed_dim"""
    act_layer: Literal["gelu", "gelu_tanh", "relu", "silu"] = "gelu"
    """activation of the MLP"""
    bias: bool = False
    """biases of the 1x1 convolutions"""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    """what is added to the variance in every norm"""
    final_norm: bool = False
    """normalise the maps after the last block"""
    pos_embed: Literal["learn", "sincos2d", "none"] = "learn"
    """position information: a learned map, fixed 2-D sine-cosine, or none"""
    drop_rate: Rate = 0.0
    """dropout before the head"""
    pos_drop_rate: Rate = 0.0
    """dropout after the position embeddings"""
    proj_drop_rate: Rate = 0.0
    """dropout after the attention's projection and inside the MLP"""
    attn_drop_rate: Rate = 0.0
    """dropout of attention probabilities; on CPUs several times slower, as no fused kernel does it"""
    drop_path_rate: Rate = 0.0
    """stochastic depth of the last block; earlier blocks grow to it linearly"""

    @model_validator(mode="after")
    def _check_sizes(self) -> Attention2dConfig:
        check_stem(self.stem, self.image_size, self.patch_size, self.embed_dim)
        check_heads(self.embed_dim, self.num_heads)
        check_mlp(self.embed_dim, self.mlp_ratio)
        check_positions(self.pos_embed, self.embed_dim)
        return self


class Conv1x1(nn.Conv2d):
    """A convolution that looks at one position at a time: (B, C, rows, columns) -> (B, out_channels, rows, columns).

    Written as the matrix product that it is over channels, which is as fast as torch's convolution of maps that lie
    channels last, some 6 % faster than of maps that do not, and leaves the channels of a head side by side in memory.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each position, of maps (B, C, rows, columns)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention2d(nn.Module):
    """Multi-head self-attention over all positions of a map: (B, D, rows, columns) -> the same shape.

    Heads split the channels evenly; scores are scaled by K^-0.5. Query, key and value are one 1x1 convolution, its
    outputs one after the other, as `Attention` has them.
    """

    def __init__(
        self, dim: int, num_heads: int, *, bias: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        # Its marks for torch.compile load the compiler, some seconds that only this family should pay.
        from vitrail.models.long_attention import attend

        super().__init__()
        self.attend = attend
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop
        self.qkv = Conv1x1(dim, 3 * dim, bias=bias)
        self.proj = Conv1x1(dim, dim, bias=bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def split(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of maps (B, D, rows, columns), each (B, H, N, K), positions in row-major order."""
        qkv = to_tokens(self.qkv(maps)).unflatten(2, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Each head's mixture of values, (B, H, N, K)."""
        return self.attend(query, key, value, self.attn_drop_rate if self.training else 0.0)

    def join(self, heads: Tensor, grid: tuple[int, int]) -> Tensor:
        """The heads' mixtures (B, H, N, K) projected together, maps (B, D, rows, columns)."""
        return self.proj_drop(self.proj(to_maps(heads.transpose(1, 2).flatten(2), grid)))

    def forward(self, maps: Tensor) -> Tensor:
        return self.join(self.mix(*self.split(maps)), (maps.shape[2], maps.shape[3]))


def to_tokens(maps: Tensor) -> Tensor:
    """Maps (B, C, rows, columns) as tokens (B, N, C); a view where they lie channels last."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def to_maps(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, N, C) as maps (B, C, rows, columns) that lie channels last: a view."""
    return tokens.unflatten(1, grid).permute(0, 3, 1, 2)


class Mlp2d(nn.Module):
    """Two 1x1 convolutions with an activation between them: (B, D, rows, columns) -> the same shape."""

    def __init__(self, dim: int, hidden_dim: int, act_layer: str = "gelu", *, bias: bool = False, drop: float = 0.0):
        super().__init__()
        self.fc1 = Conv1x1(dim, hidden_dim, bias=bias)
        self.act = ACTIVATIONS[act_layer]()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = Conv1x1(hidden_dim, dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, maps: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(maps)))))


class Block2d(nn.Module):
    """Pre-norm block, x + attention(norm(x)), then x + mlp(norm(x)): (B, D, rows, columns) -> the same shape."""

    def __init__(self, config: Attention2dConfig, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        dim, bias, drop = config.embed_dim, config.bias, config.proj_drop_rate
        self.norm1 = LayerNorm2d(dim, eps=config.norm_eps)
        self.attn = Attention2d(dim, config.num_heads, bias=bias, attn_drop=config.attn_drop_rate, proj_drop=drop)
        self.drop_path1 = DropPath(drop_path_rate)
        self.norm2 = LayerNorm2d(dim, eps=config.norm_eps)
        self.mlp = Mlp2d(dim, int(dim * config.mlp_ratio), config.act_layer, bias=bias, drop=drop)
        self.drop_path2 = DropPath(drop_path_rate)

    def forward(self, maps: Tensor) -> Tensor:
        return self.finish(maps, self.attn(self.norm1(maps)))

    def finish(self, maps: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block, given what attention makes of its maps."""
        maps = maps + self.drop_path1(attended)
        return maps + self.drop_path2(self.mlp(self.norm2(maps)))


class Attention2dClassifier(nn.Module):
    """Images to logits: (B, C, rows, columns), uint8 in 0..255 or float in 0..1 -> (B, num_classes).

    A stem, blocks of attention on maps, the mean over positions and a linear head. Images may be larger or smaller
    than the config's `image_size`: the map of positions is resized. Raises ConfigError for images that do not fit.
    """

    pos_embed: Tensor | None

    def __init__(self, config: Attention2dConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.normalize = Normalize(*config.scaling())
        self.patch_embed = make_stem(config.stem, config.patch_size, config.in_chans, dim)
        self.grid = self.patch_embed.grid(*config.image_size)
        if config.pos_embed == "learn":
            self.pos_embed = nn.Parameter(torch.zeros(1, dim, *self.grid))
        elif config.pos_embed == "sincos2d":
            positions = to_maps(sincos2d_pos_embed(self.grid, dim), self.grid)
            self.register_buffer("pos_embed", positions, persistent=False)
        else:
            self.pos_embed = None
        self.pos_drop = nn.Dropout(config.pos_drop_rate)
        rates = [config.drop_path_rate * index / max(config.depth - 1, 1) for index in range(config.depth)]
        self.blocks = cast("list[Block2d]", nn.ModuleList(Block2d(config, rate) for rate in rates))
        self.norm = LayerNorm2d(dim, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = nn.Linear(dim, config.num_classes)
        init_weights(self)
        if isinstance(self.pos_embed, nn.Parameter):
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def embed(self, images: Tensor) -> Tensor:
        """The maps (B, D, rows, columns) that the first block sees."""
        tokens = self.patch_embed(self.normalize(images))
        grid = self.patch_embed.grid(images.shape[2], images.shape[3])
        maps = to_maps(tokens.contiguous(), grid)  # a stem of convolutions leaves channels first
        if self.pos_embed is not None:
            maps = maps + self._positions(self.pos_embed, grid)
        return self.pos_drop(maps)

    def _positions(self, own: Tensor, grid: tuple[int, int]) -> Tensor:
        """The map of positions for a grid, from that of the model's own."""
        if grid == self.grid:
            return own
        if self.config.pos_embed == "sincos2d":
            return to_maps(sincos2d_pos_embed(grid, self.config.embed_dim).to(own.device), grid)
        return to_maps(resize_pos_embed(to_tokens(own), self.grid, grid), grid)

    def encode(self, maps: Tensor) -> Tensor:
        """What the blocks make of the first one's maps, normalised if the model does that; the same shape."""
        for block in self.blocks:
            maps = block(maps)
        return self.norm(maps)

    def forward_features(self, images: Tensor) -> Tensor:
        """The encoder's output at each position: (B, C, rows, columns) -> (B, N, D), in row-major order."""
        return to_tokens(self.encode(self.embed(images)))

    def pool(self, tokens: Tensor) -> Tensor:
        """The mean over positions, which the head reads: (B, N, D) -> (B, D)."""
        return tokens.mean(dim=1)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (B, num_classes) of what `pool` gives."""
        return self.head(self.head_drop(pooled))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.pool(self.forward_features(images)))

    def features(self, images: Tensor) -> Features:
        """Positions, query, key, value and head output of each block, what is pooled, and the logits of `forward`."""
        maps = self.embed(images)
        grid = (maps.shape[2], maps.shape[3])
        blocks: list[BlockFeatures] = []
        for block in self.blocks:
            normed = block.norm1(maps)
            query, key, value = block.attn.split(normed)
            heads = block.attn.mix(query, key, value)
            maps = block.finish(maps, block.attn.join(heads, grid))
            blocks.append(BlockFeatures(to_tokens(maps), query, key, value, heads, to_tokens(normed)))
        tokens = to_tokens(self.norm(maps))
        pooled = self.pool(tokens)
        return Features(tuple(blocks), tokens, pooled, self.classify(pooled), grid)
