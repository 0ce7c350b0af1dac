"""What becomes of colours: jitter, sharpness, blur, and changes of levels such as solarize and equalize.

Shapes: B images of the batch, C channels, R rows, W columns
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.data.geometry import to_unit, uniform

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision rounds it


def to_levels(images: Tensor) -> Tensor:
    """uint8 or float in 0..1 -> uint8, rounded."""
    return (
        images if images.dtype == torch.uint8 else torch.add(images.new_tensor(0.5), images, alpha=255).to(torch.uint8)
    )


def draw_color_jitter(num_images: int, limit: float, generator: torch.Generator) -> Tensor:
    """(B, 3) factors of brightness, contrast and saturation."""
    return 1 + uniform((num_images, 3), limit, generator)


def apply_color_jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Images with their colours changed by `factors` (B, 3): uint8 or float -> float in 0..1.

    As torchvision's adjust_brightness, adjust_contrast and adjust_saturation one after the other, but that values are
    clipped once, at the end: all three are one linear map of the colours, a third of the cost of three.
    """
    num_images, channels = images.shape[:2]
    pixels = to_unit(images).flatten(2)
    brightness, contrast, saturation = factors.to(images.device).view(num_images, 3, 1, 1).unbind(dim=1)
    grey = pixels.new_tensor(_LUMA if channels == 3 else (1 / channels,) * channels).expand(channels, -1)
    mixing = brightness * contrast * (saturation * torch.eye(channels, device=images.device) + (1 - saturation) * grey)
    mean_grey = grey[:1] @ pixels.mean(dim=2, keepdim=True)  # contrast is about the mean grey of each image
    changed = torch.baddbmm(brightness * (1 - contrast) * mean_grey, mixing, pixels)
    return changed.clamp_(0, 1).view(images.shape)


def apply_sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Images sharper by `factors` (B,), as torchvision's adjust_sharpness: 1 as they are, 0 smoothed; float in 0..1."""
    pixels = to_unit(images)
    if min(pixels.shape[2:]) < 3:
        return pixels
    inner = pixels[:, :, 1:-1, 1:-1]  # the outermost rows and columns stay
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    around = rows[:, :, :, :-2] + rows[:, :, :, 1:-1] + rows[:, :, :, 2:]
    smooth = (around + 4 * inner) / 13
    sharpened = pixels.clone()
    sharpened[:, :, 1:-1, 1:-1] = smooth + factors.to(pixels.device).view(-1, 1, 1, 1) * (inner - smooth)
    return sharpened.clamp_(0, 1)


def apply_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Images blurred by Gaussians of so many pixels (B,), mirrored at their edges; float in 0..1.

    By a matrix for the rows and one for the columns: faster than convolving each image with a kernel of its own.
    """
    pixels = to_unit(images)
    in_rows, in_columns = (_blurring(sigma.to(pixels.device), side)[:, None] for side in pixels.shape[2:])
    return (in_rows @ pixels @ in_columns.mT).clamp_(0, 1)


def _blurring(sigma: Tensor, side: int) -> Tensor:
    """(B, side, side) matrices that blur along one axis; what lies beyond an edge is what lies before it, mirrored."""
    place = torch.arange(side, device=sigma.device, dtype=torch.float32)
    before, beyond = place[1:], place[:-1]
    weight = _gaussian(place[:, None] - place, sigma)
    weight[:, :, 1:] += _gaussian(place[:, None] + before, sigma)
    weight[:, :, :-1] += _gaussian(2 * (side - 1) - beyond - place[:, None], sigma)
    return weight / weight.sum(dim=2, keepdim=True)


def _gaussian(distance: Tensor, sigma: Tensor) -> Tensor:
    """Distances (N, M) -> (B, N, M).

    Far tails are all the same tiny number: denormal ones make products of matrices thirty times slower.
    """
    return torch.exp(-0.5 * (distance / sigma[:, None, None]).clamp(-6, 6) ** 2)


def apply_posterize(images: Tensor, bits: Tensor) -> Tensor:
    """uint8 images with the highest `bits` (B,) of each level kept, as torchvision's posterize."""
    kept = (256 - 2 ** (8 - bits.round())).to(torch.uint8)
    return images & kept.to(images.device).view(-1, 1, 1, 1)


def apply_solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """uint8 images with levels from `threshold` (B,) in 0..1 on inverted, as torchvision's solarize."""
    first = (255 * threshold).ceil().to(torch.uint8)
    inverted = images >= first.to(images.device).view(-1, 1, 1, 1)
    return images ^ inverted.to(torch.uint8).mul_(255)  # six times faster than torch.where


def apply_autocontrast(images: Tensor) -> Tensor:
    """uint8 images with each channel stretched to 0..255, as torchvision's autocontrast; one of one level stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    width = (high - low).float()
    stretched = (images - low) * (255 / width.clamp(min=1)) + 0.5
    return torch.where(high > low, stretched.to(torch.uint8), images)


def apply_equalize(images: Tensor) -> Tensor:
    """uint8 images with the levels of each channel spread evenly, as Pillow's and torchvision's equalize."""
    level = images.flatten(2).long()
    num_images, channels, num_pixels = level.shape
    first = 256 * torch.arange(num_images * channels, device=images.device).view(num_images, channels, 1)
    counts = torch.bincount((level + first).flatten(), minlength=256 * num_images * channels)
    counts = counts.view(num_images, channels, 256)
    step = (num_pixels - counts.gather(2, level.amax(dim=2, keepdim=True))).div(255, rounding_mode="floor")
    below = counts.cumsum(dim=2) - counts
    spread = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    spread = torch.where(step > 0, spread, torch.arange(256, device=images.device))  # too few pixels stay as they are
    return spread.to(torch.uint8).gather(2, level).view(images.shape)
