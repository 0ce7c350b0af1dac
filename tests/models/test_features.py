import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.errors import ConfigError
from vitrail.models.features import Features
from vitrail.models.vit import VisionTransformer

Build = Callable[..., VisionTransformer]
Draw = Callable[..., Tensor]

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mean": {"global_pool": "avg", "class_token": False},
    "map": {"global_pool": "map"},
    "registers": {"reg_tokens": 2, "global_pool": "token_avg", "init_values": 0.5, "no_embed_class": True},
    "rope": {"pos_embed": "rope", "qk_norm": True, "mlp_layer": "swiglu"},
    "distilled": {"distilled": True, "head_dim": 5},
}


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(dim=-1) @ value


@pytest.mark.parametrize("name", SETTINGS)
def test_features_have_the_shapes_they_say(tiny_vit: Build, images: Draw, name: str) -> None:
    model = tiny_vit(depth=3, **SETTINGS[name])
    features = model.features(images(2, 3, 8, 16))
    prefix, head_dim = model.num_prefix_tokens, model.config.head_dim or 8
    assert isinstance(features, Features)
    assert (features.grid, features.num_prefix_tokens, len(features.blocks)) == ((2, 4), prefix, 3)
    width = 48 if name in {"registers", "distilled"} else 24
    assert (features.tokens.shape, features.pooled.shape) == ((2, prefix + 8, 24), (2, width))
    assert features.logits.shape == (2, 5)
    for block in features.blocks:
        assert block.tokens.shape == (2, prefix + 8, 24)
        assert {block.query.shape, block.key.shape, block.value.shape, block.heads.shape} == {
            (2, 3, prefix + 8, head_dim)
        }


@pytest.mark.parametrize("name", SETTINGS)
def test_each_part_follows_from_the_one_before(tiny_vit: Build, images: Draw, name: str) -> None:
    model, batch = tiny_vit(**SETTINGS[name]), images(2, 3, 12, 12)
    features, embedded = model.features(batch), model.embed(batch)
    tokens = embedded.tokens
    for block, inside in zip(model.blocks, features.blocks, strict=True):
        query, key, value = block.attn.split(block.norm1(tokens), embedded.rotation)
        torch.testing.assert_close([*inside[1:4]], [query, key, value])
        expected = softmax_attention(inside.query, inside.key, inside.value)
        torch.testing.assert_close(inside.heads, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(inside.tokens, block(tokens, rotation=embedded.rotation), rtol=1e-4, atol=1e-4)
        tokens = inside.tokens
    torch.testing.assert_close(features.tokens, model.norm(tokens))
    torch.testing.assert_close(features.pooled, model.pool(features.tokens))
    torch.testing.assert_close(features.logits, model.classify(features.pooled))
    torch.testing.assert_close(features.logits, model(batch), rtol=1e-4, atol=1e-4)


def test_queries_are_those_that_meet_the_keys(tiny_vit: Build, images: Draw) -> None:
    """Of a plain block: a third each of what `qkv` gives, head by head."""
    model, batch = tiny_vit(), images(2, 3, 12, 12)
    attn, first = model.blocks[0].attn, model.features(batch).blocks[0]
    qkv = F.linear(model.blocks[0].norm1(model.embed(batch).tokens), attn.qkv.weight, attn.qkv.bias)
    for part, expected in zip((first.query, first.key, first.value), qkv.chunk(3, dim=-1), strict=True):
        torch.testing.assert_close(part.transpose(1, 2).flatten(2), expected, rtol=1e-4, atol=1e-5)


def test_masked_patches_are_left_out_of_the_heads(tiny_vit: Build, images: Draw) -> None:
    model, batch = tiny_vit(global_pool="avg"), images(2, 3, 12, 12)
    mask = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1, 1], dtype=torch.bool).view(1, 3, 3).expand(2, -1, -1)
    features = model.features(batch, mask=mask)
    torch.testing.assert_close(features.logits, model(batch, mask=mask), rtol=1e-4, atol=1e-4)
    kept = torch.cat([torch.tensor([True]), mask[0].flatten()])
    last = features.blocks[-1]
    expected = softmax_attention(last.query, last.key[:, :, kept], last.value[:, :, kept])
    torch.testing.assert_close(last.heads, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.pooled, model.fc_norm(features.tokens[:, kept][:, 1:].mean(dim=1)))


def test_gradients_pass_through_features(tiny_vit: Build, images: Draw) -> None:
    model, batch = tiny_vit(), images(2, 3, 12, 12)
    first, second = (batch.clone().requires_grad_() for _ in range(2))
    model.features(first).logits.square().sum().backward()
    model(second).square().sum().backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-3, atol=1e-4)


def test_merged_tokens_have_no_features(tiny_vit: Build, images: Draw) -> None:
    model, batch = tiny_vit(), images(2, 3, 12, 12)
    model.merge_tokens(1)
    message = "Merged tokens have no place in the image; take features with merge_tokens(0)"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        model.features(batch)
    model.merge_tokens(0)
    assert model.features(batch).logits.shape == (2, 5)
