"""What a model's first layer looks for in the pixels: the figure's array, and how random filters would have been."""

# Shapes: F filters, K components or kernels, C channels, (rows, columns) pixels of each

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vitrail.errors import ConfigError
from vitrail.interpretation.projection import principal_components
from vitrail.models.layers import PatchEmbed

NUM_COMPONENTS = 28  # as in the paper's figure
NUM_KERNELS = 64
DEAD_RATE = 0.01  # of the strongest filter's norm; what is weaker answers nothing to speak of


class Filters(NamedTuple):
    """The filters of a model's first layer, ready for `draw_filters(pictures, explained)`."""

    pictures: NDArray[np.float64]
    """(K, rows, columns, C) in 0..1, C 1 or 3; 0.5 stands for a weight of 0, and each picture has its own range"""
    explained: NDArray[np.float64] | None
    """of principal components the part of the filters' variance (K,); None where the pictures are the kernels"""
    num_filters: int
    """filters that the layer has"""
    num_weak: int
    """filters with less than a hundredth of the strongest one's norm"""
    random_share: float | None
    """the part of the variance that the first component of so many random filters would explain; None for kernels"""


def first_filters(model: nn.Module) -> Filters:
    """The filters that read the pixels: principal components of a patch projection, else the first kernels.

    A patch projection has hundreds of filters, of which the paper shows the first 28 principal components
    (Dosovitskiy et al. 2021, figure 7 left). The small overlapping kernels of convolutional stems and CNNs are shown as
    they are, the strongest 64 first. Raises ConfigError for models that read pixels otherwise.
    """
    kernels, of_patches = _kernels(model)
    if kernels.shape[3] not in (1, 3):
        raise ConfigError(
            f"Filters of {kernels.shape[3]} channels cannot be shown as pictures; grey and colour ones can"
        )
    norms = np.linalg.norm(kernels.reshape(len(kernels), -1), axis=1)
    num_weak = int((norms < DEAD_RATE * norms.max()).sum())
    if not of_patches or len(kernels) < 2:
        strongest = np.argsort(-norms, kind="stable")[:NUM_KERNELS]
        return Filters(_scaled(kernels[strongest]), None, len(kernels), num_weak, None)
    flat = kernels.reshape(len(kernels), -1)
    found = principal_components(flat, NUM_COMPONENTS)
    pictures = found.directions.reshape(-1, *kernels.shape[1:])
    return Filters(_scaled(pictures), found.explained, len(kernels), num_weak, random_share(*flat.shape))


def random_share(num_filters: int, num_values: int) -> float:
    """The part of the variance that the first component explains of filters of independent random values.

    Marchenko and Pastur 1967: the largest eigenvalue is (1 + sqrt(values / filters))^2 times the mean one.
    """
    return min(1.0, (1 + (num_values / num_filters) ** 0.5) ** 2 / num_values)


def _kernels(model: nn.Module) -> tuple[NDArray[np.float64], bool]:
    """Filters (F, rows, columns, C), and whether they read patches side by side."""
    stem: Any = getattr(model, "patch_embed", None)
    if isinstance(stem, PatchEmbed):
        weight = stem.proj.weight.detach()
        if isinstance(stem.pre_norm, nn.LayerNorm):  # its factors are part of what a filter looks for
            weight = weight * stem.pre_norm.weight.detach().view(1, *weight.shape[1:])
        return _channels_last(weight), True
    convs = [] if stem is None else [layer for layer in stem.modules() if isinstance(layer, nn.Conv2d)]
    if not convs:
        raise ConfigError("The first layer is no convolution or projection of patches, so it has no filters to show")
    first = convs[0]
    sides = tuple(first.kernel_size)
    return _channels_last(first.weight.detach()), sides == tuple(first.stride) and sides > (1, 1)


def _channels_last(weight: torch.Tensor) -> NDArray[np.float64]:
    return weight.double().cpu().permute(0, 2, 3, 1).numpy()


def _scaled(pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each picture's values in 0..1, zero in the middle."""
    most = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + pictures / (2 * np.maximum(most, np.finfo(np.float64).tiny))
