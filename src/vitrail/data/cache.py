"""Decoded images on disk, so that the second start reads no image file that has not changed.

One folder a set of files and a model's size, in the user's cache folder or in $VITRAIL_CACHE: index.json says which
file each row of pixels-*.npy came from, and what its size and times were. Deleting it costs only time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.preprocess import Preprocess

VERSION = 1  # of what stands in an entry, and of how images are read: raise it when either changes

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]  # bytes, time of modification and of change in nanoseconds


@dataclass(frozen=True)
class Entry:
    """What is known of one file: its content's hash and (rows, columns, channels), or why it cannot be read."""

    stamp: Stamp
    content: str | None
    shape: tuple[int, int, int] | None
    error: str | None = None


def stamp_of(path: str | Path) -> Stamp:
    """What changes when a file changes, without reading it. Raises OSError where there is no file."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class ImageCache:
    """The decoded images of one set of files at one size. Whatever is wrong with its files, it is then empty."""

    def __init__(self, source: str, preprocess: Preprocess) -> None:
        """Open the cache of the files that `source` names, such as a folder's real path and a split."""
        import platformdirs

        root = os.environ.get("VITRAIL_CACHE") or platformdirs.user_cache_dir("vitrail", appauthor=False)
        key = json.dumps([VERSION, source, preprocess.model_dump(mode="json")])
        self.folder = Path(root, "images", hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32])
        self.entries: dict[str, Entry] = {}
        self.rows: dict[str, int] = {}
        self.pixels: np.ndarray | None = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._open(preprocess)

    def _open(self, preprocess: Preprocess) -> None:
        index: dict[str, Any] = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        pixels = np.load(self.folder / index["pixels"], mmap_mode="r", allow_pickle=False)
        entries = {name: _entry(values) for name, values in index["entries"].items()}
        readable = [name for name, entry in entries.items() if entry.content is not None]
        wanted = (len(readable), *preprocess.image_size, preprocess.channels)
        if pixels.dtype == np.uint8 and pixels.shape == wanted:
            self.entries, self.pixels = entries, pixels
            self.rows = {name: row for row, name in enumerate(readable)}

    def write(self, entries: dict[str, Entry], pixels: np.ndarray) -> None:
        """Keep this instead: `pixels` has a row for each readable entry, in their order. A full disk is no error."""
        content = hashlib.sha256("".join(entry.content or "" for entry in entries.values()).encode()).hexdigest()
        file = self.folder / f"pixels-{content[:16]}.npy"
        index = {"pixels": file.name, "entries": {name: _values(entry) for name, entry in entries.items()}}
        temporary = self.folder / f".{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < 2 * pixels.nbytes:
                raise OSError("there is not enough space")
            if self.pixels is None or not file.exists():  # a file that is mapped cannot be replaced on Windows
                with temporary.open("wb") as stream:
                    np.save(stream, pixels, allow_pickle=False)
                temporary.replace(file)
            temporary.write_text(json.dumps(index), encoding="utf-8")
            temporary.replace(self.folder / "index.json")
        except OSError as error:
            logger.warning("Decoded images are not kept in %s: %s", self.folder, error.strerror or error)
            with contextlib.suppress(OSError):
                temporary.unlink()
            return
        for old in self.folder.glob("pixels-*.npy"):
            if old != file:
                with contextlib.suppress(OSError):  # Windows keeps a file that another process reads
                    old.unlink()


def _values(entry: Entry) -> list[Any]:
    return [*entry.stamp, entry.content, entry.shape, entry.error]


def _entry(values: Sequence[Any]) -> Entry:
    size, modified, changed, content, shape, error = values
    return Entry((size, modified, changed), content, None if shape is None else (shape[0], shape[1], shape[2]), error)
