import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.models.attention import Attention
from vitrail.models.positions import rotary_positions


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scrambled(module: nn.Module) -> nn.Module:
    """The module with every parameter drawn anew, so that no bias is zero and no scale one."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return module


@pytest.mark.parametrize(("dim", "num_heads", "head_dim"), [(12, 3, 4), (12, 1, 12), (10, 3, 7), (5, 2, 5), (6, 4, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_fused_attention_equals_the_papers_formula(dim: int, num_heads: int, head_dim: int, bias: bool) -> None:
    layer = scrambled(Attention(dim, num_heads, head_dim, qkv_bias=bias, proj_bias=not bias))
    assert isinstance(layer, Attention)
    tokens = noise(2, 9, dim)
    inner_dim = num_heads * head_dim
    heads = []
    for head in range(num_heads):  # appendix A: softmax(q k^T / sqrt(head_dim)) v, each head with its own rows of qkv
        rows = [
            slice(part * inner_dim + head * head_dim, part * inner_dim + (head + 1) * head_dim) for part in range(3)
        ]
        query, key, value = (tokens @ layer.qkv.weight[row].T + (layer.qkv.bias[row] if bias else 0.0) for row in rows)
        heads.append((query @ key.mT * head_dim**-0.5).softmax(dim=-1) @ value)
    expected = torch.cat(heads, dim=-1) @ layer.proj.weight.T + (0.0 if bias else layer.proj.bias)
    torch.testing.assert_close(layer(tokens), expected, rtol=1e-4, atol=1e-5)
    assert (layer.qkv.bias is not None, layer.proj.bias is not None) == (bias, not bias)


def test_attention_dropout_keeps_the_expectation_and_stops_after_training() -> None:
    layer = scrambled(Attention(4, 2, 3, attn_drop=0.5))
    tokens = noise(1, 5, 4).expand(4000, -1, -1)
    torch.manual_seed(0)
    mean = layer(tokens).mean(dim=0)
    layer.eval()
    wanted = layer(tokens)
    torch.testing.assert_close(mean, wanted[0], rtol=0.0, atol=0.05)
    torch.testing.assert_close(wanted, wanted[:1].expand_as(wanted))


# Masks


def masked(num_tokens: int) -> Tensor:
    """Keys that take part (2, 1, 1, N), different ones for each image, the first always."""
    mask = torch.rand(2, 1, 1, num_tokens, generator=torch.Generator().manual_seed(3)) < 0.5
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_fused_attention_with_a_key_mask_equals_softmax_over_the_rest(kind: str) -> None:
    layer = scrambled(Attention(12, 3, 4))
    assert isinstance(layer, Attention)
    tokens, mask = noise(2, 9, 12), masked(9)
    weights = mask.float() if kind == "bool" else torch.rand(2, 1, 1, 9, generator=torch.Generator().manual_seed(4))
    query, key, value = layer.split(tokens)
    scores = (query @ key.mT * 4**-0.5).exp() * weights  # (B, H, N, N), each key counted so many times
    expected = scores / scores.sum(dim=-1, keepdim=True) @ value
    given = mask if kind == "bool" else weights.log()
    torch.testing.assert_close(layer.mix(query, key, value, given), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(tokens, given), layer.join(expected), rtol=1e-4, atol=1e-5)


def test_a_masked_token_changes_nothing() -> None:
    layer = scrambled(Attention(12, 3, 4))
    tokens, mask = noise(2, 9, 12), masked(9)
    others = tokens + ~mask.view(2, 9, 1) * 7.0
    kept = mask.view(2, 9)
    torch.testing.assert_close(layer(others, mask)[kept], layer(tokens, mask)[kept], rtol=1e-4, atol=1e-5)
    assert (layer(others) - layer(tokens))[kept].abs().max() > 1e-2


# Fewer queries


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("qk_norm_eps", [None, 1e-6])
@pytest.mark.parametrize("num_queries", [1, 3, 9])
def test_fewer_queries_give_the_first_tokens(qkv_bias: bool, qk_norm_eps: float | None, num_queries: int) -> None:
    layer = scrambled(Attention(10, 3, 4, qkv_bias=qkv_bias, qk_norm_eps=qk_norm_eps))
    tokens, mask = noise(2, 9, 10), masked(9)
    for given in (None, mask):
        expected = layer(tokens, given)[:, :num_queries]
        torch.testing.assert_close(layer(tokens, given, num_queries=num_queries), expected, rtol=1e-4, atol=1e-5)


def test_fewer_queries_meet_keys_that_are_turned() -> None:
    layer = scrambled(Attention(12, 3, 4))
    tokens, rotation = noise(2, 2 + 6, 12), rotary_positions((2, 3), 4)
    expected = layer(tokens, rotation=rotation)[:, :2]
    torch.testing.assert_close(layer(tokens, None, rotation, 2), expected, rtol=1e-4, atol=1e-5)
    assert (layer(tokens, num_queries=2) - expected).abs().max() > 1e-2


# Norms of queries and keys


def test_queries_and_keys_are_normalised_within_each_head() -> None:
    layer = scrambled(Attention(12, 3, 4, qk_norm_eps=1e-3))
    assert isinstance(layer, Attention)
    plain = Attention(12, 3, 4)
    plain.load_state_dict({name: weight for name, weight in layer.state_dict().items() if "norm" not in name})
    tokens = noise(2, 9, 12)
    query, key, value = plain.split(tokens)
    normed = [
        F.layer_norm(part, (4,), norm.weight, norm.bias, eps=1e-3)
        for part, norm in ((query, layer.q_norm), (key, layer.k_norm))
    ]
    for ours, expected in zip(layer.split(tokens), [*normed, value], strict=True):
        torch.testing.assert_close(ours, expected)
