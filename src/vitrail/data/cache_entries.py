"""All that is in the cache: listed, and taken away when it is too much."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.data.cache import cache_root
from vitrail.errors import ConfigError, DataError

SPARE_BYTES = 2**24  # of the disk that is left to others

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One set of images in the cache, for whoever lists it: where, of what, how large, when it was last used."""

    folder: Path
    source: str
    image_size: str
    num_images: int
    num_bytes: int
    used: float


def list_entries() -> list[Entry]:
    """What is in the cache, the latest used first."""
    root = cache_root()
    folders = [folder for folder in root.iterdir() if folder.is_dir()] if root.is_dir() else []
    return sorted((_entry(folder) for folder in folders), key=lambda entry: -entry.used)


def _entry(folder: Path) -> Entry:
    files = [path.stat() for path in folder.iterdir() if path.is_file()]
    num_bytes, used = sum(file.st_size for file in files), max((file.st_mtime for file in files), default=0.0)
    source, size, count = "(not whole)", "", 0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        values: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        rows, columns = values["preprocess"]["image_size"]
        source, size, count = values["source"], f"{columns}x{rows}", len(values["names"])
        used = (folder / "index.json").stat().st_mtime
    return Entry(folder, source, size, count, num_bytes, used)


def clear_cache(most_bytes: int = 0, keep: Path | None = None) -> tuple[int, int]:
    """Take sets away, the longest unused first, until at most so many bytes are left; how many sets and bytes went.

    A set that is being made stays, and so does `keep`. Raises DataError where the disk refuses.
    """
    from filelock import FileLock, Timeout

    entries = list_entries()
    total, num_gone, bytes_gone = sum(entry.num_bytes for entry in entries), 0, 0
    for entry in reversed(entries):
        if total - bytes_gone <= most_bytes:
            break
        if entry.folder == keep:
            continue
        try:
            with FileLock(entry.folder / ".lock", timeout=0):
                for path in entry.folder.iterdir():
                    if path.name != ".lock":
                        path.unlink()
            shutil.rmtree(entry.folder)
        except Timeout:
            logger.info("%s is being made; it stays", entry.folder)
            continue
        except OSError as error:
            raise DataError(f"{entry.folder} cannot be taken away: {error.strerror or error}") from error
        num_gone, bytes_gone = num_gone + 1, bytes_gone + entry.num_bytes
    return num_gone, bytes_gone


def make_room(num_bytes: int, most_bytes: int | None, keep: Path) -> None:
    """Take away what was not used for longest until `num_bytes` more fit. Raises OSError, with why, if they never do.

    All sets together may take `most_bytes`; by default half of what is free and what they take.
    """
    keep.mkdir(parents=True, exist_ok=True)
    used = sum(entry.num_bytes for entry in list_entries() if entry.folder != keep)
    free = shutil.disk_usage(keep).free
    allowed = (free + used) // 2 if most_bytes is None else most_bytes
    if num_bytes > allowed:
        raise OSError(f"they take {num_bytes / 1e9:.2f} GB, and {allowed / 1e9:.2f} GB are allowed there")
    if used + num_bytes > allowed:
        with contextlib.suppress(DataError):
            clear_cache(allowed - num_bytes, keep)
    if shutil.disk_usage(keep).free < num_bytes + SPARE_BYTES:
        raise OSError(f"they take {num_bytes / 1e9:.2f} GB, and so much is not free there")


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def parse_bytes(text: str) -> int:
    """`"10GB"` -> 10,000,000,000; also 500MB, 1.5 g, 1000. Raises ConfigError where it is no size."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if parts is None:
        raise ConfigError(f"{text!r} is not a size; write it as 500MB or 10GB")
    return int(float(parts[1]) * _UNITS[parts[2]])


def show_bytes(num_bytes: int) -> str:
    """12345678 -> "12.3 MB"."""
    for unit in ("TB", "GB", "MB", "kB"):
        if num_bytes >= _UNITS[unit[0].lower()]:
            return f"{num_bytes / _UNITS[unit[0].lower()]:.1f} {unit}"
    return f"{num_bytes} bytes"
