"""Self-attention on maps, held against attention on tokens, timm's ViT and a reference written in loops."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitrail.errors import ConfigError
from vitrail.models import long_attention, model_config
from vitrail.models.attention import Attention
from vitrail.models.attention2d import (
    Attention2d,
    Attention2dClassifier,
    Attention2dConfig,
    Block2d,
    Conv1x1,
    LayerNorm2d,
    to_maps,
    to_tokens,
)
from vitrail.models.positions import resize_pos_embed

Build = Callable[..., Attention2dClassifier]
TINY: dict[str, Any] = {
    "image_size": 12,
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}


@pytest.fixture
def tiny(scrambled: Callable[..., Any]) -> Build:
    """`tiny(depth=3)`: a scrambled model for images of 12x12 in 3x3 positions, evaluated, with settings changed."""
    return lambda **settings: scrambled(Attention2dClassifier(Attention2dConfig.model_validate({**TINY, **settings})))


def random_maps(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()


def as_tokens_have_them(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Kernels of 1x1 convolutions as matrices."""
    return {name: tensor.flatten(1) if tensor.ndim == 4 else tensor for name, tensor in weights.items()}


# Parity with attention on tokens


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dim", "num_heads", "bias"), [(24, 3, False), (24, 24, True), (10, 1, False)])
def test_attention_on_maps_is_attention_on_tokens(
    dim: int, num_heads: int, bias: bool, layout: torch.memory_format, scrambled: Callable[..., Any]
) -> None:
    ours = scrambled(Attention2d(dim, num_heads, bias=bias))
    tokens_attention = Attention(dim, num_heads, dim // num_heads, qkv_bias=bias, proj_bias=bias)
    tokens_attention.load_state_dict(as_tokens_have_them(ours.state_dict()), strict=True)
    maps = random_maps(2, dim, 3, 5)
    tokens = maps.detach().flatten(2).transpose(1, 2).clone().requires_grad_()
    attended, expected = ours(maps.to(memory_format=layout)), tokens_attention(tokens)
    torch.testing.assert_close(attended.flatten(2).transpose(1, 2), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1

    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (expected * weights).sum().backward()
    (attended.flatten(2).transpose(1, 2) * weights).sum().backward()
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad.flatten(2).transpose(1, 2), tokens.grad, rtol=1e-4, atol=1e-5)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    expected_gradients = {name: parameter.grad for name, parameter in tokens_attention.named_parameters()}
    torch.testing.assert_close(as_tokens_have_them(gradients), expected_gradients, rtol=1e-4, atol=1e-4)


def timm_pair(scrambled: Callable[..., Any], size: int, **ours: Any) -> tuple[Attention2dClassifier, nn.Module]:
    """Our model and timm's ViT without class token that takes the mean, given the same weights."""
    settings = {**TINY, "image_size": size, **ours}
    config = Attention2dConfig.model_validate(settings)
    reference = TimmVisionTransformer(
        img_size=size,
        patch_size=4,
        num_classes=5,
        embed_dim=24,
        depth=2,
        num_heads=3,
        qkv_bias=config.bias,
        proj_bias=config.bias,
        class_token=False,
        global_pool="avg",
        fc_norm=False,
        final_norm=config.final_norm,
        pos_embed="learn" if config.pos_embed == "learn" else "none",
        dynamic_img_size=True,
    )
    if not config.bias:
        for block in reference.blocks:
            block.mlp.fc1.bias = block.mlp.fc2.bias = None
    scrambled(reference)
    model = Attention2dClassifier(config).eval()
    weights = reference.state_dict()
    for name, tensor in weights.items():
        if name == "pos_embed":
            weights[name] = to_maps(tensor, model.grid)
        elif re.search(r"(attn|mlp)\.\w+\.weight", name):
            weights[name] = tensor[:, :, None, None]
    model.load_state_dict(weights, strict=True)
    return model, reference


TIMM_CASES: list[dict[str, Any]] = [{}, {"bias": True, "final_norm": True}, {"pos_embed": "none", "final_norm": True}]


@pytest.mark.parametrize("train", [False, True], ids=["evaluated", "in training"])
@pytest.mark.parametrize(("size", "other"), [(12, 20), (16, 8)])
@pytest.mark.parametrize("settings", TIMM_CASES, ids=str)
def test_logits_and_gradients_are_those_of_timms_vit_without_class_token(
    settings: dict[str, Any], size: int, other: int, train: bool, scrambled: Callable[..., Any], images: Any
) -> None:
    model, reference = timm_pair(scrambled, size, **settings)
    for module in (model, reference):
        module.train(train)
    for side in (size, other):
        ours, theirs = images(2, 3, side, side).requires_grad_(), images(2, 3, side, side).requires_grad_()
        logits, expected = model(ours), reference((theirs - 0.5) / 0.5)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        labels = torch.tensor([0, 3])
        F.cross_entropy(logits, labels).backward()
        F.cross_entropy(expected, labels).backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
        assert ours.grad.abs().max() > 1e-4


# Parity with the description, written out


def written_out(model: Attention2dClassifier, batch: Tensor) -> Tensor:
    """S1 in loops over images, heads and positions; projections by torch's own convolution."""
    maps = model.embed(batch)
    weights = model.state_dict()
    num_heads = model.config.num_heads
    for index in range(model.config.depth):

        def norm(maps: Tensor, name: str, index: int = index) -> Tensor:
            mean, variance = maps.mean(dim=1, keepdim=True), maps.var(dim=1, keepdim=True, correction=0)
            scale, shift = (weights[f"blocks.{index}.{name}.{part}"][:, None, None] for part in ("weight", "bias"))
            return (maps - mean) / (variance + 1e-6).sqrt() * scale + shift

        def conv(maps: Tensor, name: str, index: int = index) -> Tensor:
            return F.conv2d(maps, weights[f"blocks.{index}.{name}.weight"])

        query, key, value = conv(norm(maps, "norm1"), "attn.qkv").chunk(3, dim=1)
        mixed = torch.zeros_like(value)
        width = maps.shape[1] // num_heads
        places = list(product(range(maps.shape[2]), range(maps.shape[3])))
        for image, head, (row, column) in product(range(len(maps)), range(num_heads), places):
            own = slice(head * width, (head + 1) * width)
            asked = query[image, own, row, column]
            scores = (
                torch.stack([asked @ key[image, own, r, c] for r, c in places]) * (maps.shape[1] / num_heads) ** -0.5
            )
            for share, (r, c) in zip(scores.exp() / scores.exp().sum(), places, strict=True):
                mixed[image, own, row, column] += share * value[image, own, r, c]
        maps = maps + conv(mixed, "attn.proj")
        maps = maps + conv(F.gelu(conv(norm(maps, "norm2"), "mlp.fc1")), "mlp.fc2")
    return maps.mean(dim=(2, 3)) @ weights["head.weight"].T + weights["head.bias"]


def test_logits_are_those_of_the_description_written_out(tiny: Build, images: Any) -> None:
    model, batch = tiny(image_size=(8, 12)), images(2, 3, 8, 12)
    with torch.inference_mode():
        expected = written_out(model, batch)
        torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layers_of_maps_are_torchs(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    maps = random_maps(2, 6, 3, 5).to(memory_format=layout)
    conv = Conv1x1(6, 4)
    torch.testing.assert_close(conv(maps), F.conv2d(maps, conv.weight, conv.bias), rtol=1e-5, atol=1e-5)
    expected = F.layer_norm(maps.permute(0, 2, 3, 1), (6,), eps=1e-6).permute(0, 3, 1, 2)
    normed = LayerNorm2d(6, eps=1e-6)(maps)
    torch.testing.assert_close(normed, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normed.mean(dim=1), torch.zeros(2, 3, 5), rtol=0.0, atol=1e-5)


def test_blocks_take_maps_and_give_maps(scrambled: Callable[..., Any]) -> None:
    block, maps = scrambled(Block2d(Attention2dConfig.model_validate(TINY))), random_maps(2, 24, 3, 5)
    assert block(maps).shape == maps.shape
    torch.testing.assert_close(to_maps(to_tokens(maps), (3, 5)), maps, rtol=0.0, atol=0.0)


# Memory


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_many_positions_need_no_matrix_of_scores(rate: float, tiny: Build, images: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 2**10)
    model = tiny(image_size=24, patch_size=1, depth=1, attn_drop_rate=rate).train()
    seen: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        seen.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images(1, 3, 24, 24)).sum().backward()
    assert max(seen) == 4 * 24 * 24**2  # the MLP's hidden channels; scores would be 3 x 576 x 576


ONE_LAYER = """
from pathlib import Path

import torch

from vitrail.models.attention2d import Attention2dClassifier, Attention2dConfig


def kibibytes(kind):
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind))


imported = kibibytes("VmRSS:")
model = Attention2dClassifier(Attention2dConfig(image_size=(224, 224), patch_size=(1, 1), depth=1))
model(torch.rand(1, 3, 224, 224)).sum().backward()
assert model.blocks[0].attn.qkv.weight.grad.any()
print((kibibytes("VmHWM:") - imported) * 1024)  # ru_maxrss would count what the process that began this one had
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="a process's memory is told by /proc")
def test_a_layer_takes_all_pixels_of_a_large_image() -> None:
    """Width 64, 4 heads, 50,176 positions; their scores alone would be 40 GB."""
    done = subprocess.run([sys.executable, "-c", ONE_LAYER], check=True, capture_output=True, text=True)
    assert 100e6 < int(done.stdout) < 1.5e9  # the maps of one layer are some 100 MB


# Properties


@pytest.mark.parametrize("pos_embed", ["learn", "sincos2d", "none"])
@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_any_image_size_is_taken(pos_embed: str, stem: str, tiny: Build, images: Any) -> None:
    model = tiny(pos_embed=pos_embed, stem=stem)
    for size in ((12, 12), (8, 20), (28, 4)):
        assert model.forward_features(images(2, 3, *size)).shape == (2, size[0] * size[1] // 16, 24)
        assert model(images(2, 3, *size)).shape == (2, 5)


def test_learned_positions_are_resized_as_the_vits_are(tiny: Build, images: Any) -> None:
    model, blind = tiny(), tiny(pos_embed="none")
    blind.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name != "pos_embed"})
    batch, own = images(2, 3, 20, 8), model.pos_embed
    assert own is not None
    added = to_tokens(model.embed(batch) - blind.embed(batch))
    expected = resize_pos_embed(to_tokens(own), (3, 3), (5, 2)).expand(2, -1, -1)
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-5)


def test_without_positions_their_order_does_not_matter(tiny: Build, images: Any) -> None:
    batch = images(2, 3, 12, 12)
    moved = batch.unflatten(3, (3, 4)).flip(3).flatten(3)  # columns of patches in reverse
    assert not torch.equal(moved, batch)
    blind = tiny(pos_embed="none")
    torch.testing.assert_close(blind(moved), blind(batch), rtol=1e-4, atol=1e-5)
    for pos_embed in ("learn", "sincos2d"):
        seeing = tiny(pos_embed=pos_embed)
        assert (seeing(moved) - seeing(batch)).abs().max() > 1e-2


def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(tiny: Build, images: Any) -> None:
    model, batch = tiny(), images(3, 3, 12, 12)
    alone = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(model(batch), alone, rtol=1e-4, atol=1e-5)


def test_bytes_and_the_same_floats_give_the_same_logits(tiny: Build) -> None:
    model = tiny(mean=(0.4, 0.5, 0.1), std=(0.3, 0.2, 0.1))
    batch = torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(batch), model(batch.float() / 255), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_each_dropout_acts_in_training_alone(name: str, tiny: Build, images: Any) -> None:
    model, plain, batch = tiny(**{name: 0.5}), tiny(), images(8, 3, 12, 12)
    torch.testing.assert_close(model(batch), plain(batch), rtol=0.0, atol=0.0)
    model.train()
    torch.manual_seed(0)
    first, second = model(batch), model(batch)
    torch.manual_seed(0)
    torch.testing.assert_close(model(batch), first, rtol=0.0, atol=0.0)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize(
    "settings", [{}, {"stem": "conv", "bias": True, "final_norm": True}, {"pos_embed": "none", "act_layer": "relu"}]
)
def test_the_loss_reaches_every_parameter(settings: dict[str, Any], tiny: Build, images: Any) -> None:
    model = tiny(**settings).train()
    F.cross_entropy(model(images(4, 3, 12, 12)), torch.tensor([0, 1, 2, 4])).backward()
    dead = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert dead == []


def test_as_published_only_norms_stem_and_head_have_biases() -> None:
    model = Attention2dClassifier(Attention2dConfig.model_validate(TINY))
    biased = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    norms = {f"blocks.{index}.norm{number}.bias" for index in (0, 1) for number in (1, 2)}
    assert biased == {"patch_embed.proj.bias", "head.bias"} | norms
    assert isinstance(model.norm, nn.Identity)


def test_weights_start_as_the_vits_do() -> None:
    torch.manual_seed(0)
    model = Attention2dClassifier(Attention2dConfig.model_validate({**TINY, "embed_dim": 96, "bias": True}))
    for name, module in model.named_modules():
        if isinstance(module, Conv1x1 | nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15), name
            assert module.bias is not None
            assert not module.bias.any(), name


# What it shows of itself


@pytest.mark.parametrize("settings", [{}, {"final_norm": True, "stem": "conv"}])
def test_features_are_those_of_the_forward_pass(settings: dict[str, Any], tiny: Build, images: Any) -> None:
    model, batch = tiny(**settings), images(2, 3, 8, 12)
    seen = model.features(batch)
    torch.testing.assert_close(seen.logits, model(batch), rtol=0.0, atol=0.0)
    torch.testing.assert_close(seen.tokens, model.forward_features(batch), rtol=0.0, atol=0.0)
    torch.testing.assert_close(seen.pooled, seen.tokens.mean(dim=1), rtol=0.0, atol=0.0)
    torch.testing.assert_close(model.classify(seen.pooled), seen.logits, rtol=0.0, atol=0.0)
    assert (seen.grid, seen.num_prefix_tokens, len(seen.blocks)) == ((2, 3), 0, 2)
    for block in seen.blocks:
        assert block.tokens.shape == (2, 6, 24)
        assert block.query.shape == block.key.shape == block.value.shape == block.heads.shape == (2, 3, 6, 8)
        mixed = (block.query @ block.key.mT * 8**-0.5).softmax(dim=-1) @ block.value
        torch.testing.assert_close(block.heads, mixed, rtol=1e-4, atol=1e-5)


# Impossible settings and images


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 30}, "image_size=30 is not a multiple of patch_size=4; use 28 or 32, or another patch_size"),
        ({"image_size": 3}, "image_size=3 is not a multiple of patch_size=4; use 4, or another patch_size"),
        ({"num_heads": 5}, "embed_dim=24 is not a multiple of num_heads=5; change one of them"),
        (
            {"stem": "conv", "patch_size": (4, 8)},
            "patch_size=4x8 is not possible with stem='conv'; use 4, 8, 16 or 32",
        ),
        (
            {"stem": "conv", "embed_dim": 27},
            "embed_dim=27 is odd, which stem='conv' cannot halve; use an even one",
        ),
        ({"mlp_ratio": 0.01}, "mlp_ratio=0.01 leaves the MLP of embed_dim=24 no hidden layer; use a larger one"),
        (
            {"pos_embed": "sincos2d", "embed_dim": 18},
            "embed_dim=18 is not a multiple of 4, which pos_embed='sincos2d' needs",
        ),
        ({"mean": (0.5,)}, "mean=0.5 is not one value a channel for in_chans=3; give 3"),
        ({"attn_drop_rate": 1.0}, "attn_drop_rate=1.0 is not possible; use a number less than 1"),
        (
            {"pos_embed": "rope"},
            "pos_embed='rope' is not possible. Use one of learn, sincos2d, none",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        model_config("s1_attention2d", **{**TINY, **settings})


@pytest.mark.parametrize("shape", [(1, 3, 13, 12), (1, 1, 12, 12), (3, 12, 12), (1, 3, 0, 12)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], tiny: Build, images: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"not {shape}; resize them")):
        tiny()(images(*shape))


# Compiled, exported, in other types


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_and_channels_last_change_little(layout: torch.memory_format, tiny: Build, images: Any) -> None:
    model, batch = tiny(), images(2, 3, 12, 12)
    expected = model(batch)
    torch.testing.assert_close(model.to(memory_format=layout)(batch.to(memory_format=layout)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(batch).float(), expected, rtol=0.1, atol=0.1)


def test_it_is_exported(tiny: Build, images: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 20)  # so that it must ask for the kernel
    model, batch = tiny(), images(2, 3, 12, 12)
    exported = torch.export.export(model, (batch,)).module()
    torch.testing.assert_close(exported(batch), model(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_is_compiled_as_one_graph(tiny: Build, images: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 20)
    model, batch = tiny(depth=1), images(2, 3, 12, 12)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(batch), model(batch), rtol=1e-4, atol=1e-5)
    model.train()
    compiled(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # where a graph ends at chunks, torch looks at it
def test_it_is_compiled_around_chunks(tiny: Build, images: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(long_attention, "MAX_SCORES", 20)
    model, batch = tiny(depth=1, attn_drop_rate=0.3).train(), images(2, 3, 12, 12)
    torch.manual_seed(0)
    expected = model(batch)
    torch.manual_seed(0)
    logits = torch.compile(model)(batch)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
