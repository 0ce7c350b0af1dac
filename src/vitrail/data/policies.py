"""Policies: some operations out of many for each image, drawn anew: RandAugment, TrivialAugment, 3-Augment.

A batch is sorted by operation, and each kind of operation applied to its images at once, whatever their strengths.

Shapes: B images of the batch, C channels, R rows, W columns, K operations one after the other
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from vitrail.data.colors import (
    apply_autocontrast,
    apply_blur,
    apply_color_jitter,
    apply_equalize,
    apply_posterize,
    apply_sharpness,
    apply_solarize,
    to_levels,
)
from vitrail.data.geometry import apply_affine

Policy = Literal["none", "randaugment", "trivialaugment", "3augment"]
_Apply = Callable[[Tensor, Tensor, Tensor], Tensor]  # images, operations, strengths of one kind

HIGHEST = 30  # magnitudes are 0..30, as with Cubuk et al. and torchvision

# By kind: those of a kind are applied in one go, so they stand together.
OPERATIONS = (
    "identity",
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
    *("brightness", "contrast", "color", "greyscale"),
    "sharpness",
    "blur",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
_INDEX = {name: index for index, name in enumerate(OPERATIONS)}
_PUBLISHED = tuple(name for name in OPERATIONS if name not in ("greyscale", "blur"))  # the 14 of RandAugment
_SIGNED = torch.tensor([name.startswith(("shear", "translate", "rotate")) for name in OPERATIONS])
_FACTORS = torch.tensor([name in ("brightness", "contrast", "color", "sharpness") for name in OPERATIONS])


def draw_policy(
    num_images: int,
    image_size: tuple[int, int],
    policy: Policy,
    magnitude: float,
    num_ops: int,
    generator: torch.Generator,
) -> Tensor:
    """(B, K, 2): the place in OPERATIONS of what is done to each image, and how strongly, in the operation's own unit.

    The unit is pixels, degrees, a slope (shear), a factor, bits, a level in 0..1 (solarize) or sigma in pixels (blur).
    `magnitude` and `num_ops` are RandAugment's; the others draw one operation, its strength anew for each image.
    """
    if policy == "3augment":
        chosen = torch.randint(3, (num_images, 1), generator=generator)
        operation = torch.tensor([_INDEX[name] for name in ("greyscale", "solarize", "blur")])[chosen]
        sigma = 0.1 + 1.9 * torch.rand(num_images, 1, generator=generator)
        fixed = torch.tensor([0.0, 128 / 255, 0.0])[chosen]
        return torch.stack([operation.float(), torch.where(chosen == 2, sigma, fixed)], dim=2)
    shape = (num_images, num_ops if policy == "randaugment" else 1)
    places = torch.tensor([_INDEX[name] for name in _PUBLISHED])
    operation = places[torch.randint(len(places), shape, generator=generator)]
    sign = torch.randint(2, shape, generator=generator) * 2 - 1
    if policy == "randaugment":
        level, limits, lost_bits = torch.full(shape, magnitude), _randaugment_limits(image_size), 4
    else:
        level = torch.randint(HIGHEST + 1, shape, generator=generator).float()
        limits, lost_bits = _TRIVIAL_LIMITS, 6
    part = level / HIGHEST
    strength = part * torch.tensor([limits.get(name, 0.0) for name in OPERATIONS])[operation]
    strength = torch.where((_SIGNED | _FACTORS)[operation], strength * sign, strength) + _FACTORS[operation]
    strength = torch.where(operation == _INDEX["posterize"], 8 - (part * lost_bits).round(), strength)
    strength = torch.where(operation == _INDEX["solarize"], 1 - part, strength)
    return torch.stack([operation.float(), strength], dim=2)


def _randaugment_limits(image_size: tuple[int, int]) -> dict[str, float]:
    """The strengths of magnitude 30; translations are parts of the image."""
    rows, columns = image_size
    return {
        **dict.fromkeys(("shear_x", "shear_y"), 0.3),
        **dict.fromkeys(("brightness", "contrast", "color", "sharpness"), 0.9),
        "translate_x": columns * 150 / 331,
        "translate_y": rows * 150 / 331,
        "rotate": 30.0,
    }


# The wide space of Müller and Hutter 2021.
_TRIVIAL_LIMITS: dict[str, float] = {
    **dict.fromkeys(("shear_x", "shear_y", "brightness", "contrast", "color", "sharpness"), 0.99),
    **dict.fromkeys(("translate_x", "translate_y"), 32.0),
    "rotate": 135.0,
}


def apply_policy(images: Tensor, drawn: Tensor, num_colors: int | None = None) -> Tensor:
    """Images changed by what `draw_policy` gave, (B, K, 2): uint8 or float in 0..1 -> uint8.

    Moves take every channel along; all else changes the first `num_colors` alone. No image is looked at by Python.
    """
    levels = to_levels(images)
    for step in drawn.unbind(dim=1):
        order = step[:, 0].argsort(stable=True)
        operation, strength = step[order, 0].long(), step[order, 1]
        counts = torch.bincount(operation, minlength=len(OPERATIONS)).tolist()
        order = order.to(levels.device)
        changed = levels.index_select(0, order)  # ten times faster than levels[order]
        end = 0
        for names, apply in _KINDS:
            start, end = end, end + sum(counts[_INDEX[name]] for name in names)
            if apply is None or start == end:
                continue
            part = changed[start:end] if names == _MOVES else changed[start:end, :num_colors]
            part.copy_(to_levels(apply(part, operation[start:end], strength[start:end])))
        levels = changed.index_select(0, order.argsort())
    return levels


def _move(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Sheared from the upper left corner, as AutoAugment does, shifted, or turned about the middle."""
    rows, columns = images.shape[2:]
    shear_x, shear_y, right, down, degrees = (torch.where(operation == _INDEX[name], strength, 0.0) for name in _MOVES)
    cos, sin = torch.cos(degrees * (math.pi / 180)), torch.sin(degrees * (math.pi / 180))
    along, across = (shear_x - sin) * rows / columns, (shear_y + sin) * columns / rows
    first = torch.stack([cos, along, shear_x * rows / columns - 2 * right / columns], dim=1)
    second = torch.stack([across, cos, shear_y * columns / rows - 2 * down / rows], dim=1)
    moved = apply_affine(
        images.float(), torch.stack([first, second], dim=1)
    )  # of levels: to 0..1 and back takes longer
    return moved.add_(0.5).to(torch.uint8)


def _recolor(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Factors of brightness, contrast and saturation of which two are 1; grey is a saturation of 0."""
    kinds = ((_INDEX["brightness"],) * 2, (_INDEX["contrast"],) * 2, (_INDEX["color"], _INDEX["greyscale"]))
    factors = [torch.where((operation >= low) & (operation <= high), strength, 1.0) for low, high in kinds]
    return apply_color_jitter(images, torch.stack(factors, dim=1))


def _alone(apply: Callable[[Tensor, Tensor], Tensor]) -> _Apply:
    """An operation that is the only one of its kind."""
    return lambda images, operation, strength: apply(images, strength)


def _without_strength(apply: Callable[[Tensor], Tensor]) -> _Apply:
    return lambda images, operation, strength: apply(images)


_MOVES = OPERATIONS[1:6]
_KINDS: tuple[tuple[tuple[str, ...], _Apply | None], ...] = (
    (OPERATIONS[:1], None),
    (_MOVES, _move),
    (OPERATIONS[6:10], _recolor),
    (("sharpness",), _alone(apply_sharpness)),
    (("blur",), _alone(apply_blur)),
    (("posterize",), _alone(apply_posterize)),
    (("solarize",), _alone(apply_solarize)),
    (("autocontrast",), _without_strength(apply_autocontrast)),
    (("equalize",), _without_strength(apply_equalize)),
)
