"""The Vision Transformer exactly as the paper describes it, with nothing optional: to read and to teach.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929, section 3.1.
`vit.py` is the model that Vitrail trains; with its defaults it has the same parameters under the same names and
gives the same logits, which a test holds.

Shapes: B images, C channels, P patch_size, N patches, D embed_dim, H heads, K = D / H head_dim
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Cut an image into patches and project each to a vector: the E of equation 1."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        # A convolution whose stride is its kernel size looks at each patch once: one matrix product per patch.
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.proj(images)  # (B, D, rows/P, columns/P)
        return maps.flatten(2).transpose(1, 2)  # (B, N, D)


class Attention(nn.Module):
    """Each token asks (query) all tokens (key) what they have to say (value). Appendix A."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, num_tokens, dim = tokens.shape
        qkv = self.qkv(tokens).view(batch, num_tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, N, K)
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5  # (B, H, N, N)
        probabilities = scores.softmax(dim=-1)  # each row sums to 1: where a token looks
        mixed = probabilities @ value  # (B, H, N, K)
        return self.proj(mixed.transpose(1, 2).reshape(batch, num_tokens, dim))


class Mlp(nn.Module):
    """Two layers with a GELU between them, applied to each token alone."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Tokens exchange (attention), then each thinks for itself (MLP): equations 2 and 3."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = Mlp(embed_dim, 4 * embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    """Images, scaled to about -1..1, to logits: (B, C, image_size, image_size) -> (B, num_classes)."""

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
    ) -> None:
        super().__init__()
        num_patches = (image_size // patch_size) ** 2
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + num_patches, embed_dim) * 0.02)
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch_embed(images)  # (B, N, D)
        class_token = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([class_token, tokens], dim=1)  # (B, 1 + N, D), equation 1
        tokens = tokens + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])  # the class token has gathered the answer, equation 4
