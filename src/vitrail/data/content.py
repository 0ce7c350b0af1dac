"""What an image is, whatever its file is called: one hash of its pixels, and a thumbnail to find its likes by."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

THUMBNAIL_SIDE = 16
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601-2, as Pillow has it


def content_hash(pixels: np.ndarray) -> str:
    """The sha256, hexadecimal, over shape and pixels of one uint8 image, (H, W) or (H, W, C): equal images only."""
    image = pixels[..., None] if pixels.ndim == 2 else pixels
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def content_hashes(pixels: np.ndarray) -> tuple[str, ...]:
    """`content_hash` of each image of uint8 (N, H, W, C)."""
    return tuple(map(content_hash, pixels))


def thumbnails(pixels: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) of 1 or 3 colours, or grey (N, H, W) -> grey uint8 (N, 16, 16): means of equal areas."""
    grey = pixels if pixels.ndim == 3 else pixels[..., 0] if pixels.shape[3] == 1 else pixels @ _LUMA
    rows, columns = _areas(grey.shape[1]), _areas(grey.shape[2])
    small = rows @ (grey.astype(np.float32) @ columns.T)
    return np.rint(small).clip(0, 255).astype(np.uint8)


@cache
def _areas(length: int) -> np.ndarray:
    """(16, length) float32: the part that each pixel has in each of 16 equal stretches."""
    edges = np.linspace(0, length, THUMBNAIL_SIDE + 1)
    starts = np.arange(length)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return (overlap.clip(0) * (THUMBNAIL_SIDE / length)).astype(np.float32)
