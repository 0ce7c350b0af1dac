"""Tables as a Dataset: a row for each image, with its path, URL or bytes, its label, and if wanted split and group."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.dataset import Dataset
from vitrail.data.decoding import records_dataset
from vitrail.data.folders import SPLIT_FOLDERS
from vitrail.data.parquet import ParquetTable
from vitrail.data.records import ReadOptions, Records
from vitrail.data.table_columns import (
    Labels,
    choose_columns,
    choose_image,
    classes_of,
    encode_labels,
    in_form_of_training,
    read_labels,
    read_splits,
)
from vitrail.data.table_files import TEXT_SUFFIXES, DelimitedTable, JsonLinesTable, Table
from vitrail.data.table_images import Images, check_listed, encoded_images, first_of_copies, listed_images
from vitrail.errors import ConfigError, DataError, some

TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
_SPLIT_TABLE = re.compile(rf"({'|'.join(SPLIT_FOLDERS)})({'|'.join(map(re.escape, TEXT_SUFFIXES))})", re.IGNORECASE)
_ORDER = ("train", "validation", "test")

logger = logging.getLogger(__name__)


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its suffix."""
    return path.suffix.lower() in TABLE_SUFFIXES


def find_table_splits(folder: Path) -> dict[str, list[Path]]:
    """The tables train, validation (val, dev) and test in `folder`, CSV, TSV or JSON Lines; empty if there are none.

    Raises DataError where two are of one split.
    """
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _SPLIT_TABLE.fullmatch(path.name)
        if match and path.is_file():
            splits.setdefault(SPLIT_FOLDERS[match[1].lower()], []).append(path)
    for split, paths in splits.items():
        if len(paths) > 1:
            raise DataError(f"{folder} has several tables of {split}, {some([path.name for path in paths])}; keep one")
    return {split: splits[split] for split in _ORDER if split in splits}


def find_tables(folder: Path) -> list[Path]:
    """All tables in `folder`, by name."""
    return sorted(path for path in folder.iterdir() if is_table(path) and path.is_file())


def open_tables(
    files: Mapping[str, Sequence[Path]],
    name: str,
    classes: tuple[str, ...] = (),
    options: ReadOptions | None = None,
    *,
    grows: bool = True,
) -> Dataset:
    """The data set of these tables by split, "all" where none is known; a column of splits may then divide it.

    Class names are those that the files say, else `classes`, else the labels to train on. No other table is opened
    before its images are asked for. Raises ConfigError for columns that are not there, DataError for tables that cannot
    be used.
    """
    options = options or ReadOptions()
    if options.split_column is not None and "all" not in files:
        raise ConfigError(
            f"data.split_column={options.split_column} is for one table, and {name} has one for each of "
            f"{', '.join(files)}; leave it out"
        )

    @cache
    def rows_of(split: str) -> _Rows:
        return _read_rows(files[split], options, splits="all" in files)

    rows = rows_of("train" if "train" in files else next(iter(files)))
    published = [split for split in _ORDER if split in {*(rows.splits or ())}] or list(files)
    named = tuple(rows.class_names) or classes
    known = named or rows.classes()

    def records(split: str) -> Records:
        part = rows if rows.splits is not None else rows_of(split)
        return part.records(split, known, named=bool(named), several=rows.labels.several)

    return records_dataset(
        name,
        known,
        {split: partial(records, split) for split in published},
        options,
        grows=grows,
        multilabel=rows.labels.several,
    )


def list_table_images(path: Path) -> list[Path]:
    """The paths of the image files that a table lists, each once, in its order; they need not exist.

    Raises DataError for a table that cannot be used, ConfigError where its images are no files.
    """
    table = _open_table([path])
    column = choose_image(table)
    if column in table.encoded:
        raise ConfigError(f"{path} holds images as bytes; name image files, folders, or a table of paths")
    images = listed_images(table, column, table.read([column])[column])
    found: dict[Path, None] = {}
    for row in range(len(images.names)):
        place = images.path(row)
        if place is None:
            raise ConfigError(
                f"{path} lists URLs, as in {table.place(row)}; name image files, folders or a table of paths"
            )
        found[place] = None
    return list(found)


@dataclass(frozen=True, eq=False)
class _Rows:
    """What was read of a table: its images and labels, the rows that count, and the split and group of each row."""

    table: Table
    key: str
    images: Images
    labels: Labels
    kept: list[int]
    class_names: list[str]
    splits: list[str] | None
    groups: list[str] | None

    def classes(self) -> tuple[str, ...]:
        """The different labels of the rows to train on, of all where none are."""
        if self.splits is None or "train" not in self.splits:
            return classes_of(self.labels)
        return classes_of(self.labels.among(np.array([split == "train" for split in self.splits])))

    def records(self, split: str, classes: tuple[str, ...], *, named: bool, several: bool) -> Records:
        """The images of one split; `several` says whether those to train on may have any number of labels."""
        own = in_form_of_training(self.table, self.labels, several=several)
        labels = encode_labels(self.table, own, classes, named=named)
        rows = [row for row in self.kept if self.splits is None or self.splits[row] == split]
        check_listed(self.table, self.images, rows)
        images, groups = self.images, self.groups
        return Records(
            f"{self.key}|{split}",
            [images.names[row] for row in rows],
            labels[rows],
            lambda index: images.read(rows[index]),
            lambda index: images.stamp(rows[index]),
            None if groups is None else [groups[row] for row in rows],
        )


def _read_rows(paths: Sequence[Path], options: ReadOptions, *, splits: bool) -> _Rows:
    table = _open_table(paths)
    columns = choose_columns(table, options, splits=splits)
    is_encoded = columns.image in table.encoded
    values = table.read(columns.names() if is_encoded else [*columns.names(), columns.image])
    if not values[columns.label]:
        raise DataError(f"{table.path} holds no image: it has names of columns, and no row")
    labels = read_labels(table, values[columns.label], options.label_separator)
    split_of = None if columns.split is None else read_splits(table, values[columns.split], columns.split)
    if is_encoded:
        images = encoded_images([ParquetTable(path) for path in paths], columns.image)
    else:
        images = listed_images(table, columns.image, values[columns.image])
    kept = first_of_copies(table, images, labels, split_of)
    if len(kept) < len(images.names):
        count = len(images.names) - len(kept)
        logger.info(
            "%s", f"{table.path}: {count:,} rows name an image again, with the same label; each image counts once"
        )
    groups = None if columns.group is None else ["" if one is None else str(one) for one in values[columns.group]]
    key = "|".join([os.path.realpath(paths[0]), str(len(paths)), columns.image])
    return _Rows(table, key, images, labels, kept, table.class_names(columns.label), split_of, groups)


class _Shards:
    """Several tables of one folder as one."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self._num_rows: list[int] = []
        self.path = tables[0].path.parent
        self.columns, self.encoded, self.typed = tables[0].columns, tables[0].encoded, tables[0].typed
        self.class_names = tables[0].class_names

    def read(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """As `Table.read`."""
        parts = [table.read(names) for table in self._tables]
        self._num_rows = [len(part[names[0]]) for part in parts]
        return {name: [value for part in parts for value in part[name]] for name in names}

    def place(self, row: int) -> str:
        """As `Table.place`, once it was read."""
        for table, num_rows in zip(self._tables, self._num_rows, strict=True):
            if row < num_rows:
                return f"{table.place(row)} of {table.path.name}"
            row -= num_rows
        raise AssertionError(row)


def _open_table(paths: Sequence[Path]) -> Table:
    tables = [_open_file(path) for path in paths]
    return tables[0] if len(tables) == 1 else _Shards(tables)


def _open_file(path: Path) -> Table:
    if path.suffix.lower() == ".parquet":
        return ParquetTable(path)
    return DelimitedTable(path) if path.suffix.lower() in (".csv", ".tsv") else JsonLinesTable(path)
