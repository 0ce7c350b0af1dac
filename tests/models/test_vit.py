import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail.errors import ConfigError
from vitrail.models.layers import DropPath, Normalize
from vitrail.models.vit import Block, VisionTransformer
from vitrail.models.vit_config import ViTConfig

TINY: dict[str, Any] = {
    "image_size": 12,
    "patch_size": 4,
    "in_chans": 3,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def scramble(model: nn.Module) -> None:
    """Draw every parameter anew, so that no bias is zero, no scale one, and attention far from even."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        is_scale = parameter.ndim == 1 and name.endswith("weight")
        parameter.data.normal_(mean=float(is_scale), std=0.3, generator=generator)


def tiny(**settings: Any) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(ViTConfig.model_validate({**TINY, **settings})).eval()
    scramble(model)
    return model


# Properties


def permute_patches(batch: Tensor, patch: int, order: Tensor) -> Tensor:
    patches = nn.functional.unfold(batch, patch, stride=patch)[:, :, order]
    return nn.functional.fold(patches, batch.shape[2:], patch, stride=patch)


@pytest.mark.parametrize(
    "settings", [{"global_pool": "avg"}, {"global_pool": "avg", "class_token": False}, {"global_pool": "map"}, {}]
)
def test_without_position_embedding_the_order_of_patches_does_not_matter(settings: dict[str, Any]) -> None:
    batch, order = images(2, 3, 12, 12), torch.randperm(9, generator=torch.Generator().manual_seed(3))
    moved = permute_patches(batch, 4, order)
    assert not torch.equal(moved, batch)
    blind = tiny(pos_embed="none", **settings)
    torch.testing.assert_close(blind(moved), blind(batch), rtol=1e-4, atol=1e-5)
    for pos_embed in ("learn", "sincos2d"):
        seeing = tiny(pos_embed=pos_embed, **settings)
        assert (seeing(moved) - seeing(batch)).abs().max() > 1e-2


def test_blocks_commute_with_a_permutation_of_tokens() -> None:
    block = Block(ViTConfig.model_validate({**TINY, "head_dim": 5}), 0.0)
    scramble(block)
    generator = torch.Generator().manual_seed(0)
    tokens, order = torch.randn(2, 7, 24, generator=generator), torch.randperm(7, generator=generator)
    torch.testing.assert_close(block(tokens[:, order]), block(tokens)[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"global_pool": "map"}, {"stem": "conv", "global_pool": "avg"}])
def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(settings: dict[str, Any]) -> None:
    model, batch = tiny(**settings), images(4, 3, 12, 12)
    together = model(batch)
    alone = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    others = torch.cat([batch[:1], 1 - batch[1:]])
    torch.testing.assert_close(model(others)[0], together[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"mean": (0.4, 0.5, 0.1), "std": (0.3, 0.2, 0.01)}, {"stem": "conv"}])
def test_bytes_and_the_same_floats_give_the_same_logits(settings: dict[str, Any]) -> None:
    model, batch = tiny(**settings), pixels(2, 3, 12, 12)
    torch.testing.assert_close(model(batch), model(batch.float() / 255), rtol=1e-4, atol=1e-4)


def test_mean_and_deviation_are_taken_off_by_the_model() -> None:
    mean, std = (0.4, 0.5, 0.1), (0.3, 0.2, 0.7)
    model, batch = tiny(mean=mean, std=std), images(2, 3, 12, 12)
    plain = tiny()
    scaled = Normalize(mean, std)(batch) * 0.5 + 0.5
    torch.testing.assert_close(model(batch), plain(scaled), rtol=1e-4, atol=1e-5)
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("name", ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_each_dropout_acts_in_training_alone(name: str) -> None:
    model, plain, batch = tiny(**{name: 0.5}), tiny(), images(8, 3, 12, 12)
    torch.testing.assert_close(model(batch), plain(batch), rtol=0.0, atol=0.0)
    model.train()
    torch.manual_seed(0)
    first, second = model(batch), model(batch)
    torch.manual_seed(0)
    torch.testing.assert_close(model(batch), first, rtol=0.0, atol=0.0)
    assert (first - second).abs().max() > 1e-3
    assert (first - plain(batch)).abs().max() > 1e-3


@pytest.mark.parametrize("silenced", ["attn.proj", "mlp.fc2"])
def test_each_branch_of_a_block_is_left_out_on_its_own(silenced: str) -> None:
    block = Block(ViTConfig.model_validate(TINY), 0.5)
    for parameter in block.get_submodule(silenced).parameters():
        nn.init.zeros_(parameter)
    tokens = torch.randn(1, 7, 24, generator=torch.Generator().manual_seed(0)).expand(64, -1, -1)
    torch.manual_seed(0)
    changed = (block(tokens) - tokens).abs().amax(dim=(1, 2)) > 0
    assert 16 < changed.sum() < 48


def test_head_dropout_keeps_the_expectation() -> None:
    model, batch = tiny(drop_rate=0.3), images(1, 3, 12, 12)
    expected = model(batch)[0]
    pooled = model.pool(model.forward_features(batch)).expand(20_000, -1)
    torch.manual_seed(0)
    logits = model.head(model.head_drop.train()(pooled))
    assert logits.std(dim=0).min() > 0.1
    torch.testing.assert_close(logits.mean(dim=0), expected, rtol=0.0, atol=0.05)


def test_without_rates_training_computes_what_evaluation_does() -> None:
    model, batch = tiny(), images(2, 3, 12, 12)
    evaluated = model(batch)
    torch.testing.assert_close(model.train()(batch), evaluated, rtol=0.0, atol=0.0)
    assert all(module.rate == 0 for module in model.modules() if isinstance(module, DropPath))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"global_pool": "avg"},
        {"global_pool": "avg", "class_token": False, "stem": "conv"},
        {"global_pool": "map", "pos_embed": "sincos2d"},
        {"act_layer": "relu", "head_dim": 7, "qkv_bias": False},
        {"pos_embed": "none", "proj_bias": False, "mlp_bias": False},
    ],
)
def test_the_loss_reaches_every_parameter(settings: dict[str, Any]) -> None:
    model = tiny(**settings).train()
    nn.functional.cross_entropy(model(images(4, 3, 12, 12)), torch.tensor([0, 1, 2, 4])).backward()
    dead = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert dead == []


def test_features_are_tokens_with_the_class_token_first() -> None:
    model, batch = tiny(image_size=(8, 12)), images(2, 3, 8, 12)
    features = model.forward_features(batch)
    assert features.shape == (2, 1 + 6, 24)
    torch.testing.assert_close(model.head(features[:, 0]), model(batch))
    assert tiny(class_token=False, global_pool="avg").forward_features(images(2, 3, 12, 12)).shape == (2, 9, 24)


def test_average_pooling_reads_patches_only() -> None:
    tokens = torch.zeros(1, 10, 24)
    tokens[:, 0] = 100.0
    for pool in ("avg", "map"):
        model = tiny(global_pool=pool)
        other = tokens.clone()
        other[:, 0] = torch.arange(24.0)
        torch.testing.assert_close(model.pool(tokens), model.pool(other), rtol=0.0, atol=0.0)


def test_the_class_token_has_no_fixed_position() -> None:
    model = tiny(pos_embed="sincos2d", image_size=(8, 12))
    assert model.pos_embed is not None
    assert model.pos_embed.shape == (1, 6, 24)
    assert "pos_embed" not in model.state_dict()
    prefix = model.embed(images(1, 3, 8, 12)).tokens[:, 0]
    assert model.cls_token is not None
    torch.testing.assert_close(prefix, model.cls_token[0])


@pytest.mark.parametrize(("size", "patch", "tokens"), [((28, 28), 8, 16), ((9, 17), 4, 15), ((12, 12), 16, 1)])
def test_a_conv_stem_takes_images_that_do_not_divide(size: tuple[int, int], patch: int, tokens: int) -> None:
    model = tiny(stem="conv", image_size=size, patch_size=patch, class_token=False, global_pool="avg")
    assert model.forward_features(images(2, 3, *size)).shape == (2, tokens, 24)
    assert model(images(2, 3, *size)).shape == (2, 5)


@pytest.mark.parametrize("size", [(12, 16), (4, 8), (24, 4), (20, 20)])
@pytest.mark.parametrize("pos_embed", ["learn", "sincos2d", "none"])
def test_an_image_of_other_whole_patches_is_taken(size: tuple[int, int], pos_embed: str) -> None:
    logits = tiny(pos_embed=pos_embed)(images(2, 3, *size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize("shape", [(1, 3, 12, 15), (1, 3, 10, 12), (1, 3, 3, 3)])
def test_an_image_of_no_whole_patches_is_refused(shape: tuple[int, ...]) -> None:
    message = (
        "The model takes images of (batch, channels, rows, columns) (B, 3, rows, columns), in multiples of 4 and 4 "
        f"pixels, not {shape}; resize them, or create the model with another in_chans or patch_size"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        tiny()(torch.zeros(shape))


@pytest.mark.parametrize("settings", [{}, {"stem": "conv"}])
@pytest.mark.parametrize(
    "shape", [(1, 1, 12, 12), (3, 12, 12), (1, 4, 12, 12), (12, 12), (1, 12, 12, 3), (1, 3, 0, 12)]
)
def test_channels_are_not_broadcast(settings: dict[str, Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"(B, 3, rows, columns), not {shape}; resize them")):
        tiny(**settings)(torch.zeros(shape))


# Weights at the start


@pytest.mark.parametrize("settings", [{}, {"stem": "conv", "global_pool": "map"}])
def test_weights_start_as_the_paper_has_them(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(ViTConfig.model_validate({**TINY, **settings, "embed_dim": 96}))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15), name
        elif isinstance(module, nn.Conv2d):
            gain = 1.0 if name == "patch_embed.proj" else 2**0.5
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx(gain * fan_in**-0.5, rel=0.15), name
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all(), name
    assert not any(parameter.any() for name, parameter in model.named_parameters() if name.endswith("bias"))
    assert model.pos_embed is not None
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.15)


def test_position_embeddings_can_start_at_zero() -> None:
    model = VisionTransformer(ViTConfig.model_validate({**TINY, "pos_embed_std": 0}))
    assert model.pos_embed is not None
    assert not model.pos_embed.any()
    assert model.pos_embed.requires_grad


def test_the_seed_makes_the_weights() -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(VisionTransformer(ViTConfig.model_validate(TINY)).state_dict()["blocks.1.mlp.fc2.weight"])
    assert [torch.equal(before, after) for before, after in pairwise(states)] == [True, False]
