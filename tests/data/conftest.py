"""Folders of small photographs, and a cache of their own for every test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_photo() -> Callable[..., Path]:
    """`write_photo(path, seed)`: a small photograph of noise, equal for equal seeds, in the format of its suffix."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (12, 16), mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = size if mode == "L" else (*size, 3)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def write_tree(write_photo: Callable[..., Path]) -> Callable[..., Path]:
    """`write_tree(root, {"ant": 5, "bee": 6})`: that many different images in each folder; seeds count up."""

    def write(root: Path, counts: Mapping[str, int], suffix: str = ".png", first: int = 0) -> Path:
        seed = first
        for folder, count in counts.items():
            for number in range(count):
                write_photo(root / folder / f"{number:03d}{suffix}", seed)
                seed += 1
        return root

    return write
