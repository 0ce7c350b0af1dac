import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from vitrail.data import geometry
from vitrail.data.geometry import (
    apply_affine,
    apply_crop,
    apply_flip,
    draw_affine,
    draw_crop,
    draw_flip,
)

MOVES = {"shift_pixels": 2, "rotate_degrees": 30, "scale_rate": 0.2, "shear_degrees": 15}
RATIO = (3 / 4, 4 / 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num_images: int = 6, size: tuple[int, int] = (8, 8), channels: int = 1) -> Tensor:
    return torch.randint(0, 256, (num_images, channels, *size), generator=generator(1), dtype=torch.uint8)


# Random resized crops


@pytest.mark.parametrize("canvas", [(40, 40), (30, 60), (100, 10)])
def test_crops_are_drawn_as_torchvision_draws_them(canvas):
    """Mean and spread of place and size over 4,000 draws each, of which the last canvas often fits none."""
    ours = draw_crop(4000, canvas, (0.2, 0.9), RATIO, generator()).double()
    torch.manual_seed(0)
    image = torch.zeros(1, *canvas)
    crop = v2.RandomResizedCrop(8, scale=(0.2, 0.9), ratio=RATIO)
    drawn = [crop.make_params([image]) for _ in range(4000)]
    theirs = torch.tensor([[draw[key] for key in ("top", "left", "height", "width")] for draw in drawn]).double()
    side = torch.tensor([*canvas, *canvas])
    torch.testing.assert_close(ours.mean(dim=0) / side, theirs.mean(dim=0) / side, rtol=0, atol=0.02)
    torch.testing.assert_close(ours.std(dim=0) / side, theirs.std(dim=0) / side, rtol=0, atol=0.02)


@given(rows=st.integers(1, 60), columns=st.integers(1, 60), low=st.floats(0.01, 1), seed=st.integers(0, 1000))
def test_boxes_lie_inside_the_canvas(rows, columns, low, seed):
    top, left, height, width = draw_crop(20, (rows, columns), (low, 1.0), RATIO, generator(seed)).unbind(dim=1)
    for first, length, side in ((top, height, rows), (left, width, columns)):
        assert first.min() >= 0
        assert length.min() >= 1
        assert (first + length).max() <= side


@pytest.mark.parametrize(
    ("canvas", "box"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10)), ((9, 9), (0, 0, 9, 9))]
)
def test_where_no_crop_fits_the_middle_is_taken(canvas, box):
    boxes = draw_crop(3, canvas, (1.1, 1.2), RATIO, generator())
    assert boxes.tolist() == [[*box]] * 3


def test_each_image_can_have_a_canvas_of_its_own():
    sizes = torch.tensor([[8, 30], [30, 8], [12, 12]])
    own = draw_crop(3, sizes, (0.2, 1), RATIO, generator())
    for index, size in enumerate(sizes.tolist()):
        alone = draw_crop(3, (size[0], size[1]), (0.2, 1), RATIO, generator())
        assert torch.equal(own[index], alone[index])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("side", "size"), [(24, (9, 12)), (24, (40, 31)), (90, (64, 80))])
def test_crops_are_resized_as_one_image_after_the_other(channels, side, size):
    """Of noise, in which every pixel counts; 64 pixels is where one way of cutting gives place to the other."""
    images = noise(5, (side, side + 3), channels)
    boxes = draw_crop(5, (side, side + 3), (0.05, 1), RATIO, generator(2))
    cropped = apply_crop(images, boxes, size)
    assert (cropped.dtype, cropped.shape) == (torch.uint8, (5, channels, *size))
    assert cropped.is_contiguous()
    for image, (top, left, height, width), ours in zip(images, boxes.tolist(), cropped, strict=True):
        part = image[None, :, top : top + height, left : left + width].float()
        exact = F.interpolate(part, size, mode="bilinear", antialias=True)[0]
        assert (ours - exact).abs().max() <= 1.01  # half a level of rounding, and what integers lose in torch's kernel


def test_both_ways_of_cutting_agree(monkeypatch):
    images, boxes = noise(4, (40, 50), 3), draw_crop(4, (40, 50), (0.1, 1), RATIO, generator(1))
    at_once = apply_crop(images, boxes, (20, 25))
    monkeypatch.setattr(geometry, "_SMALL_SIDE", 0)
    one_by_one = apply_crop(images, boxes, (20, 25))
    difference = at_once.float() - one_by_one.float()
    assert difference.abs().max() <= 1
    assert difference.mean().abs() < 0.02


def test_threads_and_strides_change_no_bit(monkeypatch):
    monkeypatch.setattr(geometry, "_SMALL_SIDE", 0)
    images, boxes = noise(30, (40, 50), 3), draw_crop(30, (40, 50), (0.1, 1), RATIO, generator(1))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = apply_crop(images, boxes, (20, 25))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(apply_crop(images, boxes, (20, 25)), alone)
    last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(apply_crop(last, boxes, (20, 25)), alone)


@pytest.mark.parametrize("side", [12, 80])
def test_a_crop_of_everything_at_the_same_size_keeps_every_bit(side):
    images = noise(2, (side, side), 3)
    boxes = torch.tensor([[0, 0, side, side]] * 2)
    assert torch.equal(apply_crop(images, boxes, (side, side)), images)


# Affine moves


@pytest.mark.parametrize("size", [(8, 8), (8, 12)])
def test_zero_limits_are_the_identity(size):
    theta = draw_affine(6, size, generator())
    assert torch.equal(theta, torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(6, 2, 3))
    images = noise(6, size, 3)
    moved = apply_affine(images, theta)
    assert (moved.dtype, moved.shape) == (torch.float32, images.shape)
    torch.testing.assert_close(moved, images / 255, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 10), (33, 28), (64, 80)])
def test_places_are_torchs_bit_for_bit(size):
    theta = draw_affine(20, size, generator(), **MOVES)
    theirs = F.affine_grid(theta, [20, 3, *size], align_corners=False)
    assert torch.equal(geometry._grid(theta, *size), theirs)


def test_float_images_stay_in_their_range():
    images = noise(4) / 255
    moved = apply_affine(images, draw_affine(4, (8, 8), generator(), **MOVES))
    torch.testing.assert_close(moved, apply_affine(noise(4), draw_affine(4, (8, 8), generator(), **MOVES)))
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6


@pytest.mark.parametrize("size", [(8, 8), (6, 12)])
@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, 3), (-1, 2)])
def test_a_shift_moves_by_whole_pixels_and_leaves_black(size, right, down):
    rows, columns = size
    images = noise(2, size)
    theta = torch.tensor([[1.0, 0, -2 * right / columns], [0, 1, -2 * down / rows]]).expand(2, 2, 3)
    expected = torch.zeros(images.shape)
    for row in range(rows):
        for column in range(columns):
            if 0 <= row - down < rows and 0 <= column - right < columns:
                expected[:, :, row, column] = images[:, :, row - down, column - right] / 255
    torch.testing.assert_close(apply_affine(images, theta), expected, rtol=0, atol=1e-4)


def test_shifts_are_drawn_up_to_their_limit_along_each_axis():
    theta = draw_affine(4000, (10, 20), generator(), shift_pixels=3)
    assert torch.equal(theta[:, :, :2], torch.eye(2).expand(4000, 2, 2))
    pixels = theta[:, :, 2] * torch.tensor([20, 10]) / 2
    assert pixels.abs().max() <= 3
    for axis in (0, 1):
        assert pixels[:, axis].min() < -2.9
        assert pixels[:, axis].max() > 2.9
        assert abs(pixels[:, axis].mean()) < 0.15
    assert abs(torch.corrcoef(pixels.T)[0, 1]) < 0.1


def rotated_by(degrees: float, size: tuple[int, int]) -> Tensor:
    """The map that `draw_affine` gives for one angle: every draw at its limit, on the side that `degrees` is on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            geometry, "uniform", lambda shape, limit, generator: torch.full(shape, math.copysign(limit, degrees))
        )
        return draw_affine(1, size, generator(), rotate_degrees=abs(degrees))


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_right_angles_turn_as_rot90_does(degrees):
    images = noise(1, (7, 7), 3)
    turned = apply_affine(images, rotated_by(degrees, (7, 7)))
    expected = torch.rot90(images / 255, k=degrees // 90, dims=(2, 3))
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(21, 21), (15, 31)])
def test_a_rotation_keeps_shapes_in_images_of_any_aspect(size):
    rows, columns = size
    down, right = np.mgrid[:rows, :columns].astype(np.float32)
    middle = ((rows - 1) / 2, (columns - 1) / 2)
    blob = np.exp(-((down - middle[0] - 2) ** 2 + (right - middle[1] - 5) ** 2) / 4)
    turned = apply_affine(torch.from_numpy(blob)[None, None], rotated_by(30, size))[0, 0]
    expected = ndimage.rotate(blob, 30, reshape=False, order=1)
    np.testing.assert_allclose(turned, expected, atol=0.02)
    assert np.abs(blob - expected).max() > 0.5


def test_scales_and_shears_are_drawn_up_to_their_limits():
    scaled = draw_affine(2000, (8, 8), generator(), scale_rate=0.25)
    assert torch.equal(scaled[:, 0, 0], scaled[:, 1, 1])
    factors = 1 / scaled[:, 0, 0]
    assert 0.75 <= factors.min() < 0.76
    assert 1.24 < factors.max() <= 1.25
    sheared = draw_affine(2000, (8, 16), generator(), shear_degrees=20)
    assert torch.equal(sheared[:, 1], torch.tensor([0.0, 1, 0]).expand(2000, 3))
    degrees = torch.rad2deg(torch.atan(sheared[:, 0, 1] * 16 / 8))
    assert 19.5 < degrees.max() <= 20.001
    assert -20.001 <= degrees.min() < -19.5


def test_a_larger_scale_shows_less_of_the_image():
    images = torch.zeros(1, 1, 9, 9)
    images[..., 3:6, 3:6] = 1
    grown = apply_affine(images, torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]))
    assert grown.sum() > 3 * images.sum()


# Flips


def test_flipped_images_are_mirrored_left_to_right():
    images = noise(3, (2, 4), 3)
    flipped = apply_flip(images, torch.tensor([True, False, True]))
    assert torch.equal(flipped[1], images[1])
    for index in (0, 2):
        assert torch.equal(flipped[index], images[index][:, :, [3, 2, 1, 0]])


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_rate_is_the_part_that_is_flipped(rate):
    assert abs(draw_flip(5000, rate, generator()).float().mean() - rate) < (0.02 if 0 < rate < 1 else 1e-9)
