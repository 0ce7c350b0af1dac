"""Parquet files: tables whose images are paths, or bytes, as on the Hugging Face hub; these are read when asked for."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.flat_images import FlatImages, find_copy, make_copy
from vitrail.data.table_files import check_columns
from vitrail.errors import DataError

WINDOW_BYTES = 2**26  # of images, from the largest part of a file that is read at once
NUM_WINDOWS = 4  # that are kept, whichever threads read them
HELD_BYTES = NUM_WINDOWS * WINDOW_BYTES  # of images that are all kept, once they are read
NUM_JUMPS = 3  # back to what was read before, after which images are taken to be read in any order
JUMP = 1 / 16  # of all rows: threads that go through the rows together are less apart

_SPLIT_FILE = re.compile(r"(train|test|validation|valid|val|dev)(?:[-_.].*)?\.parquet")
_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_VALIDATION = ("validation", "valid", "val", "dev")

logger = logging.getLogger(__name__)


def find_parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files of each split, shards in order, in `folder`, its `data/`, or its only subfolder that has any.

    Empty if there are none. Raises DataError if a shard is missing.
    """
    places = [folder, folder / "data"]
    others = sorted(path for path in folder.iterdir() if path.is_dir() and path != places[1])
    found = [splits for splits in map(_splits_in, places) if splits]
    if not found:
        found = [splits for splits in map(_splits_in, others) if splits]
        if len(found) > 1:
            return {}
    return found[0] if found else {}


def _splits_in(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        return {}
    splits: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for path in sorted(folder.iterdir()):
        match = _SPLIT_FILE.fullmatch(path.name)
        if match:
            splits["validation" if match[1] in _VALIDATION else match[1]].append(path)
    for paths in splits.values():
        _check_shards(paths)
    return {split: paths for split, paths in splits.items() if paths}


def _check_shards(paths: list[Path]) -> None:
    shards = [match for match in (_SHARD.search(path.name) for path in paths) if match]
    if not shards:
        return
    present = sorted(int(shard[1]) for shard in shards)
    total = int(shards[0][2])
    if present != list(range(total)):
        missing = sorted(set(range(total)) - set(present))
        wrong = f"shard {missing[0]} is missing" if missing else "a shard is there twice"
        raise DataError(f"{paths[0].parent}: {wrong} of the {total} that belong to {paths[0].name}")


class ParquetTable:
    """A Parquet file as a table; `encoded` are its columns of images as bytes, alone or with a path beside them."""

    typed = True

    def __init__(self, path: Path) -> None:
        """Read what the file says of itself. Raises DataError for a file that is no Parquet file, or torn."""
        self.path = path
        with _opened(path) as file:
            self._schema = file.schema_arrow
            self.num_rows: int = file.metadata.num_rows
        self.columns: list[str] = list(self._schema.names)
        self.encoded = [field.name for field in self._schema if _holds_bytes(field.type)]

    def class_names(self, label: str) -> list[str]:
        """The names of the classes that the numbers in a column stand for, as `datasets` writes them; empty if none."""
        try:
            metadata = json.loads((self._schema.metadata or {})[b"huggingface"])
            feature = metadata["info"]["features"][label]
            names = feature["names"] if "names" in feature else feature["feature"]["names"]
        except (KeyError, TypeError, ValueError):
            return []
        return [str(name) for name in names] if isinstance(names, list) else []

    def read(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """The values of these columns; "column.field" is one field of a column that has some. Raises DataError."""
        import pyarrow as pa

        check_columns(self, [name if name in self.columns else name.partition(".")[0] for name in names])
        with _opened(self.path) as file:
            try:
                return {name: self._column(file, name) for name in names}
            except (pa.ArrowException, OSError) as error:
                raise _damaged(self.path, ", ".join(names)) from error

    def _column(self, file: Any, name: str) -> list[Any]:
        column = file.read(columns=[name])
        parts = [] if name in self.columns else name.split(".")[1:]
        values: list[Any] = column.column(0).to_pylist()
        for part in parts:
            values = [None if value is None else value[part] for value in values]
        return values

    def has_paths(self, column: str) -> bool:
        """Whether a column of images has paths beside the bytes."""
        kind = self._schema.field(column).type
        return any(field.name == "path" for field in (kind if kind.num_fields else ()))

    def place(self, row: int) -> str:
        """Where a row is found: Parquet files are looked at by the number of the row, from 0."""
        return f"row {row}"


@dataclass(frozen=True)
class _Group:
    """One row group of one file: its rows among those of all files, and how many bytes its images take.

    `first` is where the rows of its file begin.
    """

    path: Path
    first: int
    number: int
    start: int
    stop: int
    num_bytes: int


@dataclass(frozen=True)
class _Window:
    """Rows that are in memory: the bytes of each image, or the path that stands in their place."""

    start: int
    stop: int
    values: list[bytes | str | None]


class EncodedImages:
    """The bytes of all images in a column of some Parquet files, read in parts, of which the last few are kept.

    Going through the rows more or less in their order, in any number of threads, reads each file once. For rows in any
    order, files too large to be kept are copied into the cache, where each image is found at once.
    """

    def __init__(self, paths: Sequence[Path], column: str) -> None:
        """Learn where the row groups of the files are. Raises DataError for a file that cannot be read."""
        self._column = column
        self._groups: list[_Group] = []
        self._windows: list[_Window] = []
        self._damaged: set[_Group] = set()
        self._stream: tuple[_Group, int, Iterator[Any]] | None = None  # of a large group: what comes next, from where
        self._lock = threading.Lock()
        self._copies: dict[Path, FlatImages | None] = {}  # None where there can be none
        self._last_loaded, self._num_jumps = 0, 0
        for path in paths:
            first = len(self)
            with _opened(path) as file:
                for number in range(file.metadata.num_row_groups):
                    self._groups.append(self._describe(path, first, number, file.metadata.row_group(number)))
        self._ends = np.array([group.stop for group in self._groups], np.int64)
        self._is_held = sum(group.num_bytes for group in self._groups) <= HELD_BYTES
        if not self._is_held:
            found = {path: find_copy(path, column, self._num_rows(path)) for path in paths}
            self._copies.update({path: copy for path, copy in found.items() if copy is not None})

    def _describe(self, path: Path, first: int, number: int, group: Any) -> _Group:
        start = len(self)
        chunks = (group.column(place) for place in range(group.num_columns))
        own = (chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] == self._column)
        num_bytes = sum(chunk.total_uncompressed_size for chunk in own)
        return _Group(path, first, number, start, start + group.num_rows, num_bytes)

    def _groups_of(self, path: Path) -> list[_Group]:
        """The row groups of a file; of one that is named twice, those of the first time."""
        groups = [group for group in self._groups if group.path == path]
        return [group for group in groups if group.first == groups[0].first]

    def _num_rows(self, path: Path) -> int:
        return sum(group.stop - group.start for group in self._groups_of(path))

    def __len__(self) -> int:
        return self._groups[-1].stop if self._groups else 0

    def read(self, row: int) -> bytes | str | None:
        """The bytes of an image; the path that stands in their place, or None, where there are none.

        Raises DataError for a part of a file that is damaged.
        """
        group = self._groups[int(np.searchsorted(self._ends, row, "right"))]
        copy = self._copies.get(group.path)
        if copy is None:
            with self._lock:
                for window in reversed(self._windows):
                    if window.start <= row < window.stop:
                        return window.values[row - window.start]
                self._note(row)
                if self._num_jumps >= NUM_JUMPS and group.path not in self._copies:
                    self._copies[group.path] = self._copy(group.path)
                copy = self._copies.get(group.path)
                if copy is None:
                    window = self._load(group, row)
                    return window.values[row - window.start]
        return copy.read(row - group.first)

    def _note(self, row: int) -> None:
        """Count how often rows are read that lie before others; beginning again with the first is another pass."""
        if not self._is_held and JUMP * len(self) <= row < self._last_loaded - JUMP * len(self):
            self._num_jumps += 1
        self._last_loaded = row

    def _copy(self, path: Path) -> FlatImages | None:
        import pyarrow as pa

        self._windows, self._stream = [], None  # their memory
        groups = self._groups_of(path)
        num_bytes = sum(group.num_bytes for group in groups)
        parts = (_values(batch.column(0)) for group in groups for batch in self._batches(group))
        try:
            return make_copy(path, self._column, self._num_rows(path), num_bytes, parts)
        except pa.ArrowException as error:
            reason = f"it is damaged ({str(error).splitlines()[0]})" if str(error) else "it is damaged"
        except OSError as error:
            reason = str(error.strerror or error)
        logger.warning("The images of %s are not copied, so reading them in any order is slow: %s", path, reason)
        return None

    def _load(self, group: _Group, row: int) -> _Window:
        import pyarrow as pa

        if group in self._damaged:
            raise _damaged(group.path, self._column)
        try:
            window = self._load_whole(group) if group.num_bytes <= WINDOW_BYTES else self._load_next(group, row)
        except (pa.ArrowException, OSError) as error:
            self._stream = None
            self._damaged.add(group)
            raise _damaged(group.path, self._column) from error
        return window

    def _keep(self, start: int, column: Any) -> _Window:
        window = _Window(start, start + len(column), _values(column))
        self._windows = [*(self._windows if self._is_held else self._windows[1 - NUM_WINDOWS :]), window]
        return window

    def _load_whole(self, group: _Group) -> _Window:
        with _opened(group.path) as file:
            column = file.read_row_group(group.number, columns=[self._column]).column(0)
        return self._keep(group.start, column)

    def _load_next(self, group: _Group, row: int) -> _Window:
        """Go on in a group that is too large for memory, or begin it again for a row that is left behind."""
        if self._stream is None or self._stream[0] != group or self._stream[1] > row:
            self._stream = group, group.start, self._batches(group)
        while True:
            _, start, batches = self._stream
            column = next(batches).column(0)
            self._stream = group, start + len(column), batches
            window = self._keep(start, column)
            if row < window.stop:
                return window

    def _batches(self, group: _Group) -> Iterator[Any]:
        size = max(1, (group.stop - group.start) * WINDOW_BYTES // group.num_bytes)
        with _opened(group.path, buffer_size=2**20) as file:
            yield from file.iter_batches(size, [group.number], [self._column])


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    binary = (pa.binary(), pa.large_binary(), pa.binary_view())
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and field.type in binary for field in kind)
    return kind in binary


def _values(column: Any) -> list[bytes | str | None]:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_struct(column.type):
        return column.to_pylist()
    fields = {field.name: place for place, field in enumerate(column.type)}
    flat = column.flatten()
    values = flat[fields["bytes"]].to_pylist()
    if "path" in fields and None in values:
        paths = flat[fields["path"]].to_pylist()
        values = [path if value is None else value for value, path in zip(values, paths, strict=True)]
    return values


def _opened(path: Path, **options: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, **options)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read; download or write it again") from error


def _damaged(path: Path, column: str) -> DataError:
    return DataError(f"{path} is damaged: its column {column!r} cannot be read; download or write it again")
