import math

import pytest
import torch
from vit_pytorch.simple_vit import posemb_sincos_2d

from vitrail.errors import ConfigError
from vitrail.models.positions import sincos2d_pos_embed


@pytest.mark.parametrize(("grid", "dim"), [((4, 4), 16), ((3, 7), 24), ((7, 2), 8), ((1, 1), 12)])
def test_sincos2d_equals_vit_pytorch(grid: tuple[int, int], dim: int) -> None:
    torch.testing.assert_close(sincos2d_pos_embed(grid, dim)[0], posemb_sincos_2d(*grid, dim))


def test_sincos2d_of_the_smallest_width_is_finite() -> None:
    first = sincos2d_pos_embed((1, 2), 4)[0]
    torch.testing.assert_close(first, torch.tensor([[0, 1, 0, 1], [math.sin(1), math.cos(1), 0, 1]]))


def test_sincos2d_needs_a_width_of_four_parts() -> None:
    with pytest.raises(ConfigError, match=r"^embed_dim=10 is not a multiple of 4, which pos_embed='sincos2d' needs$"):
        sincos2d_pos_embed((2, 2), 10)
