"""Self-attention over tokens.

Shapes: B images, N tokens, D embed_dim, H heads, K head_dim
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.models.positions import Rotation, rotate


class Attention(nn.Module):
    """Multi-head self-attention. Vaswani et al. 2017, section 3.2; scores are scaled by head_dim^-0.5.

    (B, N, D) -> (B, N, D). The inner width is num_heads * head_dim, whatever D is. With qk_norm, queries and keys are
    normalised over K first (Dehghani et al. 2023, section 2).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        head_dim: int,
        *,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        qk_norm_eps: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.attn_drop_rate = attn_drop
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias)
        self.q_norm = nn.Identity() if qk_norm_eps is None else nn.LayerNorm(head_dim, eps=qk_norm_eps)
        self.k_norm = nn.Identity() if qk_norm_eps is None else nn.LayerNorm(head_dim, eps=qk_norm_eps)
        self.proj = nn.Linear(num_heads * head_dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def split(
        self, tokens: Tensor, rotation: Rotation | None = None, num_queries: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of tokens (B, N, D), each (B, H, N, K); queries of `num_queries` tokens only."""
        batch, num_tokens, _ = tokens.shape
        heads = (self.num_heads, self.head_dim)
        if num_queries is None:
            # Split before heads and tokens change places: so backward writes the gradients side by side at once.
            query, key, value = self.qkv(tokens).view(batch, num_tokens, 3, *heads).unbind(2)
        else:
            inner, weight, bias = self.num_heads * self.head_dim, self.qkv.weight, self.qkv.bias
            biases = (bias[:inner], bias[inner:]) if self.qkv_bias else (None, None)
            query = F.linear(tokens[:, :num_queries], weight[:inner], biases[0])
            query = query.view(batch, num_queries, *heads)
            key, value = F.linear(tokens, weight[inner:], biases[1]).view(batch, num_tokens, 2, *heads).unbind(2)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        query, key = self.q_norm(query), self.k_norm(key)
        if rotation is not None:
            key = rotate(key, rotation)
            if num_queries is None:  # else they belong to prefix tokens, which have no position
                query = rotate(query, rotation)
        return query, key, value

    def mix(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Each head's mixture of values, (B, H, N, K).

        `attn_mask` (B, 1, 1, N) says which keys take part (bool), or is added to their scores (float).
        """
        dropout = self.attn_drop_rate if self.training else 0.0
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, dropout_p=dropout)

    def mix_few(self, tokens: Tensor, num_queries: int, attn_mask: Tensor | None = None) -> Tensor:
        """What `mix` gives for the first few tokens, (B, H, num_queries, K), without any token's key or value.

        As q . (W x) = (q W) . x, the few queries go through the keys' weights in place of all tokens, and the mixture
        of tokens through the values'. The keys' bias adds the same to all scores of a query; softmax does not see it.
        """
        batch, _, dim = tokens.shape
        heads = (self.num_heads, self.head_dim)
        of_query, of_key, of_value = self.qkv.weight.view(3, *heads, dim).unbind(0)  # each (H, K, D)
        biases = self.qkv.bias.view(3, -1).unbind(0) if self.qkv_bias else (None, None, None)
        query = F.linear(tokens[:, :num_queries], of_query.flatten(0, 1), biases[0])
        query = query.view(-1, *heads).transpose(0, 1) @ of_key  # (H, B * num_queries, D)
        query = query.transpose(0, 1).reshape(batch, 1, -1, dim)  # heads as further queries of the same tokens
        every, scale = tokens[:, None], self.head_dim**-0.5
        mixture = F.scaled_dot_product_attention(query, every, every, attn_mask=attn_mask, scale=scale)
        values = mixture.view(-1, self.num_heads, dim).transpose(0, 1) @ of_value.transpose(1, 2)
        values = values.transpose(0, 1).view(batch, num_queries, *heads).transpose(1, 2)
        return values if biases[2] is None else values + biases[2].view(-1, 1, self.head_dim)

    def join(self, heads: Tensor) -> Tensor:
        """The heads' mixtures (B, H, N, K) projected together, (B, N, D)."""
        return self.proj_drop(self.proj(heads.transpose(1, 2).flatten(2)))

    def forward(
        self,
        tokens: Tensor,
        attn_mask: Tensor | None = None,
        rotation: Rotation | None = None,
        num_queries: int | None = None,
    ) -> Tensor:
        plain = rotation is None and isinstance(self.k_norm, nn.Identity)
        if num_queries is not None and plain and not (self.training and self.attn_drop_rate):
            return self.join(self.mix_few(tokens, num_queries, attn_mask))
        query, key, value = self.split(tokens, rotation, num_queries)
        return self.join(self.mix(query, key, value, attn_mask))
