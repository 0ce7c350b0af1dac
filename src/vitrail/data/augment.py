"""Augmentation on batches: each is a pair, one function that draws parameters and one that applies them.

Parameters are drawn on the CPU for the whole global batch from a generator seeded by (seed, epoch, step), then the
slice of this process is applied on its device; so they depend on nothing but those numbers.

Shapes: B images of the batch, C channels, R rows, W columns
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision rounds it

Rate = Annotated[float, Field(ge=0.0, le=1.0)]


class AugmentConfig(BaseModel):
    """What is changed about training images; the defaults change nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    shift_pixels: Annotated[float, Field(ge=0)] = 0.0
    """largest shift along each axis, in pixels"""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """largest rotation either way, in degrees"""
    scale_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """largest change of size: 0.1 draws factors between 0.9 and 1.1"""
    shear_degrees: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """largest shear either way, in degrees"""
    flip_rate: Rate = 0.0
    """part of the images mirrored left to right; leave at 0 for digits and letters"""
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """largest change of brightness, contrast and saturation: 0.3 draws factors between 0.7 and 1.3"""
    erase_rate: Rate = 0.0
    """part of the images with one rectangle erased (Zhong et al. 2020)"""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """mixes pairs of images and labels, weights from Beta(alpha, alpha) (Zhang et al. 2018); 0: off"""
    cutmix_rate: Rate = 0.0
    """part of the images in which a rectangle of another image is pasted, labels by area (Yun et al. 2019)"""

    @property
    def moves(self) -> bool:
        """Whether images are resampled at all."""
        return any((self.shift_pixels, self.rotate_degrees, self.scale_rate, self.shear_degrees))

    @property
    def mixes(self) -> bool:
        """Whether images have more than one label."""
        return self.mixup_alpha > 0 or self.cutmix_rate > 0


def seed_of(*keys: int) -> int:
    """A 63-bit seed that is a function of `keys` alone, such as (seed, epoch, step)."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)


def augment_batch(
    images: Tensor, labels: Tensor, num_classes: int, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Images and targets to train on: (B, C, R, W) uint8, (B,) int64 -> images uint8 or float in 0..1, targets.

    Targets are the labels (B,), or (B, num_classes) probabilities where images are mixed. In this order: moved,
    mirrored, recoloured, erased, mixed, pasted into.
    """
    num_images, _, rows, columns = images.shape
    if config.moves:
        images = apply_affine(images, draw_affine(num_images, (rows, columns), config, generator))
    if config.flip_rate:
        images = apply_flip(images, draw_flip(num_images, config.flip_rate, generator))
    if config.color_jitter:
        images = apply_color_jitter(images, draw_color_jitter(num_images, config.color_jitter, generator))
    if config.erase_rate:
        images = apply_erase(images, draw_erase(num_images, (rows, columns), config.erase_rate, generator))
    if config.mixup_alpha:
        mixture = draw_mixup(num_images, config.mixup_alpha, generator)
        images, labels = apply_mixup(images, labels, num_classes, *mixture)
    if config.cutmix_rate:
        pasted = draw_cutmix(num_images, (rows, columns), config.cutmix_rate, generator)
        images, labels = apply_cutmix(images, labels, num_classes, *pasted)
    return images, labels


def _uniform(shape: tuple[int, ...], limit: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * limit


def draw_affine(
    num_images: int, image_size: tuple[int, int], config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """(B, 2, 3) maps from places in the result to places in the image, in the -1..1 coordinates of grid_sample."""
    rows, columns = image_size
    shift = _uniform((num_images, 2), 2 * config.shift_pixels, generator) / torch.tensor([columns, rows])
    angle = _uniform((num_images,), math.radians(config.rotate_degrees), generator)
    scale = 1 + _uniform((num_images,), config.scale_rate, generator)
    shear = torch.tan(_uniform((num_images,), math.radians(config.shear_degrees), generator))
    cos, sin = angle.cos() / scale, angle.sin() / scale
    aspect = rows / columns
    first = torch.stack([cos, (shear * cos - sin) * aspect, shift[:, 0]], dim=1)
    second = torch.stack([sin / aspect, shear * sin + cos, shift[:, 1]], dim=1)
    return torch.stack([first, second], dim=1)


def apply_affine(images: Tensor, theta: Tensor) -> Tensor:
    """Images moved by `theta` (B, 2, 3), bilinear, black outside: uint8 or float -> float in 0..1."""
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    grid = F.affine_grid(theta.to(scaled.device), list(scaled.shape), align_corners=False)
    return F.grid_sample(scaled, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def draw_flip(num_images: int, rate: float, generator: torch.Generator) -> Tensor:
    """(B,) bool: which images are mirrored."""
    return torch.rand(num_images, generator=generator) < rate


def apply_flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Images with those marked in `flipped` mirrored left to right."""
    return torch.where(flipped.to(images.device).view(-1, 1, 1, 1), images.flip(-1), images)


def draw_color_jitter(num_images: int, limit: float, generator: torch.Generator) -> Tensor:
    """(B, 3) factors of brightness, contrast and saturation."""
    return 1 + _uniform((num_images, 3), limit, generator)


def apply_color_jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Images with their colours changed by `factors` (B, 3): uint8 or float -> float in 0..1.

    As torchvision's adjust_brightness, adjust_contrast and adjust_saturation one after the other, but that values are
    clipped once, at the end: all three are one linear map of the colours, a third of the cost of three.
    """
    num_images, channels = images.shape[:2]
    pixels = (images.float() / 255 if images.dtype == torch.uint8 else images).flatten(2)
    brightness, contrast, saturation = factors.to(images.device).view(num_images, 3, 1, 1).unbind(dim=1)
    grey = pixels.new_tensor(_LUMA if channels == 3 else (1 / channels,) * channels).expand(channels, -1)
    mixing = brightness * contrast * (saturation * torch.eye(channels, device=images.device) + (1 - saturation) * grey)
    mean_grey = grey[:1] @ pixels.mean(dim=2, keepdim=True)  # contrast is about the mean grey of each image
    changed = torch.baddbmm(brightness * (1 - contrast) * mean_grey, mixing, pixels)
    return changed.clamp_(0, 1).view(images.shape)


def draw_erase(num_images: int, image_size: tuple[int, int], rate: float, generator: torch.Generator) -> Tensor:
    """(B, R, W) bool: the rectangle of each image that is erased, 2 to 20 % of its area, sides 1:3 to 3:1."""
    rows, columns = image_size
    area = rows * columns * (0.02 + 0.18 * torch.rand(num_images, generator=generator))
    ratio = torch.exp(_uniform((num_images,), math.log(3), generator))
    height = (area * ratio).sqrt().round().clamp(1, rows)
    width = (area / ratio).sqrt().round().clamp(1, columns)
    rectangles = _draw_rectangles(torch.stack([height, width], dim=1), image_size, generator)
    chosen = torch.rand(num_images, generator=generator) < rate
    return rectangles & chosen[:, None, None]


def _draw_rectangles(size: Tensor, image_size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(B, R, W) bool: rectangles of `size` (B, 2), rows and columns, anywhere inside the image."""
    rows, columns = image_size
    height, width = size.unbind(dim=1)
    top = (torch.rand(len(size), generator=generator) * (rows - height + 1)).floor()
    left = (torch.rand(len(size), generator=generator) * (columns - width + 1)).floor()
    row, column = torch.arange(rows), torch.arange(columns)
    in_rows = (row >= top[:, None]) & (row < (top + height)[:, None])
    in_columns = (column >= left[:, None]) & (column < (left + width)[:, None])
    return in_rows[:, :, None] & in_columns[:, None, :]


def apply_erase(images: Tensor, erased: Tensor) -> Tensor:
    """Images with the places marked in `erased` (B, R, W) black."""
    return images.masked_fill(erased.to(images.device)[:, None], 0)


def draw_mixup(num_images: int, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B,) weights in 0.5..1 and (B,) the image that each is mixed with."""
    # torch's Beta takes no generator; NumPy's is seeded from ours.
    numbers = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    weight = torch.from_numpy(numbers.beta(alpha, alpha, num_images)).float()
    partner = torch.randperm(num_images, generator=generator)
    return torch.maximum(weight, 1 - weight), partner


def apply_mixup(
    images: Tensor, labels: Tensor, num_classes: int, weight: Tensor, partner: Tensor
) -> tuple[Tensor, Tensor]:
    """Mixed images, float in 0..1, and (B, num_classes) target probabilities."""
    weight, partner = weight.to(images.device), partner.to(images.device)
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    share = weight.view(-1, 1, 1, 1)
    targets = F.one_hot(labels, num_classes).float()
    mixed_targets = weight[:, None] * targets + (1 - weight[:, None]) * targets[partner]
    return share * scaled + (1 - share) * scaled[partner], mixed_targets


def draw_cutmix(
    num_images: int, image_size: tuple[int, int], rate: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(B, R, W) bool: the rectangle of each image that is pasted, of the image's shape, and (B,) the image it is from.

    All areas are equally likely, as with Yun et al.'s alpha of 1; rectangles lie inside the image.
    """
    chosen = torch.rand(num_images, generator=generator) < rate
    side = torch.rand(num_images, generator=generator).sqrt() * chosen
    size = (side[:, None] * torch.tensor(image_size)).round()
    pasted = _draw_rectangles(size, image_size, generator)
    return pasted, torch.randperm(num_images, generator=generator)


def apply_cutmix(
    images: Tensor, labels: Tensor, num_classes: int, pasted: Tensor, partner: Tensor
) -> tuple[Tensor, Tensor]:
    """Images with the places marked in `pasted` from their partners, and (B, num_classes) target probabilities.

    Labels are (B,), or (B, num_classes) where images are mixed already.
    """
    pasted, partner = pasted.to(images.device), partner.to(images.device)
    targets = F.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels
    share = pasted.flatten(1).float().mean(dim=1)[:, None]
    return torch.where(pasted[:, None], images[partner], images), (1 - share) * targets + share * targets[partner]
