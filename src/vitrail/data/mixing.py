"""What is covered by something else: erased rectangles, mixup, CutMix.

Shapes: B images of the batch, C channels, R rows, W columns. Channels beyond `num_colors` tell what is padding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.data.geometry import to_unit, uniform


def draw_erase(num_images: int, image_size: tuple[int, int], rate: float, generator: torch.Generator) -> Tensor:
    """(B, R, W) bool: the rectangle of each image that is erased, 2 to 20 % of its area, sides 1:3 to 3:1."""
    rows, columns = image_size
    area = rows * columns * (0.02 + 0.18 * torch.rand(num_images, generator=generator))
    ratio = torch.exp(uniform((num_images,), math.log(3), generator))
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


def apply_erase(images: Tensor, erased: Tensor, num_colors: int | None = None) -> Tensor:
    """Images with the places marked in `erased` (B, R, W) black."""
    return apply_erase_(images.clone(), erased, num_colors)


def apply_erase_(images: Tensor, erased: Tensor, num_colors: int | None = None) -> Tensor:
    """As `apply_erase`, in place: half of the time."""
    images[:, :num_colors].masked_fill_(erased.to(images.device)[:, None], 0)
    return images


def draw_mixup(num_images: int, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B,) weights in 0.5..1 and (B,) the image that each is mixed with."""
    # torch's Beta takes no generator; NumPy's is seeded from ours.
    numbers = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    weight = torch.from_numpy(numbers.beta(alpha, alpha, num_images)).float()
    partner = torch.randperm(num_images, generator=generator)
    return torch.maximum(weight, 1 - weight), partner


def apply_mixup(
    images: Tensor, labels: Tensor, num_classes: int, weight: Tensor, partner: Tensor, num_colors: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mixed images, float in 0..1, and (B, num_classes) targets. What is padding in neither image is padding."""
    weight, partner = weight.to(images.device), partner.to(images.device)
    scaled = to_unit(images)
    share = weight.view(-1, 1, 1, 1)
    mixed = share * scaled + (1 - share) * scaled[partner]
    if num_colors is not None and num_colors < images.shape[1]:
        mixed[:, num_colors:] = torch.maximum(scaled[:, num_colors:], scaled[partner, num_colors:])
    targets = _targets(labels, num_classes)
    return mixed, weight[:, None] * targets + (1 - weight[:, None]) * targets[partner]


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
    """Images with the places marked in `pasted` from their partners, all channels, and (B, num_classes) targets."""
    pasted, partner = pasted.to(images.device), partner.to(images.device)
    targets = _targets(labels, num_classes)
    share = pasted.flatten(1).float().mean(dim=1)[:, None]
    return torch.where(pasted[:, None], images[partner], images), (1 - share) * targets + share * targets[partner]


def _targets(labels: Tensor, num_classes: int) -> Tensor:
    """(B, num_classes) float, of labels (B,), or of (B, num_classes): several labels an image, or mixed already."""
    return F.one_hot(labels, num_classes).float() if labels.ndim == 1 else labels.float()
