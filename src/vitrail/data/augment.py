"""Augmentation on batches: each is a pair, one function that draws parameters and one that applies them.

Parameters are drawn on the CPU for the whole global batch from a generator seeded by (seed, epoch, step), then the
slice of this process is applied on its device; so they depend on nothing but those numbers. The pairs lie in
geometry.py, colors.py, policies.py and mixing.py.

Shapes: B images of the batch, C channels, R rows, W columns
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from vitrail.data.colors import apply_color_jitter, draw_color_jitter
from vitrail.data.geometry import apply_affine, apply_crop, apply_flip_, draw_affine, draw_crop, draw_flip, to_unit
from vitrail.data.mixing import apply_cutmix, apply_erase_, apply_mixup, draw_cutmix, draw_erase, draw_mixup
from vitrail.data.policies import HIGHEST, Policy, apply_policy, draw_policy

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]

_DIGITS = frozenset({"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"})


class AugmentConfig(BaseModel):
    """What is changed about training images; the defaults change nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    crop_scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1)]] | None = None
    """random resized crop: least and largest part of the image's area, as 0.08,1 (Szegedy et al. 2015); none: off"""
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """least and largest width by height of a random resized crop"""
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
    policy: Policy = "none"
    """operations drawn for each image: randaugment, trivialaugment or 3augment (DeiT III, with colour jitter of 0.3)"""
    policy_magnitude: Annotated[float, Field(ge=0, le=HIGHEST)] = 9.0
    """strength of randaugment, 0 to 30"""
    policy_num_ops: Annotated[int, Field(ge=1)] = 2
    """operations that randaugment does to each image"""
    color_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """largest change of brightness, contrast and saturation: 0.3 draws factors between 0.7 and 1.3"""
    erase_rate: Rate = 0.0
    """part of the images with one rectangle erased (Zhong et al. 2020)"""
    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    """mixes pairs of images and labels, weights from Beta(alpha, alpha) (Zhang et al. 2018); 0: off"""
    cutmix_rate: Rate = 0.0
    """part of the images in which a rectangle of another image is pasted, labels by area (Yun et al. 2019)"""
    repeats: Annotated[int, Field(ge=1)] = 1
    """times that an image stands in its batch, each changed anew; an epoch sees one image in so many (Hoffer 2020)"""

    @model_validator(mode="after")
    def _check(self) -> AugmentConfig:
        for name, pair in {"crop_scale": self.crop_scale, "crop_ratio": self.crop_ratio}.items():
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name}={pair[0]:g},{pair[1]:g} goes down; write the smaller first")
        return self

    @property
    def moves(self) -> bool:
        """Whether images are moved by affine maps."""
        return any((self.shift_pixels, self.rotate_degrees, self.scale_rate, self.shear_degrees))

    @property
    def mixes(self) -> bool:
        """Whether images have more than one label."""
        return self.mixup_alpha > 0 or self.cutmix_rate > 0

    @property
    def jitter(self) -> float:
        """The limit of the colour jitter; 3-Augment has that of DeiT III where none is given."""
        return self.color_jitter or (0.3 if self.policy == "3augment" else 0.0)


def seed_of(*keys: int) -> int:
    """A 63-bit seed that is a function of `keys` alone, such as (seed, epoch, step)."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)


def repeated(order: np.ndarray, repeats: int) -> np.ndarray:
    """The order of an epoch (N,) in which each image comes `repeats` times in a row, cut off after N.

    Batches of a multiple of `repeats` then hold whole groups. An epoch stays as long, and sees its order's first
    N / repeats images: repeated augmentation as in DeiT (Hoffer et al. 2020, Berman et al. 2019).
    """
    return order[: -(-len(order) // repeats)].repeat(repeats)[: len(order)]


def flips_hurt(classes: Sequence[str]) -> bool:
    """Whether all classes are digits or letters, by their names: mirrored, these are others, or none."""
    names = [name.strip().lower() for name in classes]
    return all((len(name) == 1 and name.isalnum()) or name in _DIGITS for name in names)


def augment_batch(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    config: AugmentConfig,
    generator: torch.Generator,
    image_size: tuple[int, int] | None = None,
    num_colors: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Images and targets to train on: (B, C, R, W) uint8, labels -> images uint8 or float in 0..1, targets.

    Labels are (B,) int64, or (B, num_classes) where an image may have several. Targets are the labels, or
    (B, num_classes) float where images are mixed. In this order: cropped, moved, mirrored, changed by the policy,
    recoloured, erased, mixed, pasted into. Crops have `image_size` (rows, columns), which may be less than R and W;
    none: as large as the images. The channel after `num_colors`, if there is one, is full inside the image and 0 in
    its padding, and stays so: it moves along, and its colours do not change.
    """
    given, num_images = images, len(images)
    num_colors = images.shape[1] if num_colors is None else num_colors
    if config.crop_scale is not None:
        images = _cropped(images, config.crop_scale, config.crop_ratio, generator, image_size, num_colors)
    rows, columns = images.shape[2:]
    if config.moves:
        limits = config.model_dump(include={"shift_pixels", "rotate_degrees", "scale_rate", "shear_degrees"})
        images = apply_affine(images, draw_affine(num_images, (rows, columns), generator, **limits))
    if config.flip_rate:
        images = apply_flip_(_own(images, given), draw_flip(num_images, config.flip_rate, generator))
    if config.policy != "none":
        strength = config.policy_magnitude, config.policy_num_ops
        drawn = draw_policy(num_images, (rows, columns), config.policy, *strength, generator)
        images = apply_policy(images, drawn, num_colors)
    if config.jitter:
        factors = draw_color_jitter(num_images, config.jitter, generator)
        images = _on_colors(images, num_colors, lambda colors: apply_color_jitter(colors, factors))
    if num_colors < images.shape[1]:
        images = _with_clear_padding(images, num_colors)
    if config.erase_rate:
        erased = draw_erase(num_images, (rows, columns), config.erase_rate, generator)
        images = apply_erase_(_own(images, given), erased, num_colors)
    if config.mixup_alpha:
        mixture = draw_mixup(num_images, config.mixup_alpha, generator)
        images, labels = apply_mixup(images, labels, num_classes, *mixture, num_colors)
    if config.cutmix_rate:
        pasted = draw_cutmix(num_images, (rows, columns), config.cutmix_rate, generator)
        images, labels = apply_cutmix(images, labels, num_classes, *pasted)
    return images, labels


def _own(images: Tensor, given: Tensor) -> Tensor:
    """The images, copied if they are those `given`: what is changed in place must not be the loader's."""
    return images.clone() if images is given else images


def _cropped(
    images: Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
    image_size: tuple[int, int] | None,
    num_colors: int,
) -> Tensor:
    """Random resized crops of the images; of what is inside, where they are padded."""
    rows, columns = images.shape[2:]
    canvas: tuple[int, int] | Tensor = (rows, columns)
    corner = torch.zeros(1, 2, dtype=torch.int64)
    if num_colors < images.shape[1]:
        inside = images[:, -1] > 0
        spans = [(inside.any(dim=3 - axis).int()) for axis in (1, 2)]  # rows, then columns, that hold some of it
        corner = torch.stack([span.argmax(dim=1) for span in spans], dim=1).cpu()
        canvas = torch.stack([span.sum(dim=1) for span in spans], dim=1).cpu()
    boxes = draw_crop(len(images), canvas, scale, ratio, generator)
    boxes[:, :2] += corner
    return apply_crop(images, boxes, image_size or (rows, columns))


def _on_colors(images: Tensor, num_colors: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Images with their first `num_colors` channels changed to float in 0..1, and the others as they are."""
    if num_colors == images.shape[1]:
        return change(images)
    return torch.cat([change(images[:, :num_colors]), to_unit(images[:, num_colors:])], dim=1)


def _with_clear_padding(images: Tensor, num_colors: int) -> Tensor:
    """Images whose last channel is full or 0 again, by halves, and whose padding is black.

    An image that was moved out of its frame counts as inside everywhere: something must be left to attend to.
    """
    full = 255 if images.dtype == torch.uint8 else 1.0
    inside = images[:, -1:] >= full / 2
    inside = inside | ~inside.flatten(1).any(dim=1).view(-1, 1, 1, 1)
    colors = images[:, :num_colors].masked_fill(~inside, 0)
    return torch.cat([colors, inside.to(images.dtype) * full], dim=1)
