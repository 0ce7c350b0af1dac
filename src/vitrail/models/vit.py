"""The Vision Transformer of Dosovitskiy et al. 2021 with the choices that the field has added since.

Parameter names follow timm's. `paper.py` is the same model with nothing optional, to read first.

Shapes: B images, C channels, N tokens, D embed_dim
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor, nn

from vitrail.models.layers import (
    Attention,
    AttentionPool,
    ConvStem,
    DropPath,
    Mlp,
    Normalize,
    PatchEmbed,
    sincos2d_pos_embed,
)


def _pair(value: object) -> object:
    """One number means rows and columns alike."""
    if isinstance(value, int | float):
        return (value, value)
    if isinstance(value, list | tuple) and len(value) == 1:
        return (value[0], value[0])
    return value


PositiveInt = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_pair)]


class ViTConfig(BaseModel):
    """Everything that defines a VisionTransformer. Raises ConfigError through `create_model` for impossible sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    kind: Literal["vit"] = "vit"
    """the family of models"""
    image_size: Size = (224, 224)
    """rows and columns of the images in pixels; one number for square ones"""
    patch_size: Size = (16, 16)
    """rows and columns of a patch in pixels; image_size must be a multiple, but for stem=conv, which rounds up"""
    stem: Literal["linear", "conv"] = "linear"
    """linear: one projection of each patch, as in the paper; conv: log2(patch_size) 3x3 convolutions of stride 2"""
    in_chans: PositiveInt = 3
    """channels of the images"""
    num_classes: PositiveInt = 1000
    """outputs of the head"""
    embed_dim: PositiveInt = 768
    """width of a token"""
    depth: PositiveInt = 12
    """number of blocks"""
    num_heads: PositiveInt = 12
    """attention heads of a block"""
    head_dim: PositiveInt | None = None
    """width of a head; none: embed_dim / num_heads"""
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0
    """hidden width of the MLP, as a multiple of embed_dim"""
    act_layer: Literal["gelu", "relu"] = "gelu"
    """activation of the MLP"""
    qkv_bias: bool = True
    """biases of query, key and value"""
    proj_bias: bool = True
    """bias of the projection after attention"""
    mlp_bias: bool = True
    """biases of the MLP"""
    class_token: bool = True
    """a learned token at position 0"""
    global_pool: Literal["token", "avg", "map"] = "token"
    """what the head reads: the class token, the mean over patches, or attention pooling of the patches"""
    pos_embed: Literal["learn", "sincos2d", "none"] = "learn"
    """position information: learned, fixed 2-D sine-cosine, or none"""
    pos_embed_std: Annotated[float, Field(ge=0)] = 0.02
    """deviation of the learned position embeddings at the start; 0: zeros"""
    drop_rate: Rate = 0.0
    """dropout before the head"""
    pos_drop_rate: Rate = 0.0
    """dropout after the position embeddings"""
    proj_drop_rate: Rate = 0.0
    """dropout after the attention's projection and inside the MLP"""
    attn_drop_rate: Rate = 0.0
    """dropout of attention probabilities"""
    drop_path_rate: Rate = 0.0
    """stochastic depth of the last block; earlier blocks grow to it linearly"""
    mean: tuple[float, ...] | None = None
    """mean of each channel in 0..1, taken off the images; none: measured on the training images, else 0.5"""
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """deviation of each channel in 0..1, which divides the images; none: measured, else 0.5"""

    @model_validator(mode="after")
    def _check(self) -> ViTConfig:
        if self.stem == "conv":
            rows, columns = self.patch_size
            if rows != columns or rows < 4 or rows & (rows - 1):
                raise ValueError(f"patch_size={rows}x{columns} is not possible with stem='conv'; use 4, 8, 16 or 32")
            if self.embed_dim % 2:
                raise ValueError(f"embed_dim={self.embed_dim} is odd, which stem='conv' cannot halve; use an even one")
        for axis in (0, 1) if self.stem == "linear" else ():
            size, patch = self.image_size[axis], self.patch_size[axis]
            if size % patch:
                below, above = size // patch * patch, (size // patch + 1) * patch
                nearest = f"{below} or {above}" if below else str(above)
                raise ValueError(
                    f"image_size={size} is not a multiple of patch_size={patch}; use {nearest}, or another patch_size"
                )
        if self.head_dim is None and self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} is not a multiple of num_heads={self.num_heads}; "
                "change one of them, or give head_dim"
            )
        if self.global_pool == "map" and self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} is not a multiple of num_heads={self.num_heads}, "
                "which global_pool='map' needs"
            )
        if self.global_pool == "token" and not self.class_token:
            raise ValueError("global_pool='token' needs class_token=true; use global_pool='avg' or 'map' without one")
        if int(self.embed_dim * self.mlp_ratio) < 1:
            raise ValueError(
                f"mlp_ratio={self.mlp_ratio:g} leaves the MLP of embed_dim={self.embed_dim} no hidden layer; "
                "use a larger one"
            )
        if self.pos_embed == "sincos2d" and self.embed_dim % 4:
            raise ValueError(f"embed_dim={self.embed_dim} is not a multiple of 4, which pos_embed='sincos2d' needs")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.in_chans:
                raise ValueError(
                    f"{name}={','.join(map(str, values))} is not one value a channel for in_chans={self.in_chans}; "
                    f"give {self.in_chans}"
                )
        return self


class Block(nn.Module):
    """Pre-norm encoder block, equations 2 and 3 of the paper: (B, N, D) -> (B, N, D)."""

    def __init__(self, config: ViTConfig, drop_path_rate: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(
            dim,
            config.num_heads,
            config.head_dim or dim // config.num_heads,
            qkv_bias=config.qkv_bias,
            proj_bias=config.proj_bias,
            attn_drop=config.attn_drop_rate,
            proj_drop=config.proj_drop_rate,
        )
        self.drop_path1 = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        hidden_dim = int(dim * config.mlp_ratio)
        self.mlp = Mlp(dim, hidden_dim, config.act_layer, bias=config.mlp_bias, drop=config.proj_drop_rate)
        self.drop_path2 = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path1(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path2(self.mlp(self.norm2(tokens)))


class VisionTransformer(nn.Module):
    """Images to logits: (B, C, rows, columns), uint8 in 0..255 or float in 0..1 -> (B, num_classes).

    Raises ConfigError for images of another size or number of channels than the config's.
    """

    pos_embed: Tensor | None

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        half = (0.5,) * config.in_chans
        self.normalize = Normalize(config.mean or half, config.std or half)
        self.patch_embed = (
            PatchEmbed(config.image_size, config.patch_size, config.in_chans, dim)
            if config.stem == "linear"
            else ConvStem(config.image_size, config.patch_size[0], config.in_chans, dim)
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.class_token else None
        self._add_pos_embed()
        self.pos_drop = nn.Dropout(config.pos_drop_rate)
        rates = [config.drop_path_rate * index / max(config.depth - 1, 1) for index in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        # As in timm: the mean is normalised after pooling, the other two before.
        mean_pooling = config.global_pool == "avg"
        self.norm = nn.Identity() if mean_pooling else nn.LayerNorm(dim, eps=1e-6)
        self.attn_pool = (
            AttentionPool(dim, config.num_heads, config.mlp_ratio, config.act_layer)
            if config.global_pool == "map"
            else None
        )
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6) if mean_pooling else nn.Identity()
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = nn.Linear(dim, config.num_classes)
        self._init_weights()

    def _add_pos_embed(self) -> None:
        config = self.config
        if config.pos_embed == "none":
            self.pos_embed = None
        elif config.pos_embed == "learn":
            num_positions = self.patch_embed.num_patches + int(config.class_token)
            self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, config.embed_dim))
        else:
            fixed = sincos2d_pos_embed(self.patch_embed.grid, config.embed_dim)
            if config.class_token:  # the class token has no place in the image
                fixed = torch.cat([torch.zeros(1, 1, config.embed_dim), fixed], dim=1)
            self.register_buffer("pos_embed", fixed, persistent=False)

    def _init_weights(self) -> None:
        """Truncated normal of deviation 0.02 for linear layers, zero biases, as in the paper's code and timm."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
            elif isinstance(module, nn.Conv2d):
                gain = 1.0 if name == "patch_embed.proj" else 2.0**0.5  # the stem's convolutions feed a GELU
                nn.init.trunc_normal_(module.weight, std=gain * module.weight[0].numel() ** -0.5)
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                nn.init.zeros_(parameter)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)
        if isinstance(self.pos_embed, nn.Parameter) and self.config.pos_embed_std:
            nn.init.trunc_normal_(self.pos_embed, std=self.config.pos_embed_std)
        if self.attn_pool is not None:
            nn.init.trunc_normal_(self.attn_pool.latent, std=self.config.embed_dim**-0.5)

    def forward_features(self, images: Tensor) -> Tensor:
        """The encoder's output tokens: (B, C, rows, columns) -> (B, N, D), the class token first if there is one."""
        tokens = self.patch_embed(self.normalize(images))
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        tokens = self.pos_drop(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def pool(self, tokens: Tensor) -> Tensor:
        """The one vector that the head reads: (B, N, D) -> (B, D)."""
        if self.config.global_pool == "token":
            return tokens[:, 0]
        patches = tokens[:, int(self.config.class_token) :]
        if self.attn_pool is not None:
            return self.attn_pool(patches)
        return self.fc_norm(patches.mean(dim=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.head_drop(self.pool(self.forward_features(images))))
