import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from vitrail.errors import ConfigError
from vitrail.models import attention, layers
from vitrail.models.layers import DropPath, Normalize
from vitrail.models.positions import Rotation
from vitrail.models.vit import Block, VisionTransformer
from vitrail.models.vit_config import ViTConfig
from vitrail.training.compilation import has_compiler

TINY: dict[str, Any] = {
    "image_size": 12,
    "patch_size": 4,
    "in_chans": 3,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


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


# What a model may be made of, each option in one of them at least; images of 12x12 in 9 patches.
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mean": {"global_pool": "avg", "class_token": False, "pos_embed": "sincos2d"},
    "mean, norm before": {"global_pool": "avg", "fc_norm": False, "proj_bias": False, "mlp_bias": False},
    "map": {"global_pool": "map", "act_layer": "gelu_tanh"},
    "map, norm after": {"global_pool": "map", "fc_norm": True, "class_token": False, "pos_embed": "none"},
    "token, norm after": {"fc_norm": True, "act_layer": "relu", "head_dim": 7, "qkv_bias": False},
    "registers": {"reg_tokens": 3, "no_embed_class": True, "init_values": 0.5, "global_pool": "token_avg"},
    "rope": {"pos_embed": "rope", "reg_tokens": 2, "qk_norm": True, "init_values": 0.5, "mlp_layer": "swiglu"},
    "rope, mean": {"pos_embed": "rope", "global_pool": "avg", "class_token": False, "act_layer": "silu"},
    "distilled": {"distilled": True, "qk_norm": True},
    "dual patch norm": {"patch_norm": True, "pos_embed": "none", "mlp_bias": False},
    "convolutions": {"stem": "conv", "global_pool": "avg", "class_token": False},
    "one block": {"depth": 1},
}
OF_PATCHES = [name for name, settings in OPTIONS.items() if "stem" not in settings]  # each patch is a token of its own


# The short way through the last block


@pytest.mark.parametrize("name", OPTIONS)
def test_every_way_to_the_logits_is_the_same(name: str) -> None:
    model, batch, labels = tiny(**OPTIONS[name]).train(), images(4, 3, 12, 8), torch.tensor([0, 1, 2, 4])
    ways = {
        "forward": model,
        "pooled": lambda batch: model.classify(model.forward_pooled(batch)),
        "all tokens": lambda batch: model.classify(model.pool(model.forward_features(batch))),
        "features": lambda batch: model.features(batch).logits,
    }
    logits: dict[str, Tensor] = {}
    gradients: dict[str, dict[str, Tensor | None]] = {}
    for way, compute in ways.items():
        model.zero_grad()
        logits[way] = compute(batch)
        nn.functional.cross_entropy(logits[way], labels).backward()
        gradients[way] = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert logits["forward"].std() > 0.1
    for way in ways:
        torch.testing.assert_close(logits[way], logits["forward"], rtol=1e-4, atol=1e-4, msg=way)
        torch.testing.assert_close(gradients[way], gradients["forward"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_loss_reaches_every_parameter(name: str) -> None:
    model = tiny(**OPTIONS[name]).train()
    nn.functional.cross_entropy(model(images(4, 3, 12, 12)), torch.tensor([0, 1, 2, 4])).backward()
    dead = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert dead == []


class Spy:
    """Keeps the shapes that attention is computed with: queries, keys, mask."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[int, int, tuple[int, ...] | None]] = []
        attend = functional.scaled_dot_product_attention

        def record(query: Tensor, key: Tensor, *rest: Tensor, attn_mask: Tensor | None = None, **named: Any) -> Tensor:
            self.calls.append((query.shape[2], key.shape[2], None if attn_mask is None else tuple(attn_mask.shape)))
            return attend(query, key, *rest, attn_mask=attn_mask, **named)

        monkeypatch.setattr(functional, "scaled_dot_product_attention", record)


@pytest.mark.parametrize(
    # Where keys are neither turned nor normalised, the three heads are further queries of the same tokens.
    ("name", "asked"),
    [("plain", 3), ("rope", 1), ("distilled", 2), ("registers", 13), ("mean", 9), ("one block", 3)],
)
def test_the_last_block_asks_for_what_the_head_reads(monkeypatch: pytest.MonkeyPatch, name: str, asked: int) -> None:
    model = tiny(**OPTIONS[name])
    spy, num_tokens = Spy(monkeypatch), model.num_prefix_tokens + 9
    model(images(2, 3, 12, 12))
    expected = [(num_tokens, num_tokens, None)] * (model.config.depth - 1) + [(asked, num_tokens, None)]
    assert spy.calls == expected


# Masks


@pytest.mark.parametrize("name", ["plain", "mean", "map", "rope"])
def test_a_mask_is_of_keys_and_never_of_pairs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, mask = tiny(**OPTIONS[name]), torch.ones(2, 3, 3, dtype=torch.bool)
    num_tokens, spy = model.num_prefix_tokens + 9, Spy(monkeypatch)
    for masks in ({"mask": mask}, {"sizes": torch.tensor([[12, 12], [8, 4]])}):
        spy.calls.clear()
        model(images(2, 3, 12, 12), **masks)
        pooling = [(2, 1, 1, 9)] if name == "map" else []
        assert [mask for _, _, mask in spy.calls] == [(2, 1, 1, num_tokens)] * 2 + pooling
    for module in (attention, layers):
        assert module.F is functional  # where the spy sits


def without_masked(model: VisionTransformer, image: Tensor, mask: Tensor) -> Tensor:
    """Logits of an image (1, C, rows, columns) whose masked patches are taken out before the first block."""
    embedded, prefix = model.embed(image), model.num_prefix_tokens
    kept = torch.cat([torch.ones(prefix, dtype=torch.bool), mask.flatten()])
    rotation = embedded.rotation and Rotation(*(part[mask.flatten()] for part in embedded.rotation))
    tokens = embedded.tokens[:, kept]
    for block in model.blocks:
        tokens = block(tokens, None, rotation)
    return model.classify(model.pool(model.norm(tokens)))


MASKS = st.lists(st.booleans(), min_size=9, max_size=9).filter(any).map(lambda kept: torch.tensor(kept).view(3, 3))


@settings(max_examples=5)
@given(masks=st.lists(MASKS, min_size=1, max_size=3), seed=st.integers(0, 2**20))
@pytest.mark.parametrize("name", OPTIONS)
def test_a_masked_patch_is_as_good_as_removed(name: str, masks: list[Tensor], seed: int) -> None:
    model, batch = tiny(**OPTIONS[name]), images(len(masks), 3, 12, 12, seed=seed)
    expected = torch.cat([without_masked(model, image[None], mask) for image, mask in zip(batch, masks, strict=True)])
    torch.testing.assert_close(model(batch, mask=torch.stack(masks)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OF_PATCHES)
def test_what_is_masked_does_not_matter(name: str) -> None:
    model, batch, mask = tiny(**OPTIONS[name]), images(2, 3, 12, 12), torch.ones(2, 3, 3, dtype=torch.bool)
    mask[0, 1, 2] = mask[1, :, 0] = False
    pixels_of = mask[:, None].repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    other = torch.where(pixels_of, batch, images(2, 3, 12, 12, seed=5))
    torch.testing.assert_close(model(other, mask=mask), model(batch, mask=mask), rtol=1e-4, atol=1e-4)
    assert (model(other) - model(batch)).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["map, norm after", "dual patch norm"])
def test_without_positions_a_masked_edge_is_as_good_as_cut_off(name: str) -> None:
    model, batch, mask = tiny(**OPTIONS[name]), images(2, 3, 12, 12), torch.ones(2, 3, 3, dtype=torch.bool)
    mask[:, 2] = mask[:, :, 0] = False
    torch.testing.assert_close(model(batch, mask=mask), model(batch[:, :, :8, 4:]), rtol=1e-4, atol=1e-4)


def test_a_mask_of_all_patches_changes_nothing() -> None:
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    for settings_ in OPTIONS.values():
        model, batch = tiny(**settings_), images(2, 3, 12, 12)
        torch.testing.assert_close(model(batch, mask=mask), model(batch), rtol=1e-4, atol=1e-4)


# Patch dropout


@pytest.mark.parametrize(("rate", "kept"), [(0.5, 4), (0.3, 6), (0.1, 8), (0.9, 1), (0.99, 1)])
@pytest.mark.parametrize("name", OPTIONS)
def test_patch_dropout_keeps_a_part_in_training(name: str, rate: float, kept: int) -> None:
    model, batch = tiny(**OPTIONS[name], patch_drop_rate=rate), images(2, 3, 12, 12)
    prefix = model.num_prefix_tokens
    assert model.forward_features(batch).shape == (2, prefix + 9, 24)
    torch.testing.assert_close(model(batch), tiny(**OPTIONS[name])(batch))
    torch.manual_seed(0)
    assert model.train().forward_features(batch).shape == (2, prefix + kept, 24)
    assert model(batch).shape == (2, 5)


@pytest.mark.parametrize("name", OPTIONS)
def test_patches_that_stay_keep_their_positions(name: str) -> None:
    """What remains gives the logits of the whole image with the others masked."""
    model, batch = tiny(**OPTIONS[name], patch_drop_rate=0.4), images(6, 3, 12, 12)
    whole = model.embed(batch).tokens
    torch.manual_seed(1)
    some = model.train().embed(batch).tokens[:, model.num_prefix_tokens :]
    mask = (torch.cdist(whole[:, model.num_prefix_tokens :], some) < 1e-4).any(dim=2)
    assert mask.sum(dim=1).tolist() == [5] * 6
    assert len({tuple(row) for row in mask.tolist()}) > 1  # drawn for each image
    torch.manual_seed(1)
    torch.testing.assert_close(model(batch), model.eval()(batch, mask=mask.view(6, 3, 3)), rtol=1e-4, atol=1e-4)


def test_patch_dropout_drops_each_patch_equally_often() -> None:
    model = tiny(patch_drop_rate=0.5, pos_embed="none").train()
    batch = torch.zeros(2000, 3, 12, 12)
    torch.manual_seed(0)
    patches = model.patch_embed(model.normalize(batch[:1])) + torch.eye(9, 24)
    kept, _ = model._drop_patches(patches.expand(2000, -1, -1), None)
    counts = (torch.cdist(kept, patches.expand(2000, -1, -1)) < 1e-4).any(dim=1).sum(dim=0)
    assert (counts - 2000 * 4 / 9).abs().max() < 5 * (2000 * 4 / 9 * 5 / 9) ** 0.5


# Properties


def permute_patches(batch: Tensor, patch: int, order: Tensor) -> Tensor:
    patches = nn.functional.unfold(batch, patch, stride=patch)[:, :, order]
    return nn.functional.fold(patches, batch.shape[2:], patch, stride=patch)


@settings(max_examples=5)
@given(order=st.permutations(range(9)), seed=st.integers(0, 2**20))
@pytest.mark.parametrize("name", OF_PATCHES)
def test_without_positions_the_order_of_patches_does_not_matter(name: str, order: list[int], seed: int) -> None:
    batch = images(2, 3, 12, 12, seed=seed)
    moved = permute_patches(batch, 4, torch.tensor(order))
    blind = tiny(**{**OPTIONS[name], "pos_embed": "none"})
    before, after = blind.forward_features(batch), blind.forward_features(moved)
    prefix = blind.num_prefix_tokens
    torch.testing.assert_close(after[:, :prefix], before[:, :prefix], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after[:, prefix:], before[:, prefix:][:, order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(blind(moved), blind(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pos_embed", ["learn", "sincos2d", "rope"])
@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_with_positions_it_does(pos_embed: str, pool: str) -> None:
    batch = images(2, 3, 12, 12)
    seeing = tiny(pos_embed=pos_embed, global_pool=pool)
    moved = permute_patches(batch, 4, torch.tensor([3, 1, 4, 0, 5, 2, 6, 8, 7]))
    assert (seeing(moved) - seeing(batch)).abs().max() > 1e-2


def test_blocks_commute_with_a_permutation_of_tokens() -> None:
    block = Block(ViTConfig.model_validate({**TINY, "head_dim": 5}), 0.0)
    scramble(block)
    generator = torch.Generator().manual_seed(0)
    tokens, order = torch.randn(2, 7, 24, generator=generator), torch.randperm(7, generator=generator)
    torch.testing.assert_close(block(tokens[:, order]), block(tokens)[:, order], rtol=1e-4, atol=1e-5)


@settings(max_examples=4)
@given(seed=st.integers(0, 2**20), others=st.integers(0, 2**20), masked=st.booleans())
@pytest.mark.parametrize("name", OPTIONS)
def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(name: str, seed: int, others: int, masked: bool) -> None:
    model, image = tiny(**OPTIONS[name]), images(1, 3, 12, 12, seed=seed)
    mask = (images(4, 3, 3, seed=seed) < 0.7).logical_or(torch.eye(3, dtype=torch.bool)) if masked else None
    alone = model(image, mask=None if mask is None else mask[:1])
    together = model(torch.cat([image, images(3, 3, 12, 12, seed=others)]), mask=mask)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)


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


# Other ways to run it

MASKED = torch.tensor([[[1, 1, 1], [1, 0, 1], [1, 1, 0]], [[0, 1, 1], [1, 1, 1], [0, 1, 0]]], dtype=torch.bool)


@pytest.mark.parametrize("name", OPTIONS)
def test_images_may_lie_in_memory_channels_last(name: str) -> None:
    model, batch = tiny(**OPTIONS[name]), images(2, 3, 12, 12)
    laid_out = batch.contiguous(memory_format=torch.channels_last)
    assert not laid_out.is_contiguous()
    torch.testing.assert_close(model(laid_out), model(batch), rtol=1e-4, atol=1e-4)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first, second = (given.clone().requires_grad_() for given in (laid_out, batch))
    for given_images in (first, second):
        model(given_images).square().sum().backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", OPTIONS)
def test_bfloat16_is_near_float32(name: str) -> None:
    model, batch = tiny(**OPTIONS[name]), images(2, 3, 12, 12)
    for masks in ({}, {"mask": MASKED}, {"sizes": torch.tensor([[12, 12], [8, 4]])}):
        expected = model(batch, **masks)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(batch, **masks)
        assert (logits.float() - expected).norm() < 0.1 * expected.norm()
        logits.float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_tokens_are_merged_in_bfloat16_too() -> None:
    model, batch = tiny(pos_embed="none", global_pool="avg"), images(2, 3, 4, 4).repeat(1, 1, 3, 3)
    expected = model(batch)
    model.merge_tokens(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch)
    assert (logits.float() - expected).norm() < 0.1 * expected.norm()


BACKEND = "inductor" if has_compiler(torch.device("cpu")) else "aot_eager"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [*((name, "aot_eager") for name in OPTIONS), ("plain", BACKEND)])
def test_compiled_it_computes_the_same(name: str, backend: str) -> None:
    model, batch = tiny(**OPTIONS[name]), images(2, 3, 12, 12)
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for training in (False, True):
        model.train(training)
        first, second = (batch.clone().requires_grad_() for _ in range(2))
        expected, logits = model(first), compiled(second)
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
        expected.square().sum().backward()
        logits.square().sum().backward()
        torch.testing.assert_close(second.grad, first.grad, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        model.eval()
        other = images(2, 3, 8, 20)
        torch.testing.assert_close(compiled(other), model(other), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "mean", "map", "rope", "convolutions"])
def test_compiled_it_takes_masks_sizes_and_merging(name: str) -> None:
    model, batch = tiny(**OPTIONS[name]), images(2, 3, 12, 12)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        for masks in ({"mask": MASKED}, {"sizes": torch.tensor([[12, 12], [8, 4]])}):
            expected = model(batch, **masks)
            torch.testing.assert_close(compiled(batch, **masks), expected, rtol=1e-3, atol=1e-3)
        if name in ("plain", "mean", "convolutions"):
            model.merge_tokens(2)
            torch.testing.assert_close(compiled(batch), model(batch), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [*((name, "float") for name in OPTIONS), ("plain", "uint8")])
def test_exported_it_computes_the_same_for_any_batch(name: str, kind: str) -> None:
    model, batch = tiny(**OPTIONS[name]), images(3, 3, 12, 12)
    if kind == "uint8":
        batch = (batch * 255).to(torch.uint8)
    any_batch = ({0: torch.export.Dim("batch", min=1)},)
    exported = torch.export.export(model, (batch,), dynamic_shapes=any_batch).module()
    with torch.no_grad():
        for given_images in (batch, batch[:1], batch.repeat(2, 1, 1, 1)):
            torch.testing.assert_close(exported(given_images), model(given_images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "mean", "map", "rope"])
def test_exported_it_takes_a_mask(name: str) -> None:
    model, batch = tiny(**OPTIONS[name]), images(2, 3, 12, 12)
    exported = torch.export.export(model, (batch, MASKED)).module()
    for mask in (MASKED, MASKED.flip(1)):
        torch.testing.assert_close(exported(batch, mask), model(batch, mask), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "mean"])
def test_exported_it_merges_tokens(name: str) -> None:
    model, batch = tiny(**OPTIONS[name]), images(2, 3, 12, 12)
    model.merge_tokens(2)
    exported = torch.export.export(model, (batch,)).module()
    torch.testing.assert_close(exported(1 - batch), model(1 - batch), rtol=1e-4, atol=1e-4)
