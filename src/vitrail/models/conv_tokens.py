"""Compact Convolutional Transformers. Hassani et al. 2021, "Escaping the Big Data Paradigm with Compact Transformers".

Convolutions in place of patches, and a weighted mean over tokens in place of a class token: few images suffice.

Shapes: B images, C channels, N tokens, D embed_dim, H heads, K head_dim
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vitrail.models.attention import Attention
from vitrail.models.config import ImageModelConfig, PositiveInt, Rate, check_heads, check_mlp
from vitrail.models.features import BlockFeatures, Features
from vitrail.models.layers import DropPath, Mlp, Normalize
from vitrail.models.positions import resize_pos_embed

NORM_EPS = 1e-5  # torch's default, which the authors keep


class ConvTokensConfig(ImageModelConfig):
    """Everything that defines a CompactTransformer. Raises ConfigError through `create_model` for impossible sizes."""

    kind: Literal["cct"] = "cct"
    """the family of models"""
    num_convs: PositiveInt = 1
    """convolutions that make the tokens; each halves the maps by its max pooling, and again by its stride"""
    kernel_size: PositiveInt = 3
    """rows and columns of their kernels in pixels, an odd number"""
    stride: PositiveInt = 1
    """pixels between two places of a kernel"""
    stem_width: PositiveInt = 64
    """channels of all convolutions but the last, which has embed_dim"""
    embed_dim: PositiveInt = 256
    """width of a token"""
    depth: PositiveInt = 7
    """number of blocks"""
    num_heads: PositiveInt = 4
    """attention heads of a block"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 2.0
    """hidden width of the MLP, as a multiple of embed_dim"""
    pos_embed: Literal["learn", "sine", "none"] = "learn"
    """position information: learned, fixed sine and cosine of a token's number, or none"""
    pos_drop_rate: Rate = 0.0
    """dropout after the position embeddings"""
    proj_drop_rate: Rate = 0.0
    """dropout after the attention's projection and inside the MLP"""
    attn_drop_rate: Rate = 0.0
    """dropout of attention probabilities"""
    drop_path_rate: Rate = 0.0
    """stochastic depth of the last block; earlier blocks grow to it linearly"""

    @model_validator(mode="after")
    def _check_sizes(self) -> ConvTokensConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size={self.kernel_size} is even, and has no middle; "
                f"use {self.kernel_size - 1} or {self.kernel_size + 1}"
            )
        check_heads(self.embed_dim, self.num_heads)
        if self.pos_embed == "sine" and self.embed_dim % 2:
            raise ValueError(f"embed_dim={self.embed_dim} is odd, which pos_embed='sine' cannot halve; use an even one")
        check_mlp(self.embed_dim, self.mlp_ratio)
        return self


def sine_pos_embed(num_tokens: int, dim: int) -> Tensor:
    """Fixed position embeddings (1, N, D) of a sequence: sine and cosine in turn. Vaswani et al. 2017, section 3.5."""
    frequencies = 10_000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    angles = torch.arange(num_tokens, dtype=torch.float32)[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[None]


class ConvTokenizer(nn.Module):
    """Convolutions, each with ReLU and 3x3 max pooling of stride 2; a place of the last maps is a token.

    (B, C, rows, columns) -> (B, N, D), in row-major order; sizes that do not divide are rounded up. The authors'
    convolutions have no biases.
    """

    def __init__(self, config: ConvTokensConfig) -> None:
        super().__init__()
        self.stride = config.stride
        widths = [config.in_chans, *[config.stem_width] * (config.num_convs - 1), config.embed_dim]
        kernel_size = config.kernel_size
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size, config.stride, padding=kernel_size // 2, bias=False)
            for before, after in pairwise(widths)
        )
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of tokens of an image of so many pixels."""
        for factor in (self.stride, 2) * len(self.convs):
            rows, columns = -(-rows // factor), -(-columns // factor)
        return rows, columns

    def forward(self, images: Tensor) -> Tensor:
        maps = images
        for conv in self.convs:
            maps = self.pool(self.act(conv(maps)))
        return maps.flatten(2).transpose(1, 2)


class CompactBlock(nn.Module):
    """The authors' encoder block: (B, N, D) -> (B, N, D).

    The paper describes the ViT's. In its code, and in the weights it was published with, the second norm stands on the
    residual path: the MLP's branch is added to the normalised tokens, not to those before the norm.
    """

    def __init__(self, config: ConvTokensConfig, drop_path_rate: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(
            dim,
            config.num_heads,
            dim // config.num_heads,
            qkv_bias=False,
            attn_drop=config.attn_drop_rate,
            proj_drop=config.proj_drop_rate,
        )
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio), drop=config.proj_drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """What follows attention, of the block's input and the attention's output."""
        tokens = self.norm2(tokens + self.drop_path(attended))
        return tokens + self.drop_path(self.mlp(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.finish(tokens, self.attn(self.norm1(tokens)))


class CompactTransformer(nn.Module):
    """Convolutional tokens, an encoder, and sequence pooling. Hassani et al. 2021, section 3.

    (B, C, rows, columns), uint8 in 0..255 or float in 0..1 -> logits (B, num_classes). Images may have any size:
    position embeddings are interpolated. Masks and padded images are not possible, as pooling would see the padding.
    """

    pos_embed: Tensor | None

    def __init__(self, config: ConvTokensConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.normalize = Normalize(*config.scaling())
        self.patch_embed = ConvTokenizer(config)
        self.grid = self.patch_embed.grid(*config.image_size)
        num_tokens = self.grid[0] * self.grid[1]
        if config.pos_embed == "learn":
            self.pos_embed = nn.Parameter(torch.zeros(1, num_tokens, dim))
        elif config.pos_embed == "sine":
            self.register_buffer("pos_embed", sine_pos_embed(num_tokens, dim), persistent=False)
        else:
            self.pos_embed = None
        self.pos_drop = nn.Dropout(config.pos_drop_rate)
        rates = [config.drop_path_rate * index / max(config.depth - 1, 1) for index in range(config.depth)]
        self.blocks = cast("list[CompactBlock]", nn.ModuleList(CompactBlock(config, rate) for rate in rates))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attention_pool = nn.Linear(dim, 1)
        self.head = nn.Linear(dim, config.num_classes)
        self._init_weights()

    def _init_weights(self) -> None:
        """As the authors do: deviation 0.02 for linear layers, 0.2 for positions, He's for convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]  # queries have none
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        if isinstance(self.pos_embed, nn.Parameter):
            nn.init.trunc_normal_(self.pos_embed, std=0.2)

    def embed(self, images: Tensor) -> Tensor:
        """The tokens (B, N, D) that the first block sees."""
        tokens = self.patch_embed(self.normalize(images))
        if self.pos_embed is not None:
            grid = self.patch_embed.grid(images.shape[2], images.shape[3])
            tokens = tokens + resize_pos_embed(self.pos_embed, self.grid, grid)
        return self.pos_drop(tokens)

    def forward_features(self, images: Tensor) -> Tensor:
        """The encoder's output tokens: (B, C, rows, columns) -> (B, N, D)."""
        tokens = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def pool(self, tokens: Tensor) -> Tensor:
        """The mean over tokens (B, N, D) by weights that each token gives itself, (B, D): sequence pooling."""
        weights = self.attention_pool(tokens).softmax(dim=1)  # (B, N, 1)
        return (weights.transpose(1, 2) @ tokens).squeeze(1)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (B, num_classes) of what `pool` gives."""
        return self.head(pooled)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.pool(self.forward_features(images)))

    def features(self, images: Tensor) -> Features:
        """Tokens, query, key, value and head output of each block, what is pooled, and the logits of `forward`."""
        tokens = self.embed(images)
        blocks: list[BlockFeatures] = []
        for block in self.blocks:
            normed = block.norm1(tokens)
            query, key, value = block.attn.split(normed)
            heads = block.attn.mix(query, key, value)
            tokens = block.finish(tokens, block.attn.join(heads))
            blocks.append(BlockFeatures(tokens, query, key, value, heads, normed))
        tokens = self.norm(tokens)
        pooled = self.pool(tokens)
        grid = self.patch_embed.grid(images.shape[2], images.shape[3])
        return Features(tuple(blocks), tokens, pooled, self.classify(pooled), grid)
