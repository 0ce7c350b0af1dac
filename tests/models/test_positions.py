import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3, apply_rot_embed_cat
from torch import Tensor
from vit_pytorch.simple_vit import posemb_sincos_2d

from vitrail.errors import CheckpointError, ConfigError
from vitrail.models.positions import (
    Rotation,
    resize_pos_embed,
    rotary_positions,
    rotate,
    sincos2d_pos_embed,
)
from vitrail.models.vit import VisionTransformer

GRIDS = st.tuples(st.integers(1, 7), st.integers(1, 7))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Sine and cosine


@pytest.mark.parametrize(("grid", "dim"), [((4, 4), 16), ((3, 7), 24), ((7, 2), 8), ((1, 1), 12)])
def test_sincos2d_equals_vit_pytorch(grid: tuple[int, int], dim: int) -> None:
    torch.testing.assert_close(sincos2d_pos_embed(grid, dim)[0], posemb_sincos_2d(*grid, dim))


def test_sincos2d_of_the_smallest_width_is_finite() -> None:
    first = sincos2d_pos_embed((1, 2), 4)[0]
    torch.testing.assert_close(first, torch.tensor([[0, 1, 0, 1], [math.sin(1), math.cos(1), 0, 1]]))


def test_sincos2d_needs_a_width_of_four_parts() -> None:
    with pytest.raises(ConfigError, match=r"^embed_dim=10 is not a multiple of 4, which pos_embed='sincos2d' needs$"):
        sincos2d_pos_embed((2, 2), 10)


# Learned positions at another size


@given(GRIDS)
def test_resizing_to_the_same_grid_is_the_identity(grid: tuple[int, int]) -> None:
    pos_embed = noise(1, grid[0] * grid[1], 8)
    assert torch.equal(resize_pos_embed(pos_embed, grid, grid), pos_embed)


@settings(max_examples=25)
@given(GRIDS, GRIDS)
def test_resizing_equals_timms(old: tuple[int, int], new: tuple[int, int]) -> None:
    pos_embed = noise(1, old[0] * old[1], 8)
    expected = resample_abs_pos_embed(pos_embed, list(new), list(old), num_prefix_tokens=0)
    torch.testing.assert_close(resize_pos_embed(pos_embed, old, new), expected.view(1, -1, 8))


def test_resizing_without_antialiasing_equals_torchs_own() -> None:
    maps = noise(1, 8, 7, 5)
    expected = torch.nn.functional.interpolate(maps, size=(3, 4), mode="bicubic").flatten(2).mT
    resized = resize_pos_embed(maps.flatten(2).mT, (7, 5), (3, 4), antialias=False)
    torch.testing.assert_close(resized, expected)
    assert (resized - resize_pos_embed(maps.flatten(2).mT, (7, 5), (3, 4))).abs().max() > 0.1


@settings(max_examples=25)
@given(GRIDS, GRIDS)
def test_what_is_the_same_everywhere_stays_so(old: tuple[int, int], new: tuple[int, int]) -> None:
    values = noise(1, 1, 8)
    resized = resize_pos_embed(values.expand(1, old[0] * old[1], 8), old, new)
    torch.testing.assert_close(resized, values.expand(1, new[0] * new[1], 8), rtol=1e-4, atol=1e-5)


def test_rows_and_columns_are_told_apart() -> None:
    rows = torch.arange(2.0).repeat_interleave(8).view(1, 16, 1)  # 2 rows of 8, told apart by the row
    taller = resize_pos_embed(rows, (2, 8), (4, 4)).view(4, 4)
    torch.testing.assert_close(taller, taller[:, :1].expand(4, 4))
    assert (taller[1:, 0] > taller[:-1, 0]).all()


def test_a_type_of_few_bits_is_kept() -> None:
    pos_embed = noise(1, 4, 8)
    resized = resize_pos_embed(pos_embed.bfloat16(), (2, 2), (3, 5))
    assert resized.dtype == torch.bfloat16
    torch.testing.assert_close(resized.float(), resize_pos_embed(pos_embed, (2, 2), (3, 5)), rtol=0.02, atol=0.02)


def test_positions_of_another_grid_are_refused() -> None:
    message = "10 position embeddings are not those of a grid of 3x3 patches"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        resize_pos_embed(noise(1, 10, 4), (3, 3), (3, 3))


# Rotary positions


@settings(max_examples=25)
@given(GRIDS, st.sampled_from([4, 8, 20]), st.sampled_from([100.0, 7.0]))
def test_rotary_positions_equal_timms_of_dinov3(grid: tuple[int, int], head_dim: int, temperature: float) -> None:
    theirs = RotaryEmbeddingDinoV3(head_dim, temperature=temperature, feat_shape=list(grid), rotate_half=True)
    sin, cos = theirs.get_embed().chunk(2, dim=-1)
    ours = rotary_positions(grid, head_dim, temperature)
    torch.testing.assert_close(ours.sin, sin, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.cos, cos, rtol=1e-4, atol=1e-5)
    heads = noise(2, 3, 1 + grid[0] * grid[1], head_dim)
    turned = apply_rot_embed_cat(heads[:, :, 1:], theirs.get_embed(), half=True)
    torch.testing.assert_close(rotate(heads, ours), torch.cat([heads[:, :, :1], turned], dim=2), rtol=1e-4, atol=1e-5)


def test_turning_keeps_lengths_and_scores_know_the_distance_alone() -> None:
    rotation = rotary_positions((4, 4), 8)
    query, key = noise(8).expand(1, 1, 16, 8), noise(8, seed=1).expand(1, 1, 16, 8)
    turned = rotate(query, rotation)
    torch.testing.assert_close(turned.norm(dim=-1), query.norm(dim=-1))
    scores = (turned @ rotate(key, rotation).mT)[0, 0].view(4, 4, 4, 4)
    torch.testing.assert_close(scores[:3, :3, :3, :3], scores[1:, 1:, 1:, 1:], rtol=1e-4, atol=1e-4)
    assert scores.std() > 0.1


def test_tokens_in_front_are_not_turned() -> None:
    heads, rotation = noise(2, 3, 2 + 6, 4), rotary_positions((2, 3), 4)
    turned = rotate(heads, rotation)
    assert torch.equal(turned[:, :, :2], heads[:, :, :2])
    torch.testing.assert_close(turned[:, :, 2:], rotate(heads[:, :, 2:], rotation))


def test_each_image_may_have_positions_of_its_own() -> None:
    heads = noise(2, 3, 6, 4)
    pair = rotary_positions((2, 3), 4), rotary_positions((3, 2), 4)
    together = Rotation(*(torch.stack(parts)[:, None] for parts in zip(*pair, strict=True)))
    apart = torch.cat([rotate(heads[index : index + 1], rotation) for index, rotation in enumerate(pair)])
    torch.testing.assert_close(rotate(heads, together), apart)


def test_rotary_positions_need_heads_of_four_parts() -> None:
    with pytest.raises(ConfigError, match=r"^head_dim=6 is not a multiple of 4, which pos_embed='rope' needs$"):
        rotary_positions((2, 2), 6)


# In the model


@pytest.mark.parametrize("pos_embed", ["learn", "sincos2d", "rope"])
def test_positions_follow_the_size_of_the_images(
    tiny_vit: Callable[..., VisionTransformer], images: Callable[..., Tensor], pos_embed: str
) -> None:
    model = tiny_vit(pos_embed=pos_embed, global_pool="avg")
    batch = images(2, 3, 8, 20)
    flipped = model(batch.flip(3))
    assert (flipped - model(batch)).abs().max() > 1e-2
    if pos_embed == "sincos2d":
        embedded = model.embed(batch).tokens[:, 1:] - model.patch_embed(model.normalize(batch))
        expected = sincos2d_pos_embed((2, 5), 24).expand(2, -1, -1)
        torch.testing.assert_close(embedded, expected, rtol=1e-4, atol=1e-4)
