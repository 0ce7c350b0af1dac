import pytest
import torch
from torch import Tensor, nn

from vitrail.models.attention import Attention


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
