"""Images with the statistics of photographs, for tests: every scale has as much contrast as the next."""

from __future__ import annotations

import numpy as np


def photographs(number: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 (number, size, size, 3): noise whose amplitude falls with frequency, of one tint an image."""
    numbers = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) * size
    noise = np.fft.fft2(numbers.standard_normal((number, size, size)))
    grey = np.fft.ifft2(noise / np.maximum(frequency, 1)).real
    grey = 128 + 45 * (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True)
    tint = numbers.uniform(-30, 30, (number, 1, 1, 3))
    return np.clip(grey[..., None] + tint, 0, 255).astype(np.uint8)
