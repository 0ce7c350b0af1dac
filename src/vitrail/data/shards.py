"""Tar shards in WebDataset naming as a Dataset: indexed once, then each image is read from its place in its shard."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from vitrail.data.dataset import Dataset
from vitrail.data.decoding import records_dataset
from vitrail.data.pixels import num_cores
from vitrail.data.records import ReadOptions, Records, Stamp
from vitrail.data.remote import is_url, shown_url
from vitrail.data.shard_catalog import Indexed, index_shards
from vitrail.data.shard_files import Shard, ShardReader
from vitrail.data.shard_index import Columns
from vitrail.data.shard_labels import ShardLabels, named_classes
from vitrail.data.shard_names import dataset_name, find_shards
from vitrail.errors import ConfigError, DataError

_ON_THIS_MACHINE = ("file://", "memory://", "local://")


def open_shards(
    data: str | Path, options: ReadOptions | None = None, name: str | None = None, classes: tuple[str, ...] = ()
) -> Dataset:
    """The data set of the shards that `data` names: a .tar, a pattern, a folder, or a URL of these.

    It is called `name`, else after what `data` says. Classes are named by a file classes.txt or dataset_info.json
    beside the shards, else by `classes`, else by the labels of the split to train on, whose shards are indexed at once;
    those of others are when they are read.
    Raises ConfigError for what does not exist, DataError for shards that are missing, damaged, or without labels.
    """
    options = options or ReadOptions()
    name, splits = name or dataset_name(data), find_shards(data)
    places = [place for listed in splits.values() for place in listed]
    if options.offline and any(is_url(place) and not place.startswith(_ON_THIS_MACHINE) for place in places):
        raise ConfigError(f"{_shown(str(data))} is not on this machine, and --offline is given; download it first")
    columns = Columns(options.image_column, options.label_column, options.group_column)

    @cache
    def read_indexes(split: str) -> list[Indexed]:
        return index_shards(splits[split], columns, options.num_workers or num_cores())

    source = "train" if "train" in splits else next(iter(splits))
    indexes = read_indexes(source)
    named, file = named_classes(splits[source][0])
    labels = ShardLabels.of(indexes, name, named or classes, file or f"the list of {name}")
    if columns.group is not None and not any(group for _, index in indexes for group in index.groups):
        raise ConfigError(
            f"data.group_column={columns.group}: no .json in the shards of {name} has a field of that name"
        )
    ignored = [
        f"{title}/{member}"
        for title, (_, index) in zip(_titles(splits[source]), indexes, strict=True)
        for member in index.ignored
    ]

    def records(split: str) -> Records:
        return _records(split, read_indexes(split), labels, _titles(splits[split]), columns)

    return records_dataset(
        name,
        labels.classes,
        {split: partial(records, split) for split in splits},
        options,
        ignored=tuple(ignored),
        multilabel=labels.several,
    )


def _records(
    split: str, indexes: Sequence[Indexed], labels: ShardLabels, titles: Sequence[str], columns: Columns
) -> Records:
    """The images of a split in the order of the shards and of what is in them, then those that cannot be used."""
    names = [f"{title}/{member}" for title, (_, index) in zip(titles, indexes, strict=True) for member in index.members]
    broken = [
        (f"{title}/{key}", reason)
        for title, (_, index) in zip(titles, indexes, strict=True)
        for key, reason in index.broken
    ]
    shards = [shard for shard, _ in indexes]
    shard_numbers = np.repeat(np.arange(len(indexes)), [len(index.members) for _, index in indexes])
    offsets = np.array([offset for _, index in indexes for offset in index.offsets], np.int64)
    sizes = np.array([size for _, index in indexes for size in index.sizes], np.int64)
    digests = [digest for _, index in indexes for digest in index.digests]
    reader = ShardReader()

    def read(index: int) -> bytes:
        if index >= len(digests):
            name, reason = broken[index - len(digests)]
            raise DataError(f"{name} cannot be used: {reason}")
        return reader.read(shards[shard_numbers[index]], int(offsets[index]), int(sizes[index]), digests[index])

    def stamp(index: int) -> Stamp:
        if index >= len(digests):
            return -1, 0, 0
        return int(sizes[index]), int(digests[index][:15], 16), int(digests[index][15:30], 16)

    groups = None
    if columns.group is not None:
        groups = [group or "" for _, index in indexes for group in index.groups] + [""] * len(broken)
    return Records(
        _key(shards, columns) + f"|{split}",
        names + [name for name, _ in broken],
        labels.array(indexes, len(broken)),
        read,
        stamp,
        groups,
        any(is_url(shard.place) for shard in shards),
    )


def _key(shards: Sequence[Shard], columns: Columns) -> str:
    places = [shard.place if is_url(shard.place) else os.path.realpath(shard.place) for shard in shards]
    digest = hashlib.sha256(json.dumps([places, columns.image, columns.label]).encode()).hexdigest()[:16]
    more = f" and {len(places) - 1:,} more" if len(places) > 1 else ""
    return f"{_shown(places[0])}{more}|{digest}"


def _titles(places: Sequence[str]) -> list[str]:
    """What each shard is called within a split: its name, with folders before it where names alone are not enough."""
    parts = [_shown(place).replace(os.sep, "/").split("/") for place in places]
    for count in range(1, max(map(len, parts)) + 1):
        titles = ["/".join(part[-count:]) for part in parts]
        if len({*titles}) == len(titles):
            return titles
    return [f"{number}/{part[-1]}" for number, part in enumerate(parts)]


def _shown(place: str) -> str:
    return shown_url(place) if is_url(place) else place
