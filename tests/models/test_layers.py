import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import normalize

from vitrail.errors import ConfigError
from vitrail.models.layers import (
    ACTIVATIONS,
    AttentionPool,
    ConvStem,
    DropPath,
    LayerScale,
    Mlp,
    Normalize,
    PatchEmbed,
    SwiGlu,
    check_images,
    init_weights,
    make_stem,
)
from vitrail.models.padding import inside


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scrambled(module: nn.Module) -> nn.Module:
    """The module with every parameter drawn anew, so that no bias is zero and no scale one."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return module


# Normalize


def test_normalize_equals_torchvision() -> None:
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    torch.testing.assert_close(Normalize(mean, std)(images), normalize(images, list(mean), list(std)))


def test_normalize_takes_bytes_as_parts_of_255() -> None:
    layer = Normalize((0.5, 0.2), (0.5, 0.1))
    pixels = torch.randint(0, 256, (2, 2, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(pixels), layer(pixels.float() / 255))
    assert layer(torch.tensor([[[[0, 255]], [[0, 255]]]], dtype=torch.uint8)).tolist() == [
        [[[-1.0, 1.0]], [[-2.0, 8.0]]]
    ]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8, torch.uint16, torch.bool, torch.complex64])
def test_images_of_a_type_that_tells_no_range_are_refused(dtype: torch.dtype) -> None:
    message = (
        f"The model takes images as uint8 in 0..255 or as float in 0..1, not {str(dtype).removeprefix('torch.')}; "
        "convert them first, bytes with images.to(torch.uint8)"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Normalize((0.5,), (0.5,))(torch.ones(1, 1, 2, 2).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_may_be_of_any_precision(dtype: torch.dtype) -> None:
    images = torch.tensor([[[[0.0, 0.25, 1.0]]]])
    assert torch.equal(Normalize((0.5,), (0.5,))(images.to(dtype)), images * 2 - 1)


def test_normalize_has_buffers_that_are_no_weights() -> None:
    layer = Normalize((0.5,), (0.5,))
    assert layer.state_dict() == {}
    assert dict(layer.named_buffers()).keys() == {"mean", "std"}


def test_the_shape_of_images_is_checked() -> None:
    check_images(torch.zeros(2, 3, 8, 15), 3, (4, 5))
    message = (
        "The model takes images of (batch, channels, rows, columns) (B, 3, rows, columns), in multiples of 4 and 5 "
        "pixels, not (2, 3, 4, 6); resize them, or create the model with another in_chans or patch_size"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        check_images(torch.zeros(2, 3, 4, 6), 3, (4, 5))
    message = message.replace(", in multiples of 4 and 5 pixels", "").replace("(2, 3, 4, 6)", "(2, 1, 4, 6)")
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        check_images(torch.zeros(2, 1, 4, 6), 3)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 4, 5), (2, 3, 4), (2, 3, 0, 5), (2, 3, 4, 0)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    for layer in (PatchEmbed((2, 5), 3, 6), ConvStem(4, 3, 6)):
        with pytest.raises(ConfigError, match=r"takes images of .*\(B, 3, rows, columns\)"):
            layer(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 3, 5), (2, 3, 4, 12)])
def test_images_that_are_not_whole_patches_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"in multiples of 2 and 5 pixels, not {shape}")):
        PatchEmbed((2, 5), 3, 6)(torch.zeros(shape))


# Patches


@pytest.mark.parametrize(
    ("image_size", "patch_size", "channels"),
    [((8, 8), (4, 4), 3), ((6, 20), (3, 5), 1), ((7, 14), (7, 7), 5), ((4, 4), (4, 4), 2), ((3, 5), (1, 1), 3)],
)
def test_patch_embed_equals_its_strided_convolution(
    image_size: tuple[int, int], patch_size: tuple[int, int], channels: int
) -> None:
    layer = scrambled(PatchEmbed(patch_size, channels, 6))
    assert isinstance(layer, PatchEmbed)
    images = noise(2, channels, *image_size)
    expected = layer.proj(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(layer(images), expected)
    grid = (image_size[0] // patch_size[0], image_size[1] // patch_size[1])
    assert layer.grid(*image_size) == grid
    assert layer(images).shape == (2, grid[0] * grid[1], 6)


def test_patch_embed_takes_images_in_any_memory_layout() -> None:
    layer = PatchEmbed((3, 4), 3, 5)
    images = noise(2, 3, 6, 8)
    for laid_out in (
        images.contiguous(memory_format=torch.channels_last),
        images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        torch.cat([images, images], dim=3)[..., :8],
    ):
        assert not laid_out.is_contiguous()
        torch.testing.assert_close(layer(laid_out), layer(images))


def test_patches_are_in_row_major_order() -> None:
    layer = PatchEmbed((2, 2), 1, 1)
    nn.init.constant_(layer.proj.weight, 0.25)
    nn.init.zeros_(layer.proj.bias)
    numbers = torch.arange(6.0).view(1, 1, 2, 3)
    images = numbers.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert layer(images).flatten().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("image_size", "patch_size", "grid"),
    [((28, 28), 8, (4, 4)), ((8, 8), 4, (2, 2)), ((30, 45), 16, (2, 3)), ((1, 1), 4, (1, 1)), ((33, 64), 32, (2, 2))],
)
def test_conv_stem_rounds_its_grid_up(image_size: tuple[int, int], patch_size: int, grid: tuple[int, int]) -> None:
    stem = ConvStem(patch_size, 1, 4)
    assert stem.grid(*image_size) == grid
    assert stem(noise(2, 1, *image_size)).shape == (2, grid[0] * grid[1], 4)


def test_conv_stem_is_convolutions_of_stride_two_each_with_a_gelu() -> None:
    stem = scrambled(ConvStem(8, 3, 6))
    assert isinstance(stem, ConvStem)
    images = noise(2, 3, 12, 20)
    maps = images
    for index, (before, after) in enumerate([(3, 3), (3, 6), (6, 6)]):
        conv = stem.convs[index]
        assert conv.weight.shape == (after, before, 3, 3)
        maps = F.gelu(F.conv2d(F.pad(maps, (1, 1, 1, 1)), conv.weight, conv.bias, stride=2))
    torch.testing.assert_close(stem(images), maps.flatten(2).transpose(1, 2))
    assert len(stem.convs) == 3


@pytest.mark.parametrize(("rows", "columns"), [(12, 20), (9, 5), (1, 3)])
def test_a_padded_image_goes_through_convolutions_as_alone(rows: int, columns: int) -> None:
    stem, image = scrambled(ConvStem(8, 3, 6)), noise(1, 3, rows, columns)
    assert isinstance(stem, ConvStem)
    padded = torch.cat([F.pad(image, (0, 24 - columns, 0, 16 - rows)), noise(1, 3, 16, 24)])
    maps = stem(padded, inside(torch.tensor([[rows, columns], [16, 24]]), (16, 24))).unflatten(1, (2, 3))
    grid = stem.grid(rows, columns)
    torch.testing.assert_close(maps[0, : grid[0], : grid[1]].flatten(0, 1), stem(image)[0])
    torch.testing.assert_close(maps[1].flatten(0, 1), stem(padded[1:])[0])
    outside = torch.ones(2, 3, dtype=torch.bool)
    outside[: grid[0], : grid[1]] = False
    assert not maps[0, outside].any()


def test_patches_can_be_normalised_before_and_after_their_projection() -> None:
    layer = scrambled(PatchEmbed((2, 3), 3, 6, norm_eps=1e-2))
    assert isinstance(layer, PatchEmbed)
    images = noise(2, 3, 4, 9)
    patches = F.unfold(images, (2, 3), stride=(2, 3)).transpose(1, 2)  # channels before pixels, as the kernel has them
    patches = F.layer_norm(patches, (18,), layer.pre_norm.weight, layer.pre_norm.bias, eps=1e-2)
    tokens = patches @ layer.proj.weight.flatten(1).T + layer.proj.bias
    expected = F.layer_norm(tokens, (6,), layer.norm.weight, layer.norm.bias, eps=1e-2)
    torch.testing.assert_close(layer(images), expected, rtol=1e-4, atol=1e-5)


# Attention pooling


def test_attention_pool_equals_one_query_written_out() -> None:
    pool = scrambled(AttentionPool(8, 2, 1.5, "relu"))
    assert isinstance(pool, AttentionPool)
    tokens = noise(3, 5, 8)
    query = (pool.latent[0, 0] @ pool.q.weight.T + pool.q.bias).view(2, 4)
    key, value = (tokens @ pool.kv.weight.T + pool.kv.bias).split(8, dim=-1)
    probabilities = torch.einsum("hk,bnhk->bhn", query, key.view(3, 5, 2, 4)).div(4**0.5).softmax(dim=-1)
    pooled = torch.einsum("bhn,bnhk->bhk", probabilities, value.view(3, 5, 2, 4)).flatten(1)
    pooled = pooled @ pool.proj.weight.T + pool.proj.bias
    normed = F.layer_norm(pooled, (8,), pool.norm.weight, pool.norm.bias, eps=1e-6)
    hidden = F.relu(normed @ pool.mlp.fc1.weight.T + pool.mlp.fc1.bias)
    assert hidden.shape == (3, 12)
    torch.testing.assert_close(pool(tokens), pooled + hidden @ pool.mlp.fc2.weight.T + pool.mlp.fc2.bias)


def test_attention_pool_does_not_mind_the_order_of_tokens() -> None:
    pool = scrambled(AttentionPool(8, 2, 2.0))
    tokens = noise(3, 5, 8)
    torch.testing.assert_close(pool(tokens[:, [3, 1, 4, 0, 2]]), pool(tokens))


def test_attention_pool_leaves_out_what_is_masked() -> None:
    pool, tokens = scrambled(AttentionPool(8, 2, 2.0)), noise(2, 5, 8)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0]], dtype=torch.bool)
    expected = torch.cat([pool(tokens[index : index + 1, kept]) for index, kept in enumerate(mask)])
    torch.testing.assert_close(pool(tokens, mask[:, None, None]), expected)


# Mlp


@pytest.mark.parametrize("bias", [True, False])
def test_mlp_with_gelu_equals_the_exact_formula(bias: bool) -> None:
    mlp = scrambled(Mlp(4, 6, bias=bias))
    assert isinstance(mlp, Mlp)
    assert (mlp.fc1.bias is not None, mlp.fc2.bias is not None) == (bias, bias)
    tokens = noise(2, 3, 4)
    hidden = tokens @ mlp.fc1.weight.T + (mlp.fc1.bias if bias else 0.0)
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2  # not the approximation by tanh
    torch.testing.assert_close(mlp(tokens), hidden @ mlp.fc2.weight.T + (mlp.fc2.bias if bias else 0.0))


def test_mlp_with_relu_cuts_at_zero() -> None:
    mlp = scrambled(Mlp(4, 6, "relu"))
    assert isinstance(mlp, Mlp)
    tokens = noise(2, 3, 4)
    hidden = (tokens @ mlp.fc1.weight.T + mlp.fc1.bias).clamp(min=0)
    torch.testing.assert_close(mlp(tokens), hidden @ mlp.fc2.weight.T + mlp.fc2.bias)
    assert {*ACTIVATIONS} == {"gelu", "gelu_tanh", "relu", "silu"}


@pytest.mark.parametrize(("name", "activation"), [("gelu_tanh", nn.GELU(approximate="tanh")), ("silu", nn.SiLU())])
def test_mlp_with_other_activations(name: str, activation: nn.Module) -> None:
    mlp, tokens = scrambled(Mlp(4, 6, name)), noise(2, 3, 4)
    assert isinstance(mlp, Mlp)
    torch.testing.assert_close(mlp(tokens), mlp.fc2(activation(mlp.fc1(tokens))))
    assert (mlp(tokens) - mlp.fc2(F.gelu(mlp.fc1(tokens)))).abs().max() > 1e-5


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu_is_a_gate_times_a_value(bias: bool) -> None:
    mlp, tokens = scrambled(SwiGlu(4, 6, bias=bias)), noise(2, 3, 4)
    assert isinstance(mlp, SwiGlu)
    assert (mlp.fc1.bias is not None, mlp.fc2.bias is not None) == (bias, bias)
    gate, value = (
        tokens @ mlp.fc1.weight[rows].T + (mlp.fc1.bias[rows] if bias else 0.0) for rows in (slice(6), slice(6, 12))
    )
    hidden = gate * torch.sigmoid(gate) * value
    torch.testing.assert_close(mlp(tokens), hidden @ mlp.fc2.weight.T + (mlp.fc2.bias if bias else 0.0))


@pytest.mark.parametrize("kind", [Mlp, SwiGlu])
def test_mlps_drop_inside_and_at_the_end(kind: type[Mlp | SwiGlu]) -> None:
    mlp = scrambled(kind(4, 6, drop=0.5))
    tokens = noise(1, 1, 4).expand(1, 6000, -1)
    torch.manual_seed(0)
    out = mlp(tokens)
    assert 0.45 < (out == 0).double().mean() < 0.55
    assert len(out[0, :, 0].unique()) > 10  # hidden values are dropped too
    wanted = mlp.eval()(tokens)
    torch.testing.assert_close(out.mean(dim=1), wanted.mean(dim=1), rtol=0.0, atol=0.05)


def test_layer_scale_is_a_factor_for_each_channel() -> None:
    layer, branch = LayerScale(4, 0.25), noise(2, 3, 4)
    torch.testing.assert_close(layer(branch), branch / 4)
    layer.gamma.data = torch.tensor([1.0, 0.0, -1.0, 2.0])
    torch.testing.assert_close(layer(branch)[..., [1, 3]], torch.stack([branch[..., 1] * 0, branch[..., 3] * 2], -1))


# DropPath


def test_drop_path_leaves_out_whole_branches_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    out = DropPath(0.25)(torch.ones(20_000, 2, 3))
    kept = out[:, 0, 0] > 0
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 4 / 3))
    assert out[~kept].abs().max() == 0
    deviation = (0.25 * 0.75 / 20_000) ** 0.5
    assert abs(kept.double().mean().item() - 0.75) < 4 * deviation


def test_drop_path_does_nothing_after_training_or_at_rate_zero() -> None:
    branch = noise(4, 2, 3)
    assert torch.equal(DropPath(0.9).eval()(branch), branch)
    assert torch.equal(DropPath(0.0)(branch), branch)


def test_weights_begin_by_what_their_layer_does() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"patch_embed": make_stem("conv", (4, 4), 3, 64), "fc": nn.Linear(64, 256)})
    model["conv"] = nn.Conv2d(64, 256, kernel_size=1)
    model["norm"] = nn.LayerNorm(64)
    init_weights(model)
    for name, deviation in {
        "patch_embed.convs.0": (2 / 27) ** 0.5,
        "patch_embed.convs.1": (2 / 288) ** 0.5,
        "fc": 0.02,
        "conv": 0.02,
    }.items():
        layer = model.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.15), name
        assert not layer.bias.any()
    assert (model["norm"].weight == 1).all()
    projection = nn.ModuleDict({"patch_embed": make_stem("linear", (4, 4), 3, 64)})
    init_weights(projection)
    assert projection["patch_embed"].proj.weight.std().item() == pytest.approx(48**-0.5, rel=0.15)
