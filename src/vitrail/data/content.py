"""What an image is, whatever its file is called: one hash of its pixels."""

from __future__ import annotations

import hashlib

import numpy as np


def content_hash(pixels: np.ndarray) -> str:
    """The sha256, hexadecimal, over shape and pixels of one uint8 image, (H, W) or (H, W, C): equal images only."""
    image = pixels[..., None] if pixels.ndim == 2 else pixels
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def content_hashes(pixels: np.ndarray) -> tuple[str, ...]:
    """`content_hash` of each image of uint8 (N, H, W, C)."""
    return tuple(map(content_hash, pixels))
