"""Images as they are stored, in files, tables or shards: names, labels and how to get at the bytes of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitrail.data.pixels import num_cores
from vitrail.errors import DataError

NUM_REQUESTS = 16  # threads that read what is not on this machine: they wait rather than compute

Stamp = tuple[int, int, int]  # of a file: bytes, time of modification and of change in nanoseconds


class SourceError(DataError):
    """What holds many images is gone or was changed, which is no single image's fault: reading stops."""


def num_threads(wanted: int | None, remote: bool) -> int:
    """The threads that read images where `wanted` were asked for: no more than cores, unless they wait for others."""
    return max(wanted or 0, NUM_REQUESTS) if remote else min(wanted or num_cores(), num_cores())


@dataclass(frozen=True)
class ReadOptions:
    """What a user may say about reading data; None where nothing was said. The names are those of `data.` settings."""

    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    group: str | None = None
    label_separator: str | None = None
    num_workers: int | None = None
    serving: str = "auto"
    memory_gigabytes: float | None = None
    cache_gigabytes: float | None = None
    offline: bool = False


@dataclass(frozen=True, eq=False)
class Records:
    """The images of one split as they are stored; nothing is decoded.

    `labels` are int64 (N,), or 0 and 1 of (N, classes). `read` gives the encoded bytes of an image, or the path of its
    file, by its index, in any thread; it raises DataError, with the reason, for one that cannot be had, and
    SourceError where no more can be had. `stamp` gives what changes when that image changes, without reading it. `key`
    names the source among all sources of this machine, such as a folder's real path. Images of one of the `groups`
    belong into one split.
    `remote` says that reading waits for other machines.
    """

    key: str
    names: Sequence[str]
    labels: np.ndarray
    read: Callable[[int], bytes | Path] = field(repr=False)
    stamp: Callable[[int], Stamp] = field(repr=False)
    groups: Sequence[str] | None = field(default=None, repr=False)
    remote: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: Sequence[int]) -> Records:
        """The records at `indices`, as a source of its own."""
        places = [int(index) for index in indices]
        names = [self.names[place] for place in places]
        digest = hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return Records(
            f"{self.key}|{digest}",
            names,
            self.labels[places],
            lambda index: self.read(places[index]),
            lambda index: self.stamp(places[index]),
            None if self.groups is None else [self.groups[place] for place in places],
            self.remote,
        )
