"""Pixels of many images that need not be in memory: mapped from a file, or decoded when they are asked for."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

BLOCK_BYTES = 2**26
_NUM_LAZY = 64  # images that a thread decodes at a time


class LazyPixels(Protocol):
    """uint8 (N, H, W, C) that are decoded when they are asked for, by a slice or by an array of indices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """uint8."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray: ...

    def take(self, indices: np.ndarray) -> LazyPixels:
        """The images at `indices`, not decoded yet."""
        ...


Pixels = np.ndarray | LazyPixels


class JoinedPixels:
    """The pixels of several sets one after the other, or of some of their `places`; copied when they are asked for."""

    def __init__(self, parts: Sequence[Pixels], places: np.ndarray | None = None) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        self._places = np.arange(self._starts[-1]) if places is None else places

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, rows, columns, channels)."""
        return len(self._places), *self.parts[0].shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """uint8."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        chosen = self._places[index]
        if len(self.parts) == 1:
            return self.parts[0][chosen]
        owners = np.searchsorted(self._starts, chosen, "right") - 1
        pixels = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for owner in np.unique(owners).tolist():
            rows = np.flatnonzero(owners == owner)
            pixels[rows] = self.parts[owner][chosen[rows] - self._starts[owner]]
        return pixels

    def take(self, indices: np.ndarray) -> JoinedPixels:
        """The images at `indices`, not decoded yet."""
        return JoinedPixels(self.parts, self._places[indices])


def joined_pixels(parts: Sequence[Pixels]) -> Pixels:
    """The pixels of sets of one size, one after the other: in memory, unless some are mapped or decoded later."""
    if all(isinstance(part, np.ndarray) and not isinstance(part, np.memmap) for part in parts):
        return np.concatenate([part[:] for part in parts])
    return JoinedPixels(parts)


def is_mapped(pixels: Pixels) -> bool:
    """Whether the pixels lie decoded in files, from which they can be loaded or looked at where they are."""
    if isinstance(pixels, JoinedPixels):
        return all(isinstance(part, np.ndarray) for part in pixels.parts)
    return isinstance(pixels, np.memmap)


def take_pixels(pixels: Pixels, indices: np.ndarray) -> Pixels:
    """The images at `indices`: copied in memory, but what is mapped stays so, and what is not decoded, too."""
    if isinstance(pixels, np.memmap):
        return JoinedPixels([pixels], indices)
    return pixels[indices] if isinstance(pixels, np.ndarray) else pixels.take(indices)


def pixel_blocks(pixels: Pixels, block_bytes: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
    """All images, so many bytes at a time, in order; threads decode the next ones where they are not decoded yet."""
    size = max(1, block_bytes // max(1, int(np.prod(pixels.shape[1:]))))
    if isinstance(pixels, np.ndarray) or is_mapped(pixels):
        for start in range(0, len(pixels), size):
            yield pixels[start : start + size]
        return
    ahead: deque[Future[np.ndarray]] = deque()
    block: list[np.ndarray] = []
    parts = [
        slice(first, min(first + _NUM_LAZY, start + size, len(pixels)))
        for start in range(0, len(pixels), size)
        for first in range(start, min(start + size, len(pixels)), _NUM_LAZY)
    ]
    pool = ThreadPoolExecutor(num_cores())
    try:
        for part in [*parts, *[None] * (2 * num_cores())]:
            if part is not None:
                ahead.append(pool.submit(pixels.__getitem__, part))
            if ahead and (part is None or len(ahead) > 2 * num_cores()):
                block.append(ahead.popleft().result())
                if sum(map(len, block)) == size or not (ahead or part):
                    yield np.concatenate(block)
                    block = []
    finally:
        pool.shutdown(cancel_futures=True)


def num_cores() -> int:
    """The cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1
