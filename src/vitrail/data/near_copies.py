"""Near copies among the images that splits are made of, found once for a set and then kept.

They are looked for in thumbnails, which are the same whatever model images are prepared for: so are the splits then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitrail.data.cache import cache_root
from vitrail.data.dataset import ImageSet
from vitrail.data.near_duplicates import connected, near_thumbnails
from vitrail.data.thumbnails import Thumbnails, unpack_thumbnails

VERSION = 1  # of how near copies are found: raise it when that changes
LARGE, NUM_SAMPLED = 10_000, 1000  # of larger sets some images are looked at first

logger = logging.getLogger(__name__)


def near_copies(name: str, images: Sequence[ImageSet]) -> np.ndarray | None:
    """For each image of all these sets a number, int64 (N,), equal for near copies, also over others; None if unknown.

    What was found is kept in the cache. Large sets whose images look alike by nature, such as handwriting, are not
    searched, as that takes long and finds little; the log says so. `name` is what it calls the set.
    """
    hashes = [content for found in images for content in found.hashes]
    if len(hashes) < 2:
        return None
    digest = hashlib.sha256(f"{VERSION} {' '.join(hashes)}".encode()).hexdigest()[:32]
    file = cache_root() / digest / "index.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        pairs = np.array(json.loads(file.read_text(encoding="utf-8"))["pairs"], np.int64).reshape(-1, 2)
        if not len(pairs) or 0 <= pairs.min() <= pairs.max() < len(hashes):
            return connected(len(hashes), pairs)
    if len(hashes) > LARGE and _look_alike(images):
        logger.info("%s", f"Images of {name} look alike by nature: equal ones are looked for, nearly equal ones not")
        return None
    pairs = near_thumbnails(_thumbnails(images)).pairs
    _keep(file, f"near copies in {name}", pairs)
    return connected(len(hashes), pairs)


def _look_alike(images: Sequence[ImageSet]) -> bool:
    """Whether some images, the first by content, are too much alike already to tell copies from others."""
    largest = max(images, key=len)
    chosen = sorted(range(len(largest)), key=lambda index: largest.hashes[index])[:NUM_SAMPLED]
    return bool(near_thumbnails(largest.take(np.array(sorted(chosen), np.int64)).thumbnails).notes)


def _thumbnails(images: Sequence[ImageSet]) -> Thumbnails:
    return unpack_thumbnails(np.concatenate([found.packed_thumbnails for found in images]))


def _keep(file: Path, source: str, pairs: np.ndarray) -> None:
    """Write the pairs as an entry of the cache, which a full disk prevents without harm."""
    entry = {"source": source, "preprocess": {"image_size": [16, 16]}, "names": [], "pairs": pairs.tolist()}
    temporary = file.with_name(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entry), encoding="utf-8")
        temporary.replace(file)
