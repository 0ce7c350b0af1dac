"""Compact transformers, held against vit-pytorch's and against the authors' equations."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from vit_pytorch import cct

from vitrail.errors import CheckpointError, ConfigError
from vitrail.models import create_model, model_config
from vitrail.models.conv_tokens import CompactTransformer, ConvTokensConfig, sine_pos_embed

TINY: dict[str, Any] = {
    "image_size": 16,
    "num_classes": 5,
    "num_convs": 2,
    "stem_width": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
}
# Hassani et al. 2021, tables 1 and 6, in millions. CCT-6/3x1 is counted there without its position embeddings, and
# CCT-14/7x2 is in the paper as here, but without them (22.29) in the README of its code.
PUBLISHED = {"cct_2_3x2_32": 0.28, "cct_4_3x2_32": 0.48, "cct_7_3x1_32": 3.76, "cct_14_7x2_224": 22.36}


@pytest.fixture
def tiny(scrambled: Callable[..., Any]) -> Callable[..., CompactTransformer]:
    """`tiny(depth=3)`: a scrambled model for images of 16x16 in 4x4 tokens, evaluated, with settings changed."""
    return lambda **settings: scrambled(CompactTransformer(ConvTokensConfig.model_validate({**TINY, **settings})))


def sizes(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Parity

NAMES = {
    "tokenizer.conv_layers.(\\d+).0": r"patch_embed.convs.\1",
    "classifier.positional_emb": "pos_embed",
    "classifier.fc": "head",
    "classifier\\.": "",
    "pre_norm": "norm1",
    "blocks.(\\d+).norm1": r"blocks.\1.norm2",
    "self_attn": "attn",
    "linear": "mlp.fc",
}


def under_our_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        # Theirs calls the second norm norm1, which is our name for the first.
        name = re.sub(r"blocks\.(\d+)\.norm1", r"blocks.\1.norm2", name)
        for theirs, ours in NAMES.items():
            name = name if theirs.startswith("blocks") else re.sub(theirs, ours, name)
        renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("train", [False, True], ids=["evaluated", "in training"])
@pytest.mark.parametrize("image_size", [(16, 16), (20, 27)], ids=str)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"num_convs": 1, "kernel_size": 5}, {"n_conv_layers": 1, "kernel_size": 5, "padding": 2}),
        ({"kernel_size": 7, "stride": 2}, {"kernel_size": 7, "stride": 2, "padding": 3}),
        ({"pos_embed": "sine"}, {"positional_embedding": "sine"}),
        ({"pos_embed": "none", "in_chans": 1}, {"positional_embedding": "none", "n_input_channels": 1}),
    ],
    ids=["3x2", "5x1", "7x2", "sine", "no positions"],
)
def test_logits_and_gradients_are_vit_pytorchs(
    scrambled: Any, images: Any, ours: Any, theirs: Any, image_size: tuple[int, int], train: bool
) -> None:
    named = {"n_conv_layers": 2, "kernel_size": 3, "stride": 1, "padding": 1, "positional_embedding": "learnable"}
    named |= {"embedding_dim": 24, "num_layers": 2, "num_heads": 3, "mlp_ratio": 2.0, "num_classes": 5}
    no_chance = {"dropout_rate": 0.0, "attention_dropout": 0.0, "stochastic_depth_rate": 0.0}
    reference = cct.CCT(img_size=image_size, **{**named, **theirs, **no_chance})
    positions = reference.classifier.positional_emb
    sine = positions.detach().clone() if ours.get("pos_embed") == "sine" else None
    scrambled(reference)
    if sine is not None:
        positions.data.copy_(sine)
    model = CompactTransformer(
        ConvTokensConfig.model_validate({**TINY, "stem_width": 64, "image_size": image_size, **ours})
    )
    weights = under_our_names(reference.state_dict())
    if sine is not None:
        torch.testing.assert_close(model.pos_embed, weights.pop("pos_embed"), rtol=1e-5, atol=1e-5)
    model.load_state_dict(weights, strict=True)
    pixels = images(3, model.config.in_chans, *image_size)
    results = []
    for network in (reference.train(train), model.train(train)):
        inputs = pixels.clone().requires_grad_()
        logits = network(inputs if network is model else (inputs - 0.5) / 0.5)
        logits.square().sum().backward()
        results.append((logits.detach(), inputs.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


def test_it_is_what_the_authors_write_down(tiny: Any, images: Any) -> None:
    """Tokenizer, encoder and sequence pooling with nothing but matrix products, from the authors' code."""
    model = tiny(image_size=(12, 20))
    weights = model.state_dict()
    pixels = images(2, 3, 12, 20)

    def linear(tokens: Tensor, name: str) -> Tensor:
        return tokens @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    def norm(tokens: Tensor, name: str) -> Tensor:
        centred = tokens - tokens.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    maps = (pixels - 0.5) / 0.5
    for index in (0, 1):
        maps = F.conv2d(maps, weights[f"patch_embed.convs.{index}.weight"], padding=1)
        maps = F.max_pool2d(maps.clamp(min=0), 3, stride=2, padding=1)
    tokens = maps.flatten(2).mT + weights["pos_embed"]
    assert tokens.shape == (2, 3 * 5, 24)
    for index in (0, 1):
        block = f"blocks.{index}"
        qkv = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv").unflatten(-1, (3, 3, 8))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        heads = (query @ key.mT * 8**-0.5).softmax(-1) @ value
        tokens = tokens + linear(heads.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        tokens = norm(tokens, f"{block}.norm2")  # the residual path itself is normalised
        tokens = tokens + linear(F.gelu(linear(tokens, f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    tokens = norm(tokens, "norm")
    importance = linear(tokens, "attention_pool").softmax(dim=1)
    expected = linear((importance * tokens).sum(dim=1), "head")
    torch.testing.assert_close(model(pixels), expected, rtol=1e-4, atol=1e-4)


# Sizes


@pytest.mark.parametrize(("name", "millions"), PUBLISHED.items())
def test_sizes_are_the_papers(name: str, millions: float) -> None:
    with torch.device("meta"):
        assert int(sizes(create_model(name)) / 1e4) / 100 == pytest.approx(millions)


def test_the_papers_count_of_cct_6_leaves_out_position_embeddings() -> None:
    with torch.device("meta"):
        whole, without = (sizes(create_model("cct_6_3x1_32", pos_embed=kind)) for kind in ("learn", "none"))
    assert round(without / 1e6, 2) == 3.17
    assert whole - without == 256 * 256  # 16x16 tokens of width 256


@pytest.mark.parametrize("name", [*PUBLISHED, "cct_6_3x1_32", "cct_7_7x2_224"])
def test_names_are_the_models_of_vit_pytorch(name: str) -> None:
    depth, kernel_size, num_convs, image_size = map(int, re.findall(r"\d+", name))
    with torch.device("meta"):
        ours = create_model(name)
    reference = getattr(cct, f"cct_{depth}")(
        img_size=image_size,
        kernel_size=kernel_size,
        n_conv_layers=num_convs,
        num_classes=ours.config.num_classes,
        positional_embedding="learnable",
    )
    theirs = {key: tensor.shape for key, tensor in under_our_names(reference.state_dict()).items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == theirs
    assert [block.drop_path.rate for block in ours.blocks] == pytest.approx(
        [block.drop_path.drop_prob for block in reference.classifier.blocks]
    )
    assert {block.attn.attn_drop_rate for block in ours.blocks} == {0.1}


# What the parts do


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.sampled_from([1, 3, 7]), st.integers(1, 3))
def test_the_grid_is_the_convolutions(rows: int, columns: int, num_convs: int, kernel_size: int, stride: int) -> None:
    settings = {"num_convs": num_convs, "kernel_size": kernel_size, "stride": stride, "image_size": (rows, columns)}
    config = ConvTokensConfig.model_validate({**TINY, "depth": 1, "embed_dim": 3, "num_heads": 1, **settings})
    model = CompactTransformer(config).eval()
    tokens = model.forward_features(torch.zeros(1, 3, rows, columns))
    assert tokens.shape == (1, model.grid[0] * model.grid[1], 3)


def test_sequence_pooling_weighs_tokens_by_themselves(tiny: Any, images: Any) -> None:
    model = tiny()
    tokens = images(2, 7, 24)
    torch.testing.assert_close(model.pool(tokens[:, torch.randperm(7)]), model.pool(tokens))
    model.attention_pool.weight.data.zero_()
    torch.testing.assert_close(model.pool(tokens), tokens.mean(dim=1))
    model.attention_pool.weight.data.copy_(1e4 * (tokens[0, 3] - tokens[0].mean(0)))
    furthest = (tokens[0] @ model.attention_pool.weight[0]).argmax()
    torch.testing.assert_close(model.pool(tokens[:1])[0], tokens[0, furthest])


def test_sine_positions_are_distinct_and_bounded() -> None:
    positions = sine_pos_embed(50, 16)
    assert positions.shape == (1, 50, 16)
    assert positions.abs().max() <= 1
    assert torch.cdist(positions, positions)[0].fill_diagonal_(1.0).min() > 0.1
    torch.testing.assert_close(positions[0, 0], torch.tensor([0.0, 1.0]).repeat(8))


@pytest.mark.parametrize("pos_embed", ["learn", "sine", "none"])
def test_images_of_other_sizes(tiny: Any, images: Any, pos_embed: str) -> None:
    model = tiny(pos_embed=pos_embed)
    for size in ((16, 16), (32, 24), (9, 50), (1, 1)):
        pixels = images(2, 3, *size)
        assert model(pixels).shape == (2, 5)
        assert model.features(pixels).grid == model.patch_embed.grid(*size)
        torch.testing.assert_close(model(pixels)[:1], model(pixels[:1]), rtol=1e-4, atol=1e-5)


def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(tiny: Any, images: Any) -> None:
    model, batch = tiny(), images(3, 3, 16, 16)
    alone = torch.cat([model(image[None]) for image in batch])
    assert alone.std(dim=0).max() > 1e-2
    torch.testing.assert_close(model(batch), alone, rtol=1e-4, atol=1e-5)
    others = torch.cat([batch[:1], images(2, 3, 16, 16, seed=1)])
    torch.testing.assert_close(model(others)[:1], alone[:1], rtol=1e-4, atol=1e-5)


def test_features_are_those_of_the_forward_pass(tiny: Any, images: Any) -> None:
    model, pixels = tiny(), images(2, 3, 16, 24)
    found = model.features(pixels)
    assert (found.grid, found.num_prefix_tokens, found.tokens.shape) == ((4, 6), 0, (2, 24, 24))
    torch.testing.assert_close(found.logits, model(pixels))
    torch.testing.assert_close(found.tokens, model.forward_features(pixels))
    torch.testing.assert_close(found.pooled, model.pool(found.tokens))
    assert len(found.blocks) == 2
    for block, inside in zip(model.blocks, found.blocks, strict=True):
        assert inside.query.shape == inside.key.shape == inside.value.shape == inside.heads.shape == (2, 3, 24, 8)
        torch.testing.assert_close(block.attn.mix(*inside[1:4]), inside.heads)
    torch.testing.assert_close(model.norm(found.blocks[-1].tokens), found.tokens)


def test_gradient_reaches_every_parameter(tiny: Any, images: Any) -> None:
    model = tiny().train()
    model(images(2, 3, 16, 16)).square().sum().backward()
    gradients = {name: parameter.grad.abs().max().item() for name, parameter in model.named_parameters()}
    # Softmax takes it out; the authors have it, and so have their weights.
    assert gradients.pop("attention_pool.bias") < 1e-3 * max(gradients.values())
    assert min(gradients.values()) > 1e-3 * max(gradients.values())
    assert model.blocks[0].attn.qkv.bias is None


def test_dropouts_act_in_training_alone(tiny: Any, images: Any) -> None:
    pixels = images(4, 3, 16, 16)
    for rate in ("pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"):
        model = tiny(**{rate: 0.5})
        torch.testing.assert_close(model(pixels), tiny()(pixels))
        torch.manual_seed(0)
        assert not torch.allclose(model.train()(pixels), tiny()(pixels)), rate


def test_weights_begin_as_the_authors() -> None:
    torch.manual_seed(0)
    model = create_model("cct_7_3x1_32", depth=1)
    assert model.pos_embed.std().item() == pytest.approx(0.2, rel=0.02)
    assert model.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.patch_embed.convs[0].weight.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.05)
    assert not any(
        module.bias.any() for module in model.modules() if isinstance(module, nn.Linear) and module.bias is not None
    )


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 4}, "kernel_size=4 is even, and has no middle; use 3 or 5"),
        ({"num_heads": 5}, "embed_dim=24 is not a multiple of num_heads=5; change one of them"),
        (
            {"embed_dim": 15, "pos_embed": "sine"},
            "embed_dim=15 is odd, which pos_embed='sine' cannot halve; use an even one",
        ),
        (
            {"mlp_ratio": 0.01},
            "mlp_ratio=0.01 leaves the MLP of embed_dim=24 no hidden layer; use a larger one",
        ),
        ({"depth": 0}, "depth=0 is not possible; use a number greater than 0"),
        ({"class_token": True}, "No model setting named 'class_token'. "),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        model_config("cct_2_3x2_32", **{**TINY, **settings})


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 1, 16, 16), (2, 3, 0, 16)])
def test_images_that_do_not_fit_are_refused(tiny: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^The model takes images of .*\(B, 3, rows, columns\)"):
        tiny()(torch.zeros(shape))


def test_positions_of_another_grid_are_refused(tiny: Any) -> None:
    model = tiny()
    model.grid = (5, 5)
    with pytest.raises(CheckpointError, match="16 position embeddings are not those of a grid of 5x5 patches"):
        model(torch.zeros(1, 3, 32, 32))


# Ways to run it


def test_bfloat16_and_channels_last(tiny: Any, images: Any) -> None:
    model, pixels = tiny(), images(2, 3, 16, 16)
    expected = model(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert F.cosine_similarity(model(pixels).float(), expected).min() > 0.99
    last = pixels.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(last), expected, rtol=1e-4, atol=1e-4)


def test_it_can_be_exported(tiny: Any, images: Any) -> None:
    model, pixels = tiny(), images(2, 3, 16, 16)
    program = torch.export.export(model, (pixels,))
    torch.testing.assert_close(program.module()(pixels), model(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_can_be_compiled(tiny: Any, images: Any) -> None:
    model, pixels = tiny(), images(2, 3, 16, 16)
    torch.testing.assert_close(torch.compile(model)(pixels), model(pixels), rtol=1e-4, atol=1e-4)
