"""The images that rows of a table stand for: files, URLs, or bytes in the table itself."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from vitrail.data.cache import stamp_of
from vitrail.data.parquet import EncodedImages, ParquetTable
from vitrail.data.records import Stamp
from vitrail.data.table_columns import Labels
from vitrail.data.table_files import Table
from vitrail.errors import DataError, some

NUM_LOOKED_FOR = 200  # images whose files are looked for when a table is opened

_SCHEMES = ("http", "https", "s3", "gs", "file")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://.+")
_DETOUR = re.compile(r"(^|/)\.{0,2}(/|$)")  # a path that may be written in a shorter way


@dataclass(frozen=True, eq=False)
class Images:
    """Images by row: names, and how to get at each; `identities` are equal where two rows are one image.

    `path` is where the file of a row is, whether there is one or not; None for what comes from elsewhere.
    """

    names: list[str]
    identities: list[str]
    path: Callable[[int], Path | None] = field(repr=False)
    read: Callable[[int], bytes | Path] = field(repr=False)
    stamp: Callable[[int], Stamp] = field(repr=False)


def listed_images(table: Table, column: str, values: Sequence[Any]) -> Images:
    """The images at these paths and URLs, called as they are written; paths begin at the table's folder.

    Raises DataError for rows without one, for relative paths that lead out of the folder, and for other kinds of URL.
    """
    base = table.path if table.path.is_dir() else table.path.parent
    _check_texts(table, column, values)
    names = [value.strip().replace("\\", "/") if "\\" in value else value.strip() for value in values]
    identities = [_identity(name) if _DETOUR.search(name) else name for name in names]
    _check_places(table, names, identities)

    def path(row: int) -> Path | None:
        if "://" not in names[row]:
            return base / names[row]
        address = urlsplit(names[row])
        return Path(url2pathname(address.path)) if address.scheme.lower() == "file" else None

    def read(row: int) -> bytes | Path:
        from vitrail.data.remote import read_url

        return path(row) or read_url(names[row])

    def stamp(row: int) -> Stamp:
        if "://" not in names[row]:  # of a million files; a Path takes longer than to look
            return stamp_of(os.path.join(base, names[row]))
        # What lies elsewhere is taken to stay as it is: to ask for each image would take as long as to fetch it.
        place = path(row)
        return (0, 0, 0) if place is None else stamp_of(place)

    return Images(names, identities, path, read, stamp)


def _identity(name: str) -> str:
    return name if "://" in name else os.path.normpath(name).replace(os.sep, "/")


def _check_texts(table: Table, column: str, values: Sequence[Any]) -> None:
    wrong = [row for row, value in enumerate(values) if not isinstance(value, str) or not value.strip()]
    if not wrong:
        return
    other = next((row for row in wrong if values[row] is not None and not isinstance(values[row], str)), None)
    if other is not None:
        raise DataError(
            f"{table.path}: the column {column!r} holds {values[other]!r:.40} in {table.place(other)}; "
            "an image is a path or a URL as text"
        )
    more = f" and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""
    raise DataError(
        f"{table.path}: {len(wrong):,} row{'s have' if len(wrong) > 1 else ' has'} no image in the column {column!r} "
        f"({', '.join(map(table.place, wrong[:3]))}{more}); name one in each row, or take the row out of the table"
    )


def _check_places(table: Table, names: list[str], identities: list[str]) -> None:
    outside = [row for row, place in enumerate(identities) if place == ".." or place.startswith("../")]
    if outside:
        raise DataError(
            f"{table.path}: {len(outside):,} path{'s lead' if len(outside) > 1 else ' leads'} out of the table's "
            f"folder, such as {names[outside[0]]} in {table.place(outside[0])}; put the table into a folder above "
            "the images, or write whole paths"
        )
    for row, name in enumerate(names):
        if "://" in name:
            match = _URL.fullmatch(name)
            if match is None or match[1].lower() not in _SCHEMES:
                raise DataError(
                    f"{table.path}: {name} in {table.place(row)} is no URL that can be read; "
                    f"use one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
                )


def check_listed(table: Table, images: Images, rows: Sequence[int]) -> None:
    """Raise DataError where most of the files are not there: then the paths are meant from elsewhere.

    A few that are missing are named, as broken, when images are read.
    """
    paths = [images.path(row) for row in rows[:: max(1, len(rows) // NUM_LOOKED_FOR)]]
    if sum(path is not None and not path.exists() for path in paths) * 2 <= len(paths):
        return
    absent = [row for row in rows if (path := images.path(row)) is not None and not path.exists()]
    raise DataError(
        f"{table.path}: {len(absent):,} of its {len(rows):,} images are not there "
        f"({some([images.names[row] for row in absent])}); a path is looked for from the table's folder, "
        f"the first as {images.path(absent[0])}"
    )


def encoded_images(tables: Sequence[ParquetTable], column: str) -> Images:
    """The images that lie in the tables as bytes, or at the paths beside them where the bytes are missing.

    They are called by these paths where each is another, else by their file and row.
    """
    files = EncodedImages([table.path for table in tables], column)
    stamps = [stamp_of(table.path) for table in tables]
    starts = np.cumsum([0, *(table.num_rows for table in tables)]).tolist()
    names: list[str | None] = []
    for table in tables:
        path = f"{column}.path"
        names += table.read([path])[path] if table.has_paths(column) else [None] * table.num_rows
    if None in names or len({*names}) < len(names):
        names = [
            f"{table.path.name}/{row:05d}"
            for table, (start, stop) in zip(tables, pairwise(starts), strict=True)
            for row in range(stop - start)
        ]

    def place(row: int) -> int:
        return int(np.searchsorted(starts, row, "right")) - 1

    def read(row: int) -> bytes | Path:
        value = files.read(row)
        if isinstance(value, bytes):
            return value
        table = tables[place(row)]
        if value is None or not (table.path.parent / value).is_file():
            raise DataError(
                f"row {row - starts[place(row)]} of {table.path} has no image bytes"
                + ("" if value is None else f", and {value} is not beside the file")
            )
        return table.path.parent / value

    shown = [str(name) for name in names]
    return Images(shown, shown, lambda _: None, read, lambda row: stamps[place(row)])


def first_of_copies(table: Table, images: Images, labels: Labels, splits: Sequence[str] | None) -> list[int]:
    """The rows whose image no earlier row of the same split has. Raises DataError where two rows have other labels."""
    if len({*images.identities}) == len(images.identities):
        return list(range(len(images.identities)))
    bounds = np.searchsorted(labels.rows, np.arange(labels.num_rows + 1))

    def codes(row: int) -> set[int]:
        return {*labels.codes[bounds[row] : bounds[row + 1]].tolist()}

    first: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    kept: list[int] = []
    for row, image in enumerate(images.identities):
        before = first.setdefault(image, row)
        if before != row and codes(before) != codes(row):
            shown = [" and ".join(labels.names[code] for code in sorted(codes(each))) for each in (before, row)]
            raise DataError(
                f"{table.path}: {images.names[row]} is {shown[0]!r} in {table.place(before)} and {shown[1]!r} in "
                f"{table.place(row)}; an image has one label, or a list of labels in JSON Lines or Parquet"
            )
        place = (image, "" if splits is None else splits[row])
        if place not in seen:
            seen.add(place)
            kept.append(row)
    return kept
