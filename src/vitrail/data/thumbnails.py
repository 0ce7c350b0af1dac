"""Small pictures of large sets: what images are compared by, some hundred bytes each, the same to the bit anywhere.

All is whole numbers until the last rounding, and those are exact in float64: neither the order of the images nor the
processor changes a bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MIN_SIDE, MAX_SIDE = 8, 32
COLOUR_SIDE = 8
_BLOCK = 2048  # images at a time
_ONE = 4096  # of weights as whole numbers


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """`grey` uint8 (N, side, side), and `colour` int16 (N, 8, 8, 2): red and blue above green, or None for grey sets.

    The side is half of the images' shorter one, 8 to 32 pixels: what is lost by storing images at half the size is
    not in it either.
    """

    grey: np.ndarray
    colour: np.ndarray | None

    def __len__(self) -> int:
        return len(self.grey)

    def take(self, indices: np.ndarray) -> Thumbnails:
        """The thumbnails at `indices`."""
        return Thumbnails(self.grey[indices], None if self.colour is None else self.colour[indices])


def make_thumbnails(blocks: Iterable[np.ndarray]) -> Thumbnails:
    """The thumbnails of images, uint8 (n, H, W, C) in each block; with C = 2 or 4 the last channel is not looked at."""
    grey: list[np.ndarray] = []
    colour: list[np.ndarray] = []
    for block in blocks:
        side = min(max(min(block.shape[1:3]) // 2, MIN_SIDE), MAX_SIDE)
        for start in range(0, len(block), _BLOCK):
            images = without_mask(block[start : start + _BLOCK])
            grey.append(shrink(to_grey(images), side).astype(np.uint8))
            if images.shape[3] == 3:
                channels = [shrink(images[..., channel], COLOUR_SIDE) for channel in range(3)]
                colour.append(np.stack([channels[0] - channels[1], channels[2] - channels[1]], -1).astype(np.int16))
    if not grey:
        return Thumbnails(np.zeros((0, MIN_SIDE, MIN_SIDE), np.uint8), None)
    return Thumbnails(np.concatenate(grey), np.concatenate(colour) if colour else None)


def without_mask(images: np.ndarray) -> np.ndarray:
    """Images without the channel that tells padding, where they have one."""
    return images[..., :-1] if images.shape[3] in (2, 4) else images


def to_grey(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 1 or 3) -> uint8 (N, H, W), by the luma of ITU-R 601 in 1/256."""
    if images.shape[3] == 1:
        return images[..., 0]
    wide = images.astype(np.uint16)
    return ((77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2] + 128) >> 8).astype(np.uint8)


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 (N, H, W) -> float64 (N, side, side) of whole numbers, by a triangle filter two target pixels wide."""
    rows, columns = _weights(images.shape[1], side), _weights(images.shape[2], side)
    scaled = rows @ images.astype(np.float64) @ columns.T
    return np.floor(scaled / np.outer(rows.sum(1), columns.sum(1)) + 0.5)


def _weights(size: int, side: int) -> np.ndarray:
    scale = size / side
    centres = (np.arange(side) + 0.5) * scale - 0.5
    weights = np.maximum(0.0, 1 - np.abs(np.arange(size) - centres[:, None]) / max(1.0, scale))
    return np.round(weights / weights.sum(1, keepdims=True) * _ONE)
