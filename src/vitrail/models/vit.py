"""The Vision Transformer of Dosovitskiy et al. 2021 with the choices that the field has added since.

Parameter names follow timm's. `paper.py` is the same model with nothing optional, to read first.

Shapes: B images, C channels, N tokens, P patches, D embed_dim
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from vitrail.errors import ConfigError
from vitrail.models.attention import Attention
from vitrail.models.features import BlockFeatures, Features
from vitrail.models.layers import (
    AttentionPool,
    DropPath,
    LayerScale,
    Mlp,
    Normalize,
    SwiGlu,
    check_images,
    init_weights,
    make_stem,
)
from vitrail.models.merging import encode_merging
from vitrail.models.padding import check_patch_mask, check_sizes, inside, shrunk, split_mask
from vitrail.models.positions import Rotation, resize_pos_embed, rotary_positions, sincos2d_pos_embed
from vitrail.models.vit_config import ViTConfig


class Block(nn.Module):
    """Pre-norm encoder block, equations 2 and 3 of the paper: (B, N, D) -> (B, N, D)."""

    def __init__(self, config: ViTConfig, drop_path_rate: float) -> None:
        super().__init__()
        dim, init_values = config.embed_dim, config.init_values
        self.norm1 = nn.LayerNorm(dim, eps=config.norm_eps)
        self.attn = Attention(
            dim,
            config.num_heads,
            config.head_dim or dim // config.num_heads,
            qkv_bias=config.qkv_bias,
            proj_bias=config.proj_bias,
            qk_norm_eps=config.norm_eps if config.qk_norm else None,
            attn_drop=config.attn_drop_rate,
            proj_drop=config.proj_drop_rate,
        )
        self.ls1 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.drop_path1 = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(dim, eps=config.norm_eps)
        hidden_dim = int(dim * config.mlp_ratio)
        self.mlp = (
            Mlp(dim, hidden_dim, config.act_layer, bias=config.mlp_bias, drop=config.proj_drop_rate)
            if config.mlp_layer == "mlp"
            else SwiGlu(dim, hidden_dim, bias=config.mlp_bias, drop=config.proj_drop_rate)
        )
        self.ls2 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.drop_path2 = DropPath(drop_path_rate)

    def forward(
        self,
        tokens: Tensor,
        attn_mask: Tensor | None = None,
        rotation: Rotation | None = None,
        num_queries: int | None = None,
    ) -> Tensor:
        """The block's output; with `num_queries` of the first so many tokens only, (B, num_queries, D)."""
        attended = self.attn(self.norm1(tokens), attn_mask, rotation, num_queries)
        if num_queries is not None:
            tokens = tokens[:, :num_queries]
        return self.finish(tokens, attended)

    def finish(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block, given what attention makes of its tokens."""
        tokens = tokens + self.drop_path1(self.ls1(attended))
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))


class Embedded(NamedTuple):
    """What the first block sees: tokens (B, N, D), which patches take part (bool, B, P), and how they are turned."""

    tokens: Tensor
    patch_mask: Tensor | None
    rotation: Rotation | None
    grid: tuple[int, int]


class VisionTransformer(nn.Module):
    """Images to logits: (B, C, rows, columns), uint8 in 0..255 or float in 0..1 -> (B, num_classes).

    Images may be larger or smaller than the config's `image_size`: position embeddings are resized to their grid of
    patches. `mask` (B, rows, columns of patches), bool, leaves patches out where it is false: they are neither attended
    to nor counted in the mean. `sizes` (B, 2) are the rows and columns in pixels of images that are padded to one size
    (`padding.pad_images`); each has the logits it has alone. With the config's `padding_mask`, images have one more
    channel, which says where each is padded wherever it lies (`data.fit=native`).
    Raises ConfigError for images, masks and sizes that do not fit.
    """

    pos_embed: Tensor | None

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_prefix_tokens = config.num_prefix_tokens
        self.merged_tokens = 0  # patches merged in each block at inference; `merge_tokens` sets it
        dim, eps = config.embed_dim, config.norm_eps
        self.normalize = Normalize(*config.scaling())
        norm_eps = eps if config.patch_norm else None
        self.patch_embed = make_stem(config.stem, config.patch_size, config.in_chans, dim, norm_eps)
        self.grid = self.patch_embed.grid(*config.image_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.class_token else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim)) if config.distilled else None
        self.reg_token = nn.Parameter(torch.zeros(1, config.reg_tokens, dim)) if config.reg_tokens else None
        self._add_pos_embed()
        self.pos_drop = nn.Dropout(config.pos_drop_rate)
        rates = [config.drop_path_rate * index / max(config.depth - 1, 1) for index in range(config.depth)]
        self.blocks = cast("list[Block]", nn.ModuleList(Block(config, rate) for rate in rates))
        # As in timm: the mean is normalised after pooling, the others before.
        pooled_dim = 2 * dim if config.global_pool == "token_avg" else dim
        self.norm = nn.Identity() if config.norm_after_pooling else nn.LayerNorm(dim, eps=eps)
        self.attn_pool = (
            AttentionPool(dim, config.num_heads, config.mlp_ratio, config.act_layer, eps)
            if config.global_pool == "map"
            else None
        )
        self.fc_norm = nn.LayerNorm(pooled_dim, eps=eps) if config.norm_after_pooling else nn.Identity()
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = nn.Linear(pooled_dim, config.num_classes)
        self.head_dist = nn.Linear(dim, config.num_classes) if config.distilled else None
        self._init_weights()

    def _add_pos_embed(self) -> None:
        config = self.config
        num_prefix = 0 if config.no_embed_class else self.num_prefix_tokens
        if config.pos_embed == "learn":
            num_positions = num_prefix + self.grid[0] * self.grid[1]
            self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, config.embed_dim))
        elif config.pos_embed == "sincos2d":  # prefix tokens have no place in the image
            self.register_buffer("pos_embed", sincos2d_pos_embed(self.grid, config.embed_dim), persistent=False)
        else:
            self.pos_embed = None

    def _init_weights(self) -> None:
        init_weights(self)
        for token in (self.cls_token, self.dist_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        if isinstance(self.pos_embed, nn.Parameter) and self.config.pos_embed_std:
            nn.init.trunc_normal_(self.pos_embed, std=self.config.pos_embed_std)
        if self.attn_pool is not None:
            nn.init.trunc_normal_(self.attn_pool.latent, std=self.config.embed_dim**-0.5)

    def embed(self, images: Tensor, mask: Tensor | None = None, sizes: Tensor | None = None) -> Embedded:
        """The tokens that the first block sees, with what is to be known of their patches."""
        real = None  # bool (B, rows, columns): which pixels are no padding
        if images.ndim == 4 and sizes is not None:
            check_sizes(sizes, images)
            sizes = sizes.to(images.device)
            real = inside(sizes, (images.shape[2], images.shape[3]))
        if self.config.padding_mask:
            check_images(images, self.config.input_channels)
            images, stated = split_mask(images)
            real = stated if real is None else stated & real
        patches = self.patch_embed(self._normalized(images, real), real)  # (B, P, D)
        grid = self.patch_embed.grid(images.shape[2], images.shape[3])
        grids = None if sizes is None else self._grids(sizes)
        patch_mask = self._patch_mask(mask, images, grid, real)
        patches, prefix = self._add_positions(patches, grid, grids)
        rotation = self._rotation(grid, grids, images.device)
        if self.training and self.config.patch_drop_rate:
            if patch_mask is not None:
                raise ConfigError(
                    "patch_drop_rate and masked or padded images do not go together in training; leave one of them out"
                )
            patches, rotation = self._drop_patches(patches, rotation)
        tokens = torch.cat([*(token.expand(patches.shape[0], -1, -1) for token in prefix), patches], dim=1)
        return Embedded(self.pos_drop(tokens), patch_mask, rotation, grid)

    def _normalized(self, images: Tensor, real: Tensor | None) -> Tensor:
        """Images scaled, what is padding zero afterwards, as beyond the border of an image alone."""
        images = self.normalize(images)
        return images if real is None else images * real[:, None]

    def _grids(self, sizes: Tensor) -> Tensor:
        """Rows and columns of patches (B, 2) of images of `sizes`."""
        patch_size = sizes.new_tensor(self.config.patch_size)
        if self.config.stem == "linear" and bool((sizes % patch_size).any()):
            raise ConfigError(
                f"sizes of images are not all multiples of patch_size={'x'.join(map(str, self.config.patch_size))}; "
                "resize them"
            )
        return -(-sizes // patch_size)

    def _patch_mask(
        self, mask: Tensor | None, images: Tensor, grid: tuple[int, int], real: Tensor | None
    ) -> Tensor | None:
        """Which patches take part, bool (B, P): those of the mask that are not all padding; none: all of them."""
        if real is not None:
            real = shrunk(real, self.config.patch_size)
        if mask is None:
            return None if real is None else real.flatten(1)
        reads_prefix = self.config.global_pool in ("token", "token_avg")
        check_patch_mask(mask, images.shape[0], grid, reads_prefix)
        mask = mask.to(images.device)
        if real is not None:
            mask = mask & real
            check_patch_mask(mask, images.shape[0], grid, reads_prefix)  # what it keeps may all be padding
        return mask.flatten(1)

    def _add_positions(
        self, patches: Tensor, grid: tuple[int, int], grids: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Patches and prefix tokens, with their position embeddings if they have such."""
        learned = (self.cls_token, self.dist_token, self.reg_token)
        prefix: list[Tensor] = [token for token in learned if token is not None]
        if self.pos_embed is None:
            return patches, prefix
        num_prefix = self.pos_embed.shape[1] - self.grid[0] * self.grid[1]
        of_prefix, of_patches = self.pos_embed[:, :num_prefix], self.pos_embed[:, num_prefix:]
        if num_prefix:
            prefix = [torch.cat(prefix, dim=1) + of_prefix] if len(prefix) > 1 else [prefix[0] + of_prefix]
        if grids is None:
            return patches + self._positions(of_patches, grid), prefix
        canvas = patches.new_zeros(len(patches), *grid, patches.shape[2])
        for rows, columns in set(map(tuple, grids.tolist())):
            of_grid = self._positions(of_patches, (rows, columns)).view(rows, columns, -1)
            same = (grids == grids.new_tensor((rows, columns))).all(dim=1)
            canvas[same, :rows, :columns] = of_grid.to(canvas.dtype)
        return patches + canvas.flatten(1, 2), prefix

    def _positions(self, own: Tensor, grid: tuple[int, int]) -> Tensor:
        """Position embeddings for a grid, from those of the model's own."""
        if self.config.pos_embed == "sincos2d" and grid != self.grid:
            return sincos2d_pos_embed(grid, self.config.embed_dim).to(own.device)
        return resize_pos_embed(own, self.grid, grid, self.config.pos_embed_antialias)

    def _rotation(self, grid: tuple[int, int], grids: Tensor | None, device: torch.device) -> Rotation | None:
        if self.config.pos_embed != "rope":
            return None
        head_dim = self.config.head_dim or self.config.embed_dim // self.config.num_heads
        temperature = self.config.rope_temperature
        if grids is None:
            return Rotation(*(part.to(device) for part in rotary_positions(grid, head_dim, temperature)))
        canvas = torch.zeros(2, len(grids), *grid, head_dim, device=device)
        for index, (rows, columns) in enumerate(grids.tolist()):
            own = torch.stack(rotary_positions((rows, columns), head_dim, temperature)).to(device)
            canvas[:, index, :rows, :columns] = own.view(2, rows, columns, head_dim)
        sin, cos = canvas.flatten(2, 3)[:, :, None]  # each (B, 1, P, K)
        return Rotation(sin, cos)

    def _drop_patches(self, patches: Tensor, rotation: Rotation | None) -> tuple[Tensor, Rotation | None]:
        """Some patches of each image, drawn anew each time. Liu et al. 2022, "PatchDropout"."""
        batch, num_patches, dim = patches.shape
        num_kept = max(1, round(num_patches * (1 - self.config.patch_drop_rate)))
        kept = torch.rand(batch, num_patches, device=patches.device).argsort(dim=1)[:, :num_kept, None]
        patches = patches.gather(1, kept.expand(-1, -1, dim))
        if rotation is not None:
            rotation = Rotation(*(part[kept[..., 0]][:, None] for part in rotation))  # each (B, 1, kept, K)
        return patches, rotation

    def _attn_mask(self, patch_mask: Tensor | None) -> Tensor | None:
        """Which keys take part, (B, 1, 1, N): broadcast over heads and queries, no N x N mask is made."""
        if patch_mask is None:
            return None
        prefix = patch_mask.new_ones(patch_mask.shape[0], self.num_prefix_tokens)
        return torch.cat([prefix, patch_mask], dim=1)[:, None, None]

    def _encode(self, embedded: Embedded, num_queries: int | None = None) -> Tensor:
        """The encoder's output tokens, or the first `num_queries` of them, which spares most of the last block."""
        tokens, attn_mask = embedded.tokens, self._attn_mask(embedded.patch_mask)
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, attn_mask, embedded.rotation, num_queries if index == last else None)
        return self.norm(tokens)

    def forward_features(self, images: Tensor, mask: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        """The encoder's output tokens: (B, C, rows, columns) -> (B, N, D), prefix tokens first."""
        return self._encode(self.embed(images, mask, sizes))

    def pool(self, tokens: Tensor, patch_weights: Tensor | None = None) -> Tensor:
        """What the head reads, of output tokens (B, N, D): (B, D), twice as wide for token_avg and distilled models.

        `patch_weights` (B, P) count each patch in means: 0 or false leaves it out.
        """
        pool = self.config.global_pool
        if self.config.distilled:
            return tokens[:, :2].flatten(1)
        if pool == "token":
            return self.fc_norm(tokens[:, 0])
        patches = tokens[:, self.num_prefix_tokens :]
        if self.attn_pool is not None:
            attn_mask = None if patch_weights is None else patch_weights[:, None, None] > 0
            return self.fc_norm(self.attn_pool(patches, attn_mask))
        if patch_weights is None:
            mean = patches.mean(dim=1)
        else:
            weights = patch_weights.to(patches.dtype)[..., None]
            mean = (patches * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return self.fc_norm(mean if pool == "avg" else torch.cat([tokens[:, 0], mean], dim=1))

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (B, num_classes) of what `pool` gives."""
        pooled = self.head_drop(pooled)
        if self.head_dist is None:
            return self.head(pooled)
        of_class, of_teacher = pooled.chunk(2, dim=1)
        return (self.head(of_class) + self.head_dist(of_teacher)) / 2

    def forward(self, images: Tensor, mask: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        return self.classify(self.forward_pooled(images, mask, sizes))

    def forward_pooled(self, images: Tensor, mask: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        """The vector that the head reads, as `pool` gives it: (B, C, rows, columns) -> (B, D)."""
        embedded = self.embed(images, mask, sizes)
        if self.merged_tokens and not self.training:
            return self._pool_merged(embedded)
        # A head that reads prefix tokens alone leaves nothing to do for the patches in the last block.
        num_queries = 1 + self.config.distilled if self.config.global_pool == "token" else None
        return self.pool(self._encode(embedded, num_queries), embedded.patch_mask)

    def _pool_merged(self, embedded: Embedded) -> Tensor:
        if embedded.patch_mask is not None:
            raise ConfigError("Merged tokens and masked or padded images do not go together; leave one of them out")
        tokens, weights = encode_merging(self.blocks, embedded.tokens, self.merged_tokens, self.num_prefix_tokens)
        return self.pool(self.norm(tokens), weights[:, self.num_prefix_tokens :, 0])

    def merge_tokens(self, number: int) -> None:
        """Merge so many patches in each block at inference, 0 for none; weights stay, logits change a little.

        Raises ConfigError for what is no number of 0 or more, and for models whose patches cannot be merged.
        """
        if type(number) is not int or number < 0:
            raise ConfigError(f"merge_tokens={number} is not possible; use 0 or more")
        if number and self.config.padding_mask:
            raise ConfigError("Tokens of a model for fit=native cannot be merged: some are padding; use merge_tokens=0")
        if number and (self.config.pos_embed == "rope" or self.config.global_pool == "map"):
            reason = (
                "pos_embed='rope' cannot be merged: a merged one has no one place"
                if self.config.pos_embed == "rope"
                else "global_pool='map' cannot be merged: its pooling counts each token once"
            )
            raise ConfigError(f"Tokens of a model with {reason}")
        self.merged_tokens = number

    def features(self, images: Tensor, mask: Tensor | None = None, sizes: Tensor | None = None) -> Features:
        """Tokens, query, key, value and head output of each block, what is pooled, and the logits of `forward`."""
        if self.merged_tokens and not self.training:
            raise ConfigError("Merged tokens have no place in the image; take features with merge_tokens(0)")
        embedded = self.embed(images, mask, sizes)
        tokens, attn_mask = embedded.tokens, self._attn_mask(embedded.patch_mask)
        blocks: list[BlockFeatures] = []
        for block in self.blocks:
            normed = block.norm1(tokens)
            query, key, value = block.attn.split(normed, embedded.rotation)
            heads = block.attn.mix(query, key, value, attn_mask)
            tokens = block.finish(tokens, block.attn.join(heads))
            blocks.append(BlockFeatures(tokens, query, key, value, heads, normed))
        tokens = self.norm(tokens)
        pooled = self.pool(tokens, embedded.patch_mask)
        logits = self.classify(pooled)
        prefix, mask = self.num_prefix_tokens, embedded.patch_mask
        return Features(tuple(blocks), tokens, pooled, logits, embedded.grid, prefix, mask)
