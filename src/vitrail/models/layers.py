"""The parts Vision Transformers are built from.

Parameter names follow timm's, so that published weights need no map.

Shapes: B images, C channels, N tokens, D embed_dim, H heads, K head_dim
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.errors import ConfigError

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class Normalize(nn.Module):
    """Images scaled by each channel's mean and deviation; both are buffers, so weights never meet other statistics.

    (B, C, rows, columns), uint8 in 0..255 or float in 0..1 -> the same shape, float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            return (images.float() - self.mean * 255) / (self.std * 255)
        return (images.float() - self.mean) / self.std


def check_image_shape(images: Tensor, in_chans: int, image_size: tuple[int, int]) -> None:
    """Raise ConfigError unless `images` is (B, in_chans, *image_size)."""
    expected = (in_chans, *image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        raise ConfigError(
            f"The model takes images of (batch, channels, rows, columns) (B, {', '.join(map(str, expected))}), "
            f"not {tuple(images.shape)}; resize them, or create the model with another image_size and in_chans"
        )


class PatchEmbed(nn.Module):
    """Non-overlapping patches, each projected to one token. Dosovitskiy et al. 2021, equation 1.

    (B, C, rows, columns) -> (B, N, D), patches in row-major order.
    """

    def __init__(self, image_size: tuple[int, int], patch_size: tuple[int, int], in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.patch_size = patch_size
        self.grid = (image_size[0] // patch_size[0], image_size[1] // patch_size[1])
        self.num_patches = self.grid[0] * self.grid[1]
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        check_image_shape(images, self.proj.in_channels, self.image_size)
        # The strided convolution is a matrix product over patches; written as one it is faster on CPUs,
        # where small kernels leave convolution code with little to reuse.
        batch, channels = images.shape[:2]
        (grid_rows, grid_columns), (rows, columns) = self.grid, self.patch_size
        patches = images.view(batch, channels, grid_rows, rows, grid_columns, columns)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.num_patches, channels * rows * columns)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(nn.Module):
    """Overlapping 3x3 convolutions of stride 2 in place of one patch projection. Xiao et al. 2021, section 3.

    (B, C, rows, columns) -> (B, N, D): each convolution halves the maps, so log2(patch_size) of them give one token for
    patch_size x patch_size pixels; sizes that do not divide are rounded up. The first is D/2 wide, the others D.
    Small models trained on few images need far fewer of them than with a linear projection.
    """

    def __init__(self, image_size: tuple[int, int], patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = (-(-image_size[0] // patch_size), -(-image_size[1] // patch_size))
        self.num_patches = self.grid[0] * self.grid[1]
        self.in_chans = in_chans
        num_convs = patch_size.bit_length() - 1
        widths = [in_chans, embed_dim // 2, *[embed_dim] * (num_convs - 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.act = nn.GELU()

    def forward(self, images: Tensor) -> Tensor:
        check_image_shape(images, self.in_chans, self.image_size)
        for conv in self.convs:
            images = self.act(conv(images))
        return images.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention. Vaswani et al. 2017, section 3.2; scores are scaled by head_dim^-0.5.

    (B, N, D) -> (B, N, D). The inner width is num_heads * head_dim, whatever D is.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        *,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.attn_drop_rate = attn_drop
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias)
        self.proj = nn.Linear(num_heads * head_dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, num_tokens, _ = tokens.shape
        qkv = self.qkv(tokens).view(batch, num_tokens, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, N, K)
        dropout = self.attn_drop_rate if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """Two linear layers with an activation between them, on each token alone: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden_dim: int, act_layer: str = "gelu", *, bias: bool = True, drop: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim, bias=bias)
        self.act = ACTIVATIONS[act_layer]()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_dim, dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(tokens)))))


class DropPath(nn.Module):
    """Stochastic depth: in training, a whole residual branch is left out of some images of the batch.

    Kept branches are scaled by 1 / (1 - rate), so that the expectation stays. Huang et al. 2016.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return branch
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        keep = torch.rand(shape, device=branch.device) >= self.rate
        return branch * keep / (1.0 - self.rate)


class AttentionPool(nn.Module):
    """One learned query that attends to all tokens, then an MLP: (B, N, D) -> (B, D).

    The "map" head of Zhai et al. 2022, section 4.1; named and shaped as timm's AttentionPoolLatent.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, act_layer: str = "gelu") -> None:
        super().__init__()
        self.num_heads = num_heads
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, num_tokens, dim = tokens.shape
        head_dim = dim // self.num_heads
        query = self.q(self.latent).expand(batch, -1, -1).view(batch, 1, self.num_heads, head_dim).transpose(1, 2)
        kv = self.kv(tokens).view(batch, num_tokens, 2, self.num_heads, head_dim)
        key, value = kv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, N, K)
        pooled = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        pooled = self.proj(pooled)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


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
