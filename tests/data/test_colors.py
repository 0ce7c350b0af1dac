import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as torchvision_functional

from vitrail.data.colors import (
    apply_autocontrast,
    apply_blur,
    apply_color_jitter,
    apply_equalize,
    apply_posterize,
    apply_sharpness,
    apply_solarize,
    draw_color_jitter,
    to_levels,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(num_images: int = 6, size: tuple[int, int] = (8, 8), channels: int = 1) -> Tensor:
    return torch.randint(0, 256, (num_images, channels, *size), generator=generator(1), dtype=torch.uint8)


# Jitter


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


def test_images_of_floats_become_levels():
    assert to_levels(torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0, 1.000001])).tolist() == [0, 0, 1, 255, 255]
    images = noise(2)
    assert to_levels(images) is images
    assert torch.equal(to_levels(images.float() / 255), images)


# Sharpness and blur


@pytest.mark.parametrize("size", [(9, 7), (3, 3), (2, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_sharpened_as_by_torchvision(size, channels):
    images = noise(4, size, channels)
    factors = torch.tensor([0.1, 1.0, 1.9, 0.0])
    for image, factor, ours in zip(images / 255, factors, apply_sharpness(images, factors), strict=True):
        theirs = torchvision_functional.adjust_sharpness(image, float(factor))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(20, 13), (7, 40)])
def test_images_are_blurred_as_by_torchvision(size):
    images = noise(3, size, 3)
    sigma = torch.tensor([0.1, 0.9, 2.0])
    blurred = apply_blur(images, sigma)
    for image, deviation, ours in zip(images / 255, sigma, blurred, strict=True):
        theirs = torchvision_functional.gaussian_blur(image, [13, 13], [float(deviation)] * 2)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)  # its kernel ends after 6 pixels, three deviations
    assert blurred[2].std() < blurred[1].std() < blurred[0].std()


def test_blurring_the_smallest_images_keeps_their_mean_of_one_value():
    for side in (1, 2, 3):
        torch.testing.assert_close(
            apply_blur(torch.full((1, 1, side, side), 0.5), torch.tensor([2.0])).mean(), torch.tensor(0.5)
        )


# Levels


def photographs() -> Tensor:
    """Uneven levels, one channel of a single level, and an image of few levels."""
    images = (noise(5, (20, 20), 3).float() / 255) ** 2 * 200 + 20
    images[3, 1] = 77
    images[4] = images[4].round() // 60 * 60
    return images.to(torch.uint8)


LEVELS = {
    "posterize": (
        lambda images: apply_posterize(images, torch.arange(4.0, 9)),
        lambda image, index: torchvision_functional.posterize(image, 4 + index),
    ),
    "solarize": (
        lambda images: apply_solarize(images, torch.arange(5) / 4),
        lambda image, index: torchvision_functional.solarize(image, 255 * index / 4),
    ),
    "autocontrast": (apply_autocontrast, lambda image, _: torchvision_functional.autocontrast(image)),
    "equalize": (apply_equalize, lambda image, _: torchvision_functional.equalize(image)),
}


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_levels_are_changed_as_by_torchvision(name, channels):
    ours, theirs = LEVELS[name]
    images = photographs()[:, :channels]
    changed = ours(images)
    expected = torch.stack([theirs(image, index) for index, image in enumerate(images)])
    assert changed.dtype == torch.uint8
    assert (changed.int() - expected.int()).abs().max() <= (name == "autocontrast")  # whose fractions it cuts off
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("bits", range(9))
def test_every_number_of_bits_can_be_kept(bits):
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    changed = apply_posterize(images, torch.tensor([float(bits)]))
    assert torch.equal(changed, torchvision_functional.posterize(images, bits))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 128 / 255, 0.7, 254.5 / 255, 1.0])
def test_levels_are_inverted_from_the_threshold_on(threshold):
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    changed = apply_solarize(images, torch.tensor([threshold]))
    assert torch.equal(changed, torchvision_functional.solarize(images, 255 * threshold))


def test_images_are_equalized_as_by_pillow():
    images = photographs()
    for image, ours in zip(images, apply_equalize(images), strict=True):
        theirs = np.asarray(ImageOps.equalize(Image.fromarray(image.permute(1, 2, 0).numpy())))
        np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), theirs)


def test_images_of_few_pixels_are_not_equalized():
    images = noise(3, (5, 5), 3)
    assert torch.equal(apply_equalize(images), images)
