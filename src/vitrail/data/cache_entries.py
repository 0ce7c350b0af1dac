"""All that is in the cache: listed, and taken away when it is too much."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.data.cache import cache_root, opened
from vitrail.errors import ConfigError, DataError

SPARE_BYTES = 2**24  # of the disk that is left to others
FRESH_SECONDS = 3600.0  # sets used so lately make no room for others

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
        source, size = values["source"], f"{columns}x{rows}"
        count = values["num_images"] if "num_images" in values else len(values["names"])
        used = (folder / "index.json").stat().st_mtime
    return Entry(folder, source, size, count, num_bytes, used)


def clear_cache(most_bytes: int = 0, keep: Collection[Path] = ()) -> tuple[int, int]:
    """Take sets away, the longest unused first, until at most so many bytes are left; how many sets and bytes went.

    A set that is being made stays, and so do the folders `keep`. Raises DataError where the disk refuses.
    """
    from filelock import FileLock, Timeout

    entries = list_entries()
    total, num_gone, bytes_gone = sum(entry.num_bytes for entry in entries), 0, 0
    for entry in reversed(entries):
        if total - bytes_gone <= most_bytes:
            break
        if entry.folder in keep:
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

    All sets together may take `most_bytes`; by default half of what is free and what they take. What this process has
    opened stays, and what any has used in the last hour; by default they may then take more than that half.
    """
    keep.mkdir(parents=True, exist_ok=True)
    entries = list_entries()
    others = [entry for entry in entries if entry.folder != keep]
    staying = [entry for entry in others if entry.folder in opened or entry.used > time.time() - FRESH_SECONDS]
    whole, used, in_use = (sum(entry.num_bytes for entry in some) for some in (entries, others, staying))
    free = shutil.disk_usage(keep).free
    allowed = (free + used) // 2 if most_bytes is None else most_bytes
    wanted = f"they take {show_bytes(num_bytes)}"
    if num_bytes > allowed:
        raise OSError(f"{wanted}, and {show_bytes(allowed)} are allowed there")
    if most_bytes is not None and in_use + num_bytes > most_bytes:
        raise OSError(
            f"{wanted}, and sets in use have {show_bytes(in_use)} of the {show_bytes(most_bytes)} allowed there"
        )
    if free + used - in_use < num_bytes + SPARE_BYTES:
        raise OSError(f"{wanted}, and so much is not free there")
    # The disk may be fuller than what is allowed says.
    most_left = min(allowed - num_bytes, free + used - num_bytes - SPARE_BYTES)
    if used > most_left:
        with contextlib.suppress(DataError):
            num_gone, bytes_gone = clear_cache(whole - used + most_left, {keep, *(entry.folder for entry in staying)})
            if num_gone:
                sets = f"{num_gone:,} set{'s' * (num_gone != 1)} of decoded images"
                logger.info("Taken away for new ones: %s unused for longest, %s", sets, show_bytes(bytes_gone))
    if shutil.disk_usage(keep).free < num_bytes + SPARE_BYTES:
        raise OSError(f"{wanted}, and so much is not free there")


def shards_root() -> Path:
    """Where the indexes of tar shards are kept, beside decoded images."""
    return cache_root().parent / "shards"


def shard_indexes() -> tuple[int, int]:
    """How many tar shards have an index in the cache, and how many bytes these take."""
    sizes = [path.stat().st_size for path in _shard_files()]
    return len(sizes), sum(sizes)


def clear_shard_indexes() -> tuple[int, int]:
    """Take the indexes of tar shards away; how many, and how many bytes. Raises DataError where the disk refuses."""
    found = shard_indexes()
    for path in _shard_files():
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{path} cannot be taken away: {error.strerror or error}") from error
    return found


def _shard_files() -> list[Path]:
    return sorted(shards_root().glob("*.json"))


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
