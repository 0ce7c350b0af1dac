"""The parts Vision Transformers are built from.

Parameter names follow timm's, so that published weights need no map.

Shapes: B images, C channels, N tokens, D embed_dim, H heads, K head_dim
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.errors import ConfigError
from vitrail.models.padding import shrunk

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


class Normalize(nn.Module):
    """Images scaled by each channel's mean and deviation; both are buffers, so weights never meet other statistics.

    (B, C, rows, columns), uint8 in 0..255 or float in 0..1 -> the same shape, float32. Raises ConfigError for images of
    another shape, which would be broadcast to this one, and of other types, whose range is not known.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.mean.shape[1])
        if images.dtype == torch.uint8:
            return (images.float() - self.mean * 255) / (self.std * 255)
        if not images.is_floating_point():
            raise ConfigError(
                "The model takes images as uint8 in 0..255 or as float in 0..1, not "
                f"{str(images.dtype).removeprefix('torch.')}; convert them first, bytes with images.to(torch.uint8)"
            )
        return (images.float() - self.mean) / self.std


def check_images(images: Tensor, in_chans: int, patch_size: tuple[int, int] = (1, 1)) -> None:
    """Raise ConfigError unless `images` is (B, in_chans, rows, columns) with rows and columns in whole patches."""
    fits = images.ndim == 4 and images.shape[1] == in_chans
    if not fits or images.shape[2] % patch_size[0] or images.shape[3] % patch_size[1] or 0 in images.shape[1:]:
        sides = "" if patch_size == (1, 1) else f", in multiples of {patch_size[0]} and {patch_size[1]} pixels"
        raise ConfigError(
            f"The model takes images of (batch, channels, rows, columns) (B, {in_chans}, rows, columns){sides}, "
            f"not {tuple(images.shape)}; resize them, or create the model with another in_chans or patch_size"
        )


class PatchEmbed(nn.Module):
    """Non-overlapping patches, each projected to one token. Dosovitskiy et al. 2021, equation 1.

    (B, C, rows, columns) -> (B, N, D), patches in row-major order. With `norm_eps` their values are normalised before
    and their tokens after the projection (Kumar et al. 2023, "Dual PatchNorm").
    """

    def __init__(
        self, patch_size: tuple[int, int], in_chans: int, embed_dim: int, norm_eps: float | None = None
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        num_values = in_chans * patch_size[0] * patch_size[1]
        self.pre_norm = nn.Identity() if norm_eps is None else nn.LayerNorm(num_values, eps=norm_eps)
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(embed_dim, eps=norm_eps)

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of patches of an image of so many pixels."""
        return rows // self.patch_size[0], columns // self.patch_size[1]

    def forward(self, images: Tensor, real: Tensor | None = None) -> Tensor:
        check_images(images, self.proj.in_channels, self.patch_size)
        # The strided convolution is a matrix product over patches; written as one it is faster on CPUs,
        # where small kernels leave convolution code with little to reuse.
        batch, channels = images.shape[:2]
        grid_rows, grid_columns = self.grid(*images.shape[2:])
        rows, columns = self.patch_size
        patches = images.reshape(batch, channels, grid_rows, rows, grid_columns, columns)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid_rows * grid_columns, -1)
        return self.norm(F.linear(self.pre_norm(patches), self.proj.weight.flatten(1), self.proj.bias))


class ConvStem(nn.Module):
    """Overlapping 3x3 convolutions of stride 2 in place of one patch projection. Xiao et al. 2021, section 3.

    (B, C, rows, columns) -> (B, N, D): each convolution halves the maps, so log2(patch_size) of them give one token for
    patch_size x patch_size pixels; sizes that do not divide are rounded up. The first is D/2 wide, the others D.
    Small models trained on few images need far fewer of them than with a linear projection. `real` (B, rows, columns),
    bool, says which pixels are no padding.
    """

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.in_chans = in_chans
        num_convs = patch_size.bit_length() - 1
        widths = [in_chans, embed_dim // 2, *[embed_dim] * (num_convs - 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.act = nn.GELU()

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of patches of an image of so many pixels."""
        return -(-rows // self.patch_size[0]), -(-columns // self.patch_size[1])

    def forward(self, images: Tensor, real: Tensor | None = None) -> Tensor:
        check_images(images, self.in_chans)
        maps = images
        for conv in self.convs:
            maps = self.act(conv(maps))
            if real is not None:  # beyond an image's border a convolution must see zeros, as it does for one alone
                real = shrunk(real, (2, 2))
                maps = maps * real[:, None]
        return maps.flatten(2).transpose(1, 2)


def make_stem(
    stem: str, patch_size: tuple[int, int], in_chans: int, embed_dim: int, norm_eps: float | None = None
) -> PatchEmbed | ConvStem:
    """What makes tokens of pixels: a projection of each patch for stem=linear, convolutions for stem=conv."""
    if stem == "linear":
        return PatchEmbed(patch_size, in_chans, embed_dim, norm_eps)
    return ConvStem(patch_size[0], in_chans, embed_dim)


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


class SwiGlu(nn.Module):
    """Two linear layers with a gate between them, on each token alone: (B, N, D) -> (B, N, D). Shazeer 2020.

    `fc1` holds gate and value, one after the other, as timm's SwiGLUPacked does.
    """

    def __init__(self, dim: int, hidden_dim: int, *, bias: bool = True, drop: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden_dim, bias=bias)
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_dim, dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, tokens: Tensor) -> Tensor:
        gate, value = self.fc1(tokens).chunk(2, dim=-1)
        return self.drop2(self.fc2(self.drop1(F.silu(gate) * value)))


class LayerScale(nn.Module):
    """Each channel of a branch times a learned factor, small at the start. Touvron et al. 2021 (CaiT), section 2."""

    def __init__(self, dim: int, init_values: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init_values))

    def forward(self, branch: Tensor) -> Tensor:
        return branch * self.gamma


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

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, act_layer: str = "gelu", eps: float = 1e-6) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer)

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        batch, num_tokens, dim = tokens.shape
        head_dim = dim // self.num_heads
        query = self.q(self.latent).expand(batch, -1, -1).view(batch, 1, self.num_heads, head_dim).transpose(1, 2)
        kv = self.kv(tokens).view(batch, num_tokens, 2, self.num_heads, head_dim)
        key, value = kv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, N, K)
        pooled = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask).transpose(1, 2).flatten(2)
        pooled = self.proj(pooled)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


def init_weights(model: nn.Module) -> None:
    """Truncated normal of deviation 0.02, wider in the stem `patch_embed`, zero biases; as the paper's code and timm.

    A 1x1 convolution beyond the stem is a linear layer at each position, and starts as one.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.startswith("patch_embed."):
            gain = 1.0 if name == "patch_embed.proj" else 2.0**0.5  # the stem's convolutions feed a GELU
            nn.init.trunc_normal_(module.weight, std=gain * module.weight[0].numel() ** -0.5)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            nn.init.zeros_(parameter)
