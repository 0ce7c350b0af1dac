"""A cache in the making: rows are appended as they are decoded, and a later start goes on where one was stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vitrail.data.cache import CHECKED_BYTES, VERSION, ImageCache, Known
from vitrail.data.records import Stamp

logger = logging.getLogger(__name__)


class Building:
    """Rows that are appended to a cache until it is whole; what an earlier start appended is taken over.

    `known` are the images that are done, a beginning of `names`. All methods raise OSError where the disk refuses.
    """

    def __init__(self, cache: ImageCache, names: Sequence[str], stamps: Sequence[Stamp]) -> None:
        """Go on where a building of the same images was left, else begin."""
        self.path = cache.folder / "building.pixels"
        self.known = Known()
        self._journal_path = cache.folder / "building.jsonl"
        self._row_bytes = int(np.prod(cache.preprocess.shape))
        digest = hashlib.sha256(json.dumps([VERSION, list(names), list(stamps)]).encode()).hexdigest()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, zlib.error):
            self._replay(digest)
        kept = self.known.num_readable * self._row_bytes
        self._pixels: BinaryIO = self.path.open("r+b" if kept else "wb")
        self._pixels.truncate(kept)
        self._pixels.seek(kept)
        if self.known.names:
            logger.info("%s", f"{len(self.known.names):,} images were decoded by an earlier start; going on from there")
            self._journal = self._journal_path.open("a", encoding="ascii")
        else:
            self._journal = self._journal_path.open("w", encoding="ascii")
            self._write_line(digest)

    def _replay(self, digest: str) -> None:
        lines = self._journal_path.read_text(encoding="ascii").splitlines(keepends=True)
        if not lines or json.loads(lines[0]) != digest:
            return
        good = len(lines[0])
        try:
            for line in lines[1:]:
                values: dict[str, Any] = json.loads(line) if line.endswith("\n") else {}
                part = Known.from_json(values)
                if not part.names or not self._has_rows(self.known.num_readable, part.num_readable, values["checksum"]):
                    break
                self.known.extend(part)
                good += len(line)
        finally:
            with self._journal_path.open("r+b") as file:
                file.truncate(good)

    def _has_rows(self, first: int, count: int, checksum: int) -> bool:
        """Whether these rows are there, and as they were, if they are near the end, where lost power leaves gaps."""
        size, start, length = self.path.stat().st_size, first * self._row_bytes, count * self._row_bytes
        if start + length > size:
            return False
        if size - start > CHECKED_BYTES:
            return True
        with self.path.open("rb") as file:
            file.seek(start)
            return zlib.crc32(file.read(length)) == checksum

    def append(self, part: Known, rows: Sequence[np.ndarray]) -> None:
        """The next images, and the pixels of those among them that can be read."""
        checksum = 0
        for row in rows:
            data = np.ascontiguousarray(row).data
            self._pixels.write(data)
            checksum = zlib.crc32(data, checksum)
        self._pixels.flush()
        self._write_line({"checksum": checksum, **part.to_json()})
        self.known.extend(part)

    def _write_line(self, value: Any) -> None:
        self._journal.write(json.dumps(value) + "\n")
        self._journal.flush()

    def finish(self) -> Path:
        """The file of all rows, safely on the disk."""
        self._pixels.flush()
        os.fsync(self._pixels.fileno())
        self.close()
        return self.path

    def rows(self) -> np.ndarray:
        """What was appended so far, in memory: uint8, a row of bytes each."""
        with contextlib.suppress(OSError):
            self._pixels.flush()
        count = self.known.num_readable
        return np.fromfile(self.path, np.uint8, count * self._row_bytes).reshape(count, self._row_bytes)

    def close(self) -> None:
        """Leave it as it is, for a later start."""
        for file in (self._pixels, self._journal):
            with contextlib.suppress(OSError):  # what a full disk has not taken
                file.close()

    def abandon(self) -> None:
        """Take away what was appended."""
        self.close()
        for path in (self.path, self._journal_path):
            with contextlib.suppress(OSError):
                path.unlink()
