"""Small pictures of large sets: what images are compared by, some hundred bytes each, the same to the bit anywhere.

All is whole numbers until the last rounding, and those are exact in float64: neither the order of the images nor the
processor changes a bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

MIN_SIDE, MAX_SIDE = 8, 32
COLOUR_SIDE = 8
KEPT_SIDE = 16  # of those that are kept with decoded images
KEPT_BYTES = KEPT_SIDE**2 + 2 * COLOUR_SIDE**2
_ROUGH_SIDE = 64  # that large images are averaged to first: a kept one needs no more
_BLOCK = 2048  # images at a time
_COLOUR_PIXELS = 64  # so many rows and columns, or up to twice that, are enough to know the colours by
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


def make_thumbnails(blocks: Iterable[np.ndarray], side: int | None = None) -> Thumbnails:
    """The thumbnails of images, uint8 (n, H, W, C) in each block; with C = 2 or 4 the last channel is not looked at.

    They have `side` pixels each way, by default half of the images' shorter side.
    """
    grey: list[np.ndarray] = []
    colour: list[np.ndarray] = []
    for block in blocks:
        own_side = side or min(max(min(block.shape[1:3]) // 2, MIN_SIDE), MAX_SIDE)
        for start in range(0, len(block), _BLOCK):
            images = without_mask(block[start : start + _BLOCK])
            grey.append(shrink(to_grey(images), own_side).astype(np.uint8))
            if images.shape[3] == 3:
                step = max(1, min(images.shape[1:3]) // _COLOUR_PIXELS)
                channels = [shrink(images[:, ::step, ::step, channel], COLOUR_SIDE) for channel in range(3)]
                colour.append(np.stack([channels[0] - channels[1], channels[2] - channels[1]], -1).astype(np.int16))
    if not grey:
        side = side or MIN_SIDE
        return Thumbnails(np.zeros((0, side, side), np.uint8), None)
    return Thumbnails(np.concatenate(grey), np.concatenate(colour) if colour else None)


def pack_thumbnails(thumbnails: Thumbnails) -> np.ndarray:
    """Thumbnails of KEPT_SIDE as uint8 (N, KEPT_BYTES); of colours the last bit is lost."""
    number = len(thumbnails)
    packed = np.zeros((number, KEPT_BYTES), np.uint8)
    packed[:, : KEPT_SIDE**2] = thumbnails.grey.reshape(number, -1)
    if thumbnails.colour is not None:
        packed[:, KEPT_SIDE**2 :] = (thumbnails.colour >> 1).astype(np.int8).view(np.uint8).reshape(number, -1)
    return packed


def unpack_thumbnails(packed: np.ndarray) -> Thumbnails:
    """The thumbnails that `pack_thumbnails` made bytes of."""
    grey = packed[:, : KEPT_SIDE**2].reshape(-1, KEPT_SIDE, KEPT_SIDE)
    colour = np.ascontiguousarray(packed[:, KEPT_SIDE**2 :]).view(np.int8).astype(np.int16) * 2
    return Thumbnails(grey, colour.reshape(-1, COLOUR_SIDE, COLOUR_SIDE, 2))


def rough(image: Image.Image) -> np.ndarray:
    """What a thumbnail is made of: the pixels (H, W, C) of a small image, "L" or "RGB", else means, (64, 64, C)."""
    if max(image.size) > _ROUGH_SIDE:
        image = image.resize((_ROUGH_SIDE, _ROUGH_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def kept_thumbnails(images: Sequence[np.ndarray]) -> list[bytes]:
    """KEPT_BYTES that are kept of each `rough` image: the same whatever model it is prepared for."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.shape, []).append(place)
    kept = [b""] * len(images)
    for chosen in places.values():  # those of one size at once
        made = make_thumbnails([np.stack([images[place] for place in chosen])], KEPT_SIDE)
        for place, row in zip(chosen, pack_thumbnails(made), strict=True):
            kept[place] = row.tobytes()
    return kept


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
    # The first product is of whole numbers below 2^24, which float32 holds as well.
    halfway = rows.astype(np.float32) @ images.astype(np.float32)
    scaled = halfway.astype(np.float64) @ columns.T
    return np.floor(scaled / np.outer(rows.sum(1), columns.sum(1)) + 0.5)


def _weights(size: int, side: int) -> np.ndarray:
    scale = size / side
    centres = (np.arange(side) + 0.5) * scale - 0.5
    weights = np.maximum(0.0, 1 - np.abs(np.arange(size) - centres[:, None]) / max(1.0, scale))
    return np.round(weights / weights.sum(1, keepdims=True) * _ONE)
