"""Encoded images copied into one flat file in the cache, where each is found at once, in whatever order they are read.

Two files a column of images: .bin has the bytes of all, .npy says where each begins. Deleting them costs only time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.cache import cache_root

VERSION = 1  # of what stands in the files: raise it when that changes
PROGRESS_SECONDS = 2.0
KEPT_SECONDS = 30 * 86400.0  # since a copy was last opened; then the next copy takes it away

_BYTES, _PATH, _NONE = range(3)  # what stands at a place

logger = logging.getLogger(__name__)


class FlatImages:
    """Images by row; any number of threads may read, none waits for another."""

    def __init__(self, places: np.ndarray, content: np.ndarray) -> None:
        """`places` int64 (rows, 3) are offset, size and kind of each in `content`, uint8."""
        self._places = places
        self._content = content

    def __len__(self) -> int:
        return len(self._places)

    def read(self, row: int) -> bytes | str | None:
        """The bytes of an image; the path that stands in their place, or None, where there are none."""
        offset, size, kind = self._places[row].tolist()
        if kind == _NONE:
            return None
        content = self._content[offset : offset + size].tobytes()
        return content.decode("utf-8") if kind == _PATH else content


def find_copy(source: Path, column: str, num_rows: int) -> FlatImages | None:
    """The copy of a column of `source` as the file is now, if the cache has it whole."""
    try:
        stem = _stem(source, column)
        return _opened(stem, num_rows)
    except (OSError, ValueError, EOFError):
        return None


def make_copy(
    source: Path, column: str, num_rows: int, num_bytes: int, parts: Iterator[Sequence[bytes | str | None]]
) -> FlatImages:
    """The copy of a column, made of its values in order, about `num_bytes` of them, unless another process makes it.

    Raises OSError where the disk refuses, and what `parts` raises.
    """
    from filelock import FileLock

    stem = _stem(source, column)
    stem.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(stem.with_suffix(".lock")):
        found = find_copy(source, column, num_rows)
        if found is not None:
            return found
        _tidy(stem)
        if num_bytes > (free := shutil.disk_usage(stem.parent).free) // 2:
            raise OSError(
                f"they take {num_bytes / 1e9:.2f} GB, more than half of the {free / 1e9:.2f} GB that are free"
            )
        logger.info("Copying the images of %s, %.2f GB, to read them in any order", source, num_bytes / 1e9)
        temporary = stem.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                places = _write(file, source, num_rows, parts)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(stem.with_suffix(".bin"))
            with temporary.open("wb") as file:
                np.save(file, places)
            temporary.replace(stem.with_suffix(".npy"))
        finally:
            temporary.unlink(missing_ok=True)
        return _opened(stem, num_rows)


def _write(file: Any, source: Path, num_rows: int, parts: Iterator[Sequence[bytes | str | None]]) -> np.ndarray:
    places = np.zeros((num_rows, 3), np.int64)
    row, offset, said = 0, 0, time.perf_counter()
    for values in parts:
        for value in values:
            content = value.encode("utf-8") if isinstance(value, str) else value or b""
            file.write(content)
            places[row] = offset, len(content), _NONE if value is None else _PATH if isinstance(value, str) else _BYTES
            row, offset = row + 1, offset + len(content)
        if time.perf_counter() - said > PROGRESS_SECONDS:
            said = time.perf_counter()
            logger.info("Copying the images of %s: %s of %s", source, f"{row:,}", f"{num_rows:,}")
    return places


def _opened(stem: Path, num_rows: int) -> FlatImages:
    """Raises OSError, ValueError or EOFError where the copy is not there, or not whole."""
    places = np.load(stem.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
    file = stem.with_suffix(".bin")
    if places.shape != (num_rows, 3) or file.stat().st_size != int(places[-1, :2].sum()):
        raise ValueError(f"{file} is not whole")
    content = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
    with suppress(OSError):
        os.utime(file)
        os.utime(stem.with_suffix(".npy"))
    return FlatImages(places.view(np.ndarray), content.view(np.ndarray))


def _stem(source: Path, column: str) -> Path:
    """Where a copy lies: one name for what is copied, one for when it was last changed. Raises OSError."""
    status = source.stat()
    what, state = [VERSION, os.path.realpath(source), column], [status.st_size, status.st_mtime_ns]
    parts = (hashlib.sha256(json.dumps(part).encode()).hexdigest()[:16] for part in (what, state))
    return cache_root().parent / "encoded" / "-".join(parts)


def _tidy(stem: Path) -> None:
    """Take away copies of the same images as they were before, and copies that were not opened for long."""
    for file in stem.parent.iterdir():
        with suppress(OSError):
            is_former = file.stem.partition("-")[0] == stem.name.partition("-")[0] and file.stem != stem.name
            if is_former or time.time() - file.stat().st_mtime > KEPT_SECONDS:
                file.unlink()
