"""What becomes of colours: jitter, sharpness, blur, and tables of levels such as solarize and equalize.

Shapes: B images of the batch, C channels, R rows, W columns
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitrail.data.geometry import to_unit, uniform

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision rounds it


def to_levels(images: Tensor) -> Tensor:
    """uint8 or float in 0..1 -> uint8, rounded."""
    return images if images.dtype == torch.uint8 else (images * 255).round_().clamp_(0, 255).to(torch.uint8)


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


def apply_tables(images: Tensor, tables: Tensor) -> Tensor:
    """uint8 images with level v of each channel replaced by place v of its table (B, C, 256), uint8."""
    return tables.gather(2, images.flatten(2).long()).view(images.shape)


def posterize_tables(images: Tensor, bits: Tensor) -> Tensor:
    """Tables that keep the highest `bits` (B,) of each level, as torchvision's posterize."""
    level, step = _levels(images), (2 ** (8 - bits.to(images.device).round())).int().view(-1, 1, 1)
    return _tables_of(images, level // step * step)


def solarize_tables(images: Tensor, threshold: Tensor) -> Tensor:
    """Tables that invert levels from `threshold` (B,) in 0..1 on, as torchvision's solarize."""
    level = _levels(images)
    return _tables_of(
        images, torch.where(level >= 255 * threshold.to(images.device).view(-1, 1, 1), 255 - level, level)
    )


def autocontrast_tables(images: Tensor) -> Tensor:
    """Tables that stretch each channel to 0..255, as torchvision's autocontrast; a channel of one level stays."""
    pixels, level = images.flatten(2), _levels(images)
    low, high = (value[:, :, None].int() for value in (pixels.amin(dim=2), pixels.amax(dim=2)))
    stretched = ((level - low) * 255).div((high - low).clamp(min=1), rounding_mode="floor").clamp(0, 255)
    return _tables_of(images, torch.where(high > low, stretched, level))


def equalize_tables(images: Tensor) -> Tensor:
    """Tables that spread each channel's levels evenly, as Pillow's and torchvision's equalize."""
    num_images, channels = images.shape[:2]
    pixels = images.flatten(2).flatten(0, 1)
    first = 256 * torch.arange(len(pixels), device=images.device)[:, None]
    counts = torch.bincount((pixels + first).flatten(), minlength=256 * len(pixels)).view(num_images, channels, 256)
    below = counts.cumsum(dim=2) - counts
    last = counts.gather(2, images.flatten(2).amax(dim=2, keepdim=True).long())
    step = (pixels.shape[1] - last).div(255, rounding_mode="floor")  # pixels that make up one level, but for the last
    spread = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    return _tables_of(images, torch.where(step > 0, spread, _levels(images)))


def _levels(images: Tensor) -> Tensor:
    """(1, 1, 256): every level in turn."""
    return torch.arange(256, dtype=torch.int32, device=images.device).view(1, 1, 256)


def _tables_of(images: Tensor, tables: Tensor) -> Tensor:
    """The tables, which may be one for all channels, as uint8 (B, C, 256)."""
    return tables.to(torch.uint8).expand(*images.shape[:2], 256)
