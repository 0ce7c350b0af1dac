"""The classes of a set of tar shards: from a file beside them, else from the labels of the images to train on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.data.remote import MissingError, RefusedError, is_url, read_url, shown_url
from vitrail.data.shard_catalog import Indexed
from vitrail.data.shard_index import Label
from vitrail.errors import DataError

_CLASS_FILES = ("classes.txt", "classnames.txt", "dataset_info.json", "dataset-info.json")
_FEW = 20  # images that may all have labels of their own; more are taken for captions

Value = int | str  # a label as it stands in a shard


@dataclass(frozen=True)
class ShardLabels:
    """The classes, which of them each value of a label is, and whether images have lists of labels."""

    classes: tuple[str, ...]
    places: dict[Value, int]
    several: bool

    @classmethod
    def of(cls, indexes: Sequence[Indexed], name: str, named: Sequence[str], file: str) -> ShardLabels:
        """What the labels of these shards mean, where `file` gives the names `named` to the classes.

        Raises DataError where they are of several kinds, look like captions, or are none of the named classes.
        """
        first: dict[Value, str] = {}  # where each value stands first
        several: dict[bool, str] = {}
        count = sum(len(index.members) for _, index in indexes)
        for where, label in _labels(indexes):
            several.setdefault(isinstance(label, list), where)
            for value in _values(label):
                first.setdefault(value, where)
        if not first:
            raise _no_labels(indexes, name)
        if len(several) > 1:
            raise DataError(
                f"{several[True]} has a list of labels and {several[False]} has one label; write lists for all images"
            )
        numbers = sorted(value for value in first if isinstance(value, int))
        words = sorted(value for value in first if isinstance(value, str))
        if numbers and words and not all(str(number) in named for number in numbers):
            raise DataError(
                f"The labels of {name} mix numbers with words: {first[numbers[0]]} has {numbers[0]}, "
                f"{first[words[0]]} has {words[0]!r}; write all of them in one way"
            )
        if len(words) > max(_FEW, count // 2):
            raise DataError(
                f"The {count:,} images of {name} have {len(words):,} different labels, as captions would; say where "
                "the class stands, as --set data.label_column=NAME of a .json field or a suffix"
            )
        places = _places(named, bool(words)) if named else {value: i for i, value in enumerate([*numbers, *words])}
        for value, where in first.items():
            if value not in places:
                raise DataError(f"{where}: the label {value!r} is none of the {len(named):,} classes in {file}")
        return cls(tuple(named or map(str, places)), places, True in several)

    def array(self, indexes: Sequence[Indexed], num_broken: int) -> np.ndarray:
        """The labels of all images, int64 (N,), or 0 and 1 of (N, classes); 0 for the broken ones, which come last.

        Where those to train on have lists, one label is a list of one, and the other way round. Raises DataError for a
        label that they do not have, and for lists that are no single label where they have one each.
        """
        rows: list[list[int]] = []
        for where, label in _labels(indexes):
            values = _values(label)
            if len(values) != 1 and not self.several:
                raise DataError(
                    f"{where} has a list of {len(values)} labels, and each image to train on has one label; "
                    "write one label for each image, or lists for those to train on too"
                )
            for value in values:
                if value not in self.places:
                    raise DataError(f"{where}: the label {value!r} is none of the {len(self.classes):,} classes")
            rows.append([self.places[value] for value in values])
        if not self.several:
            return np.array([row[0] for row in rows] + [0] * num_broken, np.int64)
        array = np.zeros((len(rows) + num_broken, len(self.classes)), np.int64)
        for row, present in zip(array, rows, strict=False):
            row[present] = 1
        return array


def _places(named: Sequence[str], by_name: bool) -> dict[Value, int]:
    """The place of each value: a number is a place by itself, unless other labels are names."""
    if not by_name:
        return {place: place for place in range(len(named))}
    places: dict[Value, int] = {name: place for place, name in enumerate(named)}
    return places | {int(name): place for place, name in enumerate(named) if name.isdecimal()}


def _values(label: Label) -> Sequence[Value]:
    return label if isinstance(label, list) else [label]


def _labels(indexes: Sequence[Indexed]) -> Iterator[tuple[str, Label]]:
    for shard, index in indexes:
        for member, label in zip(index.members, index.labels, strict=True):
            yield f"{shard.shown}: {member}", label


def _no_labels(indexes: Sequence[Indexed], name: str) -> DataError:
    key, reason = next((one for _, index in indexes for one in index.broken), ("its images", "their lists are empty"))
    return DataError(
        f"No image of {name} has a label ({key}: {reason}); a shard holds 01.cls, or 01.json with a field label, "
        "beside 01.jpg, or --set data.label_column= names another suffix or field"
    )


def named_classes(place: str) -> tuple[list[str], str]:
    """The names of the classes in a file beside the shard at `place`, and which file; none where there is none.

    For shards in folders of their splits, on this machine, it may lie above these.
    """
    if is_url(place):
        folder = place.partition("?")[0].rpartition("/")[0]
        files = [f"{folder}/{name}" for name in _CLASS_FILES]
    else:
        folder = os.path.dirname(os.path.abspath(place))
        files = [os.path.join(above, name) for above in (folder, os.path.dirname(folder)) for name in _CLASS_FILES]
    for file in files:
        text = _read_text(file)
        names = [] if text is None else _class_names(text, file)
        if names:
            if len({*names}) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise DataError(f"{_shown(file)} names the class {twice!r} twice; each class has one line")
            return names, _shown(file)
    return [], ""


def _read_text(file: str) -> str | None:
    try:
        return (read_url(file) if is_url(file) else Path(file).read_bytes()).decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, MissingError, RefusedError):
        return None
    except UnicodeDecodeError as error:
        raise DataError(f"{_shown(file)} is no UTF-8; write it anew, a class a line") from error
    except OSError as error:
        raise DataError(f"{_shown(file)} cannot be read: {error.strerror or error}") from error


def _class_names(text: str, file: str) -> list[str]:
    if not file.endswith(".json"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{_shown(file)} cannot be read as JSON ({error}); mend it, or take it away") from error
    features = content.get("features") if isinstance(content, dict) else None
    label: Any = features.get("label") if isinstance(features, dict) else None
    names: Any = label.get("names") if isinstance(label, dict) else None
    if names is None and isinstance(content, dict):
        names = content.get("classes")
    return [str(name) for name in names] if isinstance(names, list) else []


def _shown(place: str) -> str:
    return shown_url(place) if is_url(place) else place
