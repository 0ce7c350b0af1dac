"""Images of different sizes in one batch, padded at the bottom and on the right; masks say what is padding.

Shapes: B images, C channels
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.errors import ConfigError


def pad_images(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A batch (B, C, rows, columns) of images (C, rows, columns) of any sizes, and their sizes (B, 2) in pixels.

    Both go to a Vision Transformer together, `model(batch, sizes=sizes)`, which gives each image the logits that it
    has alone. Raises ConfigError if there are no images, or if channels or types differ.
    """
    if not images:
        raise ConfigError("There are no images to pad; give one or more")
    first = images[0]
    for image in images:
        if image.ndim != 3 or image.shape[0] != first.shape[0] or image.dtype != first.dtype:
            raise ConfigError(
                f"Images of one batch are (channels, rows, columns) of one type and number of channels, not "
                f"{tuple(image.shape)} {image.dtype} beside {tuple(first.shape)} {first.dtype}; convert them first"
            )
    sizes = torch.tensor([image.shape[1:] for image in images])
    rows, columns = sizes.amax(dim=0).tolist()
    batch = first.new_zeros(len(images), first.shape[0], rows, columns)
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


def inside(sizes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Places of maps of a `shape` (rows, columns) that lie within each image's size (B, 2): bool (B, rows, columns)."""
    rows = torch.arange(shape[0], device=sizes.device) < sizes[:, :1]
    columns = torch.arange(shape[1], device=sizes.device) < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def split_mask(images: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, C + 1, rows, columns) without their last channel, and where it says there is image: bool.

    That is where it is above the middle of its range, uint8 or float in 0..1. An image that is said to be padding alone
    counts as a whole one: there must be something to look at.
    """
    real = images[:, -1] > (127 if images.dtype == torch.uint8 else 0.5)  # (B, rows, columns)
    return images[:, :-1], real | ~real.flatten(1).any(dim=1)[:, None, None]


def shrunk(real: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Patches that hold a real pixel: bool (B, rows, columns) of pixels -> of patches, incomplete ones counted."""
    return F.max_pool2d(real.float()[:, None], patch_size, ceil_mode=True)[:, 0] > 0


def check_sizes(sizes: Tensor, images: Tensor) -> None:
    """Raise ConfigError unless `sizes` are (B, 2) whole numbers within a batch of images (B, C, rows, columns)."""
    batch, _, rows, columns = images.shape
    if not isinstance(sizes, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        raise ConfigError(
            f"sizes are a {type(sizes).__name__}; give a tensor of whole numbers of shape ({batch}, 2), each image's "
            "rows and columns, as pad_images does"
        )
    if sizes.shape != (batch, 2) or sizes.is_floating_point() or sizes.dtype == torch.bool:
        raise ConfigError(
            f"sizes {tuple(sizes.shape)} {sizes.dtype} are not the rows and columns of {batch} images; "
            f"give whole numbers of shape ({batch}, 2), as pad_images does"
        )
    largest, smallest = sizes.amax(dim=0).tolist(), int(sizes.min())
    if smallest < 1 or largest[0] > rows or largest[1] > columns:
        raise ConfigError(
            f"sizes from {smallest} to {max(largest)} do not lie within images of {rows}x{columns} pixels; "
            "give each image's own rows and columns, as pad_images does"
        )


def check_patch_mask(mask: Tensor, batch: int, grid: tuple[int, int], reads_prefix: bool) -> None:
    """Raise ConfigError unless `mask` is bool (B, rows, columns) and leaves each image something to look at."""
    expected = (batch, *grid)
    if not isinstance(mask, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        raise ConfigError(
            f"The patch mask is a {type(mask).__name__}; it must be a tensor, bool of shape {expected}, batch, rows "
            "and columns of patches, true where a patch takes part"
        )
    if mask.dtype != torch.bool or tuple(mask.shape) != expected:
        raise ConfigError(
            f"The patch mask is {tuple(mask.shape)} {str(mask.dtype).removeprefix('torch.')}; it must be bool of "
            f"shape {expected}, batch, rows and columns of patches, true where a patch takes part"
        )
    if reads_prefix or torch.compiler.is_exporting():  # an exported graph cannot look at values
        return
    if not bool(mask.flatten(1).any(dim=1).all()):
        raise ConfigError(
            "The patch mask leaves out every patch of an image, and the head reads nothing else; "
            "keep one patch at least"
        )
