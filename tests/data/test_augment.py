import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2 import functional as torchvision_functional

from vitrail.data import augment
from vitrail.data.augment import (
    AugmentConfig,
    apply_affine,
    apply_color_jitter,
    apply_cutmix,
    apply_erase,
    apply_flip,
    apply_mixup,
    augment_batch,
    draw_affine,
    draw_color_jitter,
    draw_cutmix,
    draw_erase,
    draw_flip,
    draw_mixup,
    seed_of,
)

MOVES = AugmentConfig(shift_pixels=2, rotate_degrees=30, scale_rate=0.2, shear_degrees=15)
EVERYTHING = MOVES.model_copy(
    update={"flip_rate": 0.5, "color_jitter": 0.3, "erase_rate": 0.5, "mixup_alpha": 0.4, "cutmix_rate": 0.5}
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num_images: int = 6, size: tuple[int, int] = (8, 8), channels: int = 1) -> Tensor:
    return torch.randint(0, 256, (num_images, channels, *size), generator=generator(1), dtype=torch.uint8)


DRAWS = {
    "affine": lambda g: draw_affine(9, (8, 6), MOVES, g),
    "flip": lambda g: draw_flip(9, 0.5, g),
    "erase": lambda g: draw_erase(9, (8, 6), 0.7, g),
    "color_jitter": lambda g: draw_color_jitter(9, 0.3, g),
    "mixup": lambda g: torch.stack(draw_mixup(9, 0.4, g)),
    "cutmix": lambda g: draw_cutmix(9, (8, 6), 0.7, g)[0],
    "cutmix_partner": lambda g: draw_cutmix(9, (8, 6), 0.7, g)[1],
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_parameters_are_a_function_of_the_generator_alone(draw):
    torch.manual_seed(1)
    first = draw(generator(5))
    torch.manual_seed(2)
    torch.rand(3)
    assert torch.equal(draw(generator(5)), first)
    assert not torch.equal(draw(generator(6)), first)


APPLICATIONS = {
    "affine": (lambda g: draw_affine(9, (8, 6), MOVES, g), apply_affine),
    "flip": (lambda g: draw_flip(9, 0.5, g), apply_flip),
    "color_jitter": (lambda g: draw_color_jitter(9, 0.3, g), apply_color_jitter),
    "erase": (lambda g: draw_erase(9, (8, 6), 0.7, g), apply_erase),
}


@pytest.mark.parametrize(("draw", "apply"), APPLICATIONS.values(), ids=APPLICATIONS)
def test_applying_a_slice_gives_the_slice_of_the_whole(draw, apply):
    images, parameters = noise(9, (8, 6), 3), draw(generator(3))
    whole = apply(images, parameters)
    for part in (slice(0, 4), slice(4, 9), slice(7, 8)):
        torch.testing.assert_close(apply(images[part], parameters[part]), whole[part], rtol=0, atol=1e-6)
    assert not torch.equal(whole * 1.0, images / (1.0 if whole.dtype == torch.uint8 else 255))


@pytest.mark.parametrize(("draw", "apply"), APPLICATIONS.values(), ids=APPLICATIONS)
def test_images_are_not_changed_in_place(draw, apply):
    images = noise(9, (8, 6))
    before = images.clone()
    apply(images, draw(generator(3)))
    assert torch.equal(images, before)


@given(keys=st.lists(st.integers(0, 2**64), min_size=1, max_size=5))
def test_seeds_are_63_bits_and_a_function_of_their_keys(keys):
    seed = seed_of(*keys)
    assert 0 <= seed < 2**63
    assert seed_of(*keys) == seed
    torch.Generator().manual_seed(seed)


def test_seeds_are_these_on_every_machine_and_differ():
    assert seed_of(0, 1, 2, 1) == 172699531396876328
    seeds = {seed_of(*keys) for keys in np.ndindex(4, 4, 4, 3)}
    assert len(seeds) == 4 * 4 * 4 * 3


# Affine moves


@pytest.mark.parametrize("size", [(8, 8), (8, 12)])
def test_zero_limits_are_the_identity(size):
    theta = draw_affine(6, size, AugmentConfig(), generator())
    assert torch.equal(theta, torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(6, 2, 3))
    images = noise(6, size, 3)
    moved = apply_affine(images, theta)
    assert (moved.dtype, moved.shape) == (torch.float32, images.shape)
    torch.testing.assert_close(moved, images / 255, rtol=0, atol=1e-5)


def test_float_images_stay_in_their_range():
    images = noise(4) / 255
    moved = apply_affine(images, draw_affine(4, (8, 8), MOVES, generator()))
    torch.testing.assert_close(moved, apply_affine(noise(4), draw_affine(4, (8, 8), MOVES, generator())))
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
    theta = draw_affine(4000, (10, 20), AugmentConfig(shift_pixels=3), generator())
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
    config = AugmentConfig(rotate_degrees=abs(degrees))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            augment, "_uniform", lambda shape, limit, generator: torch.full(shape, math.copysign(limit, degrees))
        )
        return draw_affine(1, size, config, generator())


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
    scaled = draw_affine(2000, (8, 8), AugmentConfig(scale_rate=0.25), generator())
    assert torch.equal(scaled[:, 0, 0], scaled[:, 1, 1])
    factors = 1 / scaled[:, 0, 0]
    assert 0.75 <= factors.min() < 0.76
    assert 1.24 < factors.max() <= 1.25
    sheared = draw_affine(2000, (8, 16), AugmentConfig(shear_degrees=20), generator())
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


# Colours


@pytest.mark.parametrize("factors", [(1.2, 0.7, 1.3), (0.8, 1.3, 0.0), (1.0, 1.0, 0.5), (0.9, 0.6, 1.0)])
def test_colours_change_as_torchvisions_do(factors):
    brightness, contrast, saturation = factors
    images = 0.3 + 0.3 * torch.rand(
        3, 3, 5, 7, generator=generator(2)
    )  # within 0..1 at every step: clipped once or thrice
    changed = torchvision_functional.adjust_brightness(images, brightness)
    changed = torchvision_functional.adjust_contrast(changed, contrast)
    changed = torchvision_functional.adjust_saturation(changed, saturation)
    ours = apply_color_jitter(images, torch.tensor([factors] * 3))
    torch.testing.assert_close(ours, changed, rtol=0, atol=2e-4)  # its grey has weights that add up to 0.9999
    assert (ours - images).abs().max() > 0.02


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_factors_of_one_change_no_colour(channels):
    images = noise(3, (4, 5), channels)
    torch.testing.assert_close(apply_color_jitter(images, torch.ones(3, 3)), images / 255, rtol=0, atol=1e-6)


def test_grey_images_have_no_saturation_and_values_stay_in_their_range():
    images = noise(4)
    wild, grey = torch.tensor([[1.9, 1.9, 1.0]] * 4), torch.tensor([[1.9, 1.9, 0.1]] * 4)
    changed = apply_color_jitter(images, wild)
    torch.testing.assert_close(apply_color_jitter(images, grey), changed)
    assert (changed.min(), changed.max()) == (0, 1)


def test_factors_are_drawn_up_to_their_limit_each_for_itself():
    factors = draw_color_jitter(4000, 0.3, generator())
    assert factors.shape == (4000, 3)
    assert 0.7 <= factors.min() < 0.701
    assert 1.299 < factors.max() <= 1.3
    assert torch.corrcoef(factors.T).fill_diagonal_(0).abs().max() < 0.1


# Erasing


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 1000))
def test_one_rectangle_is_erased_inside_the_image(rows, columns, seed):
    for mask in draw_erase(4, (rows, columns), 1.0, generator(seed)):
        in_rows, in_columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, in_rows[:, None] & in_columns[None, :])
        for inside in (in_rows, in_columns):
            places = inside.nonzero().flatten()
            assert len(places) >= 1
            assert places[-1] - places[0] == len(places) - 1


def test_erased_areas_and_sides_have_their_bounds():
    masks = draw_erase(3000, (100, 100), 1.0, generator())
    area = masks.flatten(1).float().mean(dim=1)
    assert 0.018 < area.min() < 0.025
    assert 0.19 < area.max() < 0.21
    assert abs(area.mean() - 0.11) < 0.005
    ratio = masks.any(dim=2).sum(dim=1) / masks.any(dim=1).sum(dim=1)
    assert ratio.min() > 1 / 3.3
    assert ratio.max() < 3.3
    assert abs(ratio.log().mean()) < 0.05
    centres = masks.float().mean(dim=0)
    for edge in (centres[0], centres[-1], centres[:, 0], centres[:, -1]):
        assert 0 < edge.max() < centres[50, 50]  # all places can be hit, the middle most


def test_the_rate_is_the_part_that_is_erased():
    erased = draw_erase(4000, (12, 12), 0.25, generator()).flatten(1).any(dim=1)
    assert abs(erased.float().mean() - 0.25) < 0.03


def test_erased_places_are_black_in_every_channel_and_others_stay():
    images, mask = noise(2, (3, 4), 3), torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0, 1:, 2] = True
    erased = apply_erase(images, mask)
    assert erased.dtype == torch.uint8
    assert erased[0, :, 1:, 2].sum() == 0
    assert torch.equal(erased[:, :, 0], images[:, :, 0])
    assert torch.equal(erased[1], images[1])


# Mixing


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_weights_are_the_larger_side_of_a_beta(alpha):
    weight, partner = draw_mixup(20_000, alpha, generator())
    assert weight.min() >= 0.5
    assert weight.max() <= 1
    assert torch.equal(partner.sort().values, torch.arange(20_000))
    # The mean of |X - 1/2| for X ~ Beta(a, a) is 2^(-2a) / (a B(a, a)).
    beta = math.gamma(alpha) ** 2 / math.gamma(2 * alpha)
    assert abs(weight.mean() - (0.5 + 2 ** (-2 * alpha) / (alpha * beta))) < 0.005


def test_mixtures_are_written_down():
    images = torch.tensor([[0, 255], [255, 0], [51, 51]], dtype=torch.uint8).view(3, 1, 1, 2)
    labels, weight, partner = torch.tensor([0, 3, 3]), torch.tensor([0.75, 1.0, 0.5]), torch.tensor([1, 2, 0])
    mixed, targets = apply_mixup(images, labels, 4, weight, partner)
    assert mixed.dtype == targets.dtype == torch.float32
    torch.testing.assert_close(mixed.flatten(1), torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.1, 0.6]]))
    torch.testing.assert_close(targets, torch.tensor([[0.75, 0, 0, 0.25], [0, 0, 0, 1], [0.5, 0, 0, 0.5]]))


@given(num_images=st.integers(1, 30), alpha=st.floats(0.05, 10), seed=st.integers(0, 1000))
def test_targets_are_probabilities_in_which_the_own_label_leads(num_images, alpha, seed):
    images = torch.full((num_images, 1, 2, 2), 255, dtype=torch.uint8)
    labels = torch.arange(num_images) % 3
    mixed, targets = apply_mixup(images, labels, 3, *draw_mixup(num_images, alpha, generator(seed)))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(num_images))
    assert targets.gather(1, labels[:, None]).min() >= 0.5
    torch.testing.assert_close(mixed, torch.ones(mixed.shape))


def test_pasted_rectangles_have_areas_of_every_size():
    pasted, partner = draw_cutmix(4000, (40, 30), 1.0, generator())
    assert torch.equal(partner.sort().values, torch.arange(4000))
    share = pasted.flatten(1).float().mean(dim=1)
    quarters = torch.histc(share, bins=4, min=0, max=1) / 4000
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), rtol=0, atol=0.03)
    assert abs(share.mean() - 0.5) < 0.02
    for mask in pasted[:50]:
        assert torch.equal(mask, mask.any(dim=1)[:, None] & mask.any(dim=0)[None, :])
        assert abs(mask.any(dim=1).sum() / 40 - mask.any(dim=0).sum() / 30) < 0.04  # of the image's shape


def test_the_rate_is_the_part_that_is_pasted_into():
    pasted, _ = draw_cutmix(4000, (12, 12), 0.25, generator())
    assert abs(pasted.flatten(1).any(dim=1).float().mean() - 0.25) < 0.03


def test_pasted_images_are_written_down():
    images = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=torch.uint8).view(2, 1, 2, 2).expand(2, 3, 2, 2)
    pasted = torch.tensor([[[0, 0], [0, 1]], [[0, 0], [0, 0]]], dtype=torch.bool)
    mixed, targets = apply_cutmix(images, torch.tensor([2, 0]), 3, pasted, torch.tensor([1, 0]))
    assert mixed.dtype == torch.uint8
    assert mixed[0, 1].flatten().tolist() == [1, 2, 3, 8]
    assert torch.equal(mixed[1], images[1])
    torch.testing.assert_close(targets, torch.tensor([[0.25, 0, 0.75], [1, 0, 0]]))


def test_images_that_are_mixed_already_can_be_pasted_into():
    images, pasted = noise(2, (2, 2)), torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]]], dtype=torch.bool)
    shares = torch.tensor([[0.6, 0.4, 0], [0, 0, 1]])
    _, targets = apply_cutmix(images, shares, 3, pasted, torch.tensor([1, 0]))
    torch.testing.assert_close(targets, torch.tensor([[0.3, 0.2, 0.5], [0, 0, 1]]))


# A whole batch


def test_the_default_changes_nothing():
    images, labels = noise(5), torch.arange(5)
    augmented, targets = augment_batch(images, labels, 5, AugmentConfig(), generator())
    assert augmented is images
    assert targets is labels


@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
def test_a_batch_is_a_function_of_images_labels_and_seed(size):
    images, labels = noise(7, size, 3), torch.arange(7) % 4
    first = augment_batch(images, labels, 4, EVERYTHING, generator(2))
    again = augment_batch(images, labels, 4, EVERYTHING, generator(2))
    other = augment_batch(images, labels, 4, EVERYTHING, generator(3))
    assert first[0].shape == images.shape
    assert first[1].shape == (7, 4)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert first[0].min() >= 0
    assert first[0].max() <= 1 + 1e-5


@pytest.mark.parametrize(
    ("settings", "dtype", "target_shape"),
    [
        ({"flip_rate": 0.5, "erase_rate": 0.5}, torch.uint8, (6,)),
        ({"shift_pixels": 1}, torch.float32, (6,)),
        ({"color_jitter": 0.5}, torch.float32, (6,)),
        ({"mixup_alpha": 1.0}, torch.float32, (6, 3)),
        ({"cutmix_rate": 1.0}, torch.uint8, (6, 3)),
    ],
)
def test_each_setting_alone_changes_the_batch(settings, dtype, target_shape):
    images, labels = noise(6), torch.arange(6) % 3
    augmented, targets = augment_batch(images, labels, 3, AugmentConfig(**settings), generator())
    assert (augmented.dtype, targets.shape) == (dtype, target_shape)
    scaled = augmented.float() / (255 if dtype == torch.uint8 else 1)
    assert (scaled - images / 255).abs().max() > 0.1


def test_each_move_counts_as_one():
    assert not AugmentConfig(flip_rate=1, color_jitter=0.5, erase_rate=1, mixup_alpha=1, cutmix_rate=1).moves
    for key in ("shift_pixels", "rotate_degrees", "scale_rate", "shear_degrees"):
        assert AugmentConfig(**{key: 0.5}).moves


def test_mixup_and_cutmix_give_images_several_labels():
    assert not EVERYTHING.model_copy(update={"mixup_alpha": 0.0, "cutmix_rate": 0.0}).mixes
    assert AugmentConfig(mixup_alpha=0.1).mixes
    assert AugmentConfig(cutmix_rate=0.1).mixes


@pytest.mark.parametrize(
    "settings",
    [
        {"shift_pixels": -1},
        {"rotate_degrees": 181},
        {"scale_rate": 1.0},
        {"shear_degrees": 90},
        {"flip_rate": 1.1},
        {"erase_rate": -0.1},
        {"color_jitter": 1.0},
        {"mixup_alpha": -1},
        {"cutmix_rate": 1.1},
        {"rotate": 3},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        AugmentConfig(**settings)
