"""Which columns of a table hold what, and which classes its labels stand for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vitrail.data.folders import SPLIT_FOLDERS
from vitrail.data.records import ReadOptions
from vitrail.data.table_files import Table
from vitrail.errors import ConfigError, DataError, some, suggest

IMAGE_NAMES = ("image", "img", "file_name", "filename", "file", "path", "filepath", "file_path", "image_path", "url")
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "fine_label")
SPLIT_NAME = "split"

_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_SUFFIX = re.compile(r".*\.(jpe?g|png|webp|tiff?|bmp|gif|heic|avif)", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """The names of the columns that are read; None for those that are not there, or not wanted."""

    image: str
    label: str
    split: str | None
    group: str | None

    def names(self) -> list[str]:
        """All that are text or numbers, each once."""
        return list(dict.fromkeys(name for name in (self.label, self.split, self.group) if name is not None))


def choose_columns(table: Table, options: ReadOptions, *, splits: bool) -> Columns:
    """The columns that `options` name, else those of known names; one of splits only where `splits` are to be read.

    Raises ConfigError for a column that is asked for and not there, DataError where no column or several may be meant.
    """
    split = options.split_column
    if split is None and splits:
        split = next((name for name in table.columns if name.lower() == SPLIT_NAME), None)
    return Columns(
        choose_image(table, options.image_column),
        _choose(table, LABEL_NAMES, options.label_column, "label"),
        None if split is None else _asked(table, split, "split"),
        None if options.group_column is None else _asked(table, options.group_column, "group"),
    )


def choose_image(table: Table, wanted: str | None = None) -> str:
    """The column of images: the one that is `wanted`, else one of a type that holds them, else one of a known name."""
    if wanted is None and table.encoded:
        named = [name for name in table.encoded if name.lower() in IMAGE_NAMES]
        return _only(table, named or list(table.encoded), "image")
    return _choose(table, IMAGE_NAMES, wanted, "image")


def _choose(table: Table, known: Sequence[str], wanted: str | None, kind: str) -> str:
    if wanted is not None:
        return _asked(table, wanted, kind)
    found = [name for name in table.columns if name.lower() in known]
    if found:
        return _only(table, found, kind)
    if _looks_like_data(table.columns):
        raise DataError(
            f"{table.path} has no line of column names, it begins with {', '.join(table.columns)!r}; "
            "let it begin with a line such as image,label"
        )
    columns = some(list(table.columns), 12)
    raise DataError(
        f"{table.path} has no column named {', '.join(known[:3])} or the like; its columns are {columns}: "
        f"say which holds the {kind}s with --set data.{kind}_column=NAME"
    )


def _asked(table: Table, wanted: str, kind: str) -> str:
    if wanted not in table.columns:
        raise ConfigError(
            f"{table.path} has no column {wanted!r}.{suggest(wanted, table.columns)} "
            f"Its columns are {some(list(table.columns), 12)}; choose one with --set data.{kind}_column=NAME"
        )
    return _only(table, [name for name in table.columns if name == wanted], kind)


def _only(table: Table, found: list[str], kind: str) -> str:
    if len(found) == 1:
        return found[0]
    if len({*found}) == 1:
        raise DataError(f"{table.path} has {len(found)} columns named {found[0]!r}; rename all but one")
    raise DataError(
        f"{table.path} has several columns that may hold the {kind}s, {', '.join(found)}; "
        f"say which with --set data.{kind}_column={found[0]}"
    )


def _looks_like_data(columns: Sequence[str]) -> bool:
    return any("://" in name or "/" in name or _SUFFIX.fullmatch(name) for name in columns)


def read_splits(table: Table, values: Sequence[Any], column: str) -> list[str]:
    """The split that each row is in: train, validation or test, by any of their usual names."""
    places = {value: SPLIT_FOLDERS.get(str(value).strip().lower()) for value in {*values}}
    wrong = [value for value, split in places.items() if split is None]
    if wrong:
        row = next(row for row, value in enumerate(values) if places[value] is None)
        what = "says nothing" if values[row] in (None, "") else f"says {values[row]!r}"
        raise DataError(
            f"{table.path}: {table.place(row)} {what} in the column {column!r}, "
            "where each row says train, validation or test"
        )
    return [places[value] or "" for value in values]


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of rows: `codes` are places in `names`, the different labels as texts; `rows` is the row of each code.

    `kinds` says of each whether it is a word, a number or a value (true, false). `several` says whether a row may have
    any number of labels; otherwise it has one.
    """

    names: list[str]
    kinds: list[str]
    codes: np.ndarray
    rows: np.ndarray
    num_rows: int
    several: bool

    def among(self, chosen: np.ndarray) -> Labels:
        """The labels that rows have for which `chosen`, bool (rows,), is true; rows keep their numbers."""
        kept = chosen[self.rows]
        codes, places = np.unique(self.codes[kept], return_inverse=True)
        own = codes.tolist()
        names, kinds = [self.names[code] for code in own], [self.kinds[code] for code in own]
        return Labels(names, kinds, places, self.rows[kept], self.num_rows, self.several)

    def row_of(self, code: int) -> int:
        """The first row with that label."""
        return int(self.rows[np.argmax(self.codes == code)])


def read_labels(table: Table, values: Sequence[Any], separator: str | None) -> Labels:
    """The labels of a column's values; with a `separator`, texts are split there into several.

    Raises DataError for rows without a label, and for values that name no class.
    """
    if separator is not None:
        values = [_split(value, separator) for value in values]
    several = any(isinstance(value, list) for value in values)
    known: dict[tuple[type, Any], int] = {}
    names: dict[tuple[str, str], int] = {}
    codes: list[int] = []
    rows: list[int] = []
    empty: list[int] = []
    for row, value in enumerate(values):
        if several and not isinstance(value, list):
            empty.append(row)
            continue
        for one in value if several else (value,):
            code = known.get((one.__class__, one)) if one.__class__ in (str, int, bool) else None
            if code is None:
                name = _name(table, row, one)
                if name is None:
                    empty.append(row)
                    continue
                code = names.setdefault(name, len(names))
                known[one.__class__, one] = code
            codes.append(code)
            rows.append(row)
    if empty:
        _refuse_empty(table, sorted({*empty}))
    pairs = list(names)
    labels = Labels(
        [name for name, _ in pairs],
        [kind for _, kind in pairs],
        np.array(codes, np.int64),
        np.array(rows, np.int64),
        len(values),
        several,
    )
    _check_kinds(table, labels)
    return labels


def _split(value: Any, separator: str) -> Any:
    if not isinstance(value, str):
        return [] if value is None else value
    return [part.strip() for part in value.split(separator) if part.strip()]


def _name(table: Table, row: int, value: Any) -> tuple[str, str] | None:
    """A label as text, and its kind; None where there is none."""
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return str(value), "value"
    if isinstance(value, str):
        text = value.strip()
        number = None if table.typed else _NUMBER.fullmatch(text)
        if number is None:
            return text, "word"
        if float(text).is_integer():
            return text if "." not in text else str(int(float(text))), "number"
    elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value)), "number"
    raise DataError(
        f"{table.path}: the label of {table.place(row)} is {value!s:.40}; "
        "a label is a class's name or whole number, or a list of these"
    )


def _refuse_empty(table: Table, rows: list[int]) -> None:
    more = f" and {len(rows) - 3:,} more" if len(rows) > 3 else ""
    raise DataError(
        f"{table.path}: {len(rows):,} row{'s have' if len(rows) > 1 else ' has'} no label "
        f"({', '.join(map(table.place, rows[:3]))}{more}); give each a label, or take it out of the table"
    )


def _check_kinds(table: Table, labels: Labels) -> None:
    """Raise DataError where labels of several kinds stand side by side: one of them is most likely a slip."""
    if len({*labels.kinds}) > 1:
        one = 0
        other = next(code for code, kind in enumerate(labels.kinds) if kind != labels.kinds[one])
        shown = [
            f"the {labels.kinds[code]} "
            + (f"{labels.names[code]!r}" if labels.kinds[code] == "word" else labels.names[code])
            for code in (one, other)
        ]
        advice = "" if table.typed else ", or write labels as texts into a table in JSON Lines"
        raise DataError(
            f"{table.path}: the label of {table.place(labels.row_of(one))} is {shown[0]}, that of "
            f"{table.place(labels.row_of(other))} {shown[1]}; "
            f"name all classes by words or all by whole numbers{advice}"
        )
    if "number" in labels.kinds and len({int(name) for name in labels.names}) < len(labels.names):
        twice = next(code for code, name in enumerate(labels.names) if str(int(name)) != name)
        raise DataError(
            f"{table.path}: the label of {table.place(labels.row_of(twice))} is {labels.names[twice]!r}, "
            f"and others are {str(int(labels.names[twice]))!r}; write a number in one way"
        )


def are_numbers(names: Sequence[str]) -> bool:
    """Whether all of these are whole numbers."""
    return all(_WHOLE.fullmatch(name) for name in names)


def classes_of(labels: Labels) -> tuple[str, ...]:
    """The different labels, numbers by their value, texts by their letters."""
    return tuple(sorted(labels.names, key=int) if are_numbers(labels.names) else sorted(labels.names))


def in_form_of_training(table: Table, labels: Labels, *, several: bool) -> Labels:
    """The labels of a table where those to train on, maybe of another table, are lists or not, as `several` says.

    One label is a list of one, and the other way round. Raises DataError for lists that are no single label.
    """
    if labels.several and not several:
        counts = np.bincount(labels.rows, minlength=labels.num_rows)
        wrong = np.flatnonzero(counts != 1).tolist()
        if wrong:
            raise DataError(
                f"{table.path}: {table.place(wrong[0])} has a list of {counts[wrong[0]]} labels, and each image to "
                "train on has one label; write one label for each image, or lists for those to train on too"
            )
    return replace(labels, several=several)


def encode_labels(table: Table, labels: Labels, classes: tuple[str, ...], *, named: bool) -> np.ndarray:
    """Labels as places in `classes`, int64 (N,), or 0 and 1 of (N, classes) where a row may have several.

    Where the classes are `named` elsewhere, numbers are places, and words names. Raises DataError for other labels.
    """
    places = {name: place for place, name in enumerate(classes)}
    by_place = named and "number" in labels.kinds
    if by_place and not table.typed:  # a number may be a name
        by_place = any(name not in places for name in labels.names)
    if by_place:
        places = {name: int(name) for name in labels.names if 0 <= int(name) < len(classes)}
    unknown = [code for code, name in enumerate(labels.names) if name not in places]
    if unknown:
        what = f"numbers from 0 to {len(classes) - 1}" if by_place else some(classes, 5)
        raise DataError(
            f"{table.path}: the label of {table.place(labels.row_of(unknown[0]))} is {labels.names[unknown[0]]!r}, "
            f"none of the {len(classes)} classes ({what})"
        )
    codes = np.array([places[name] for name in labels.names], np.int64)[labels.codes]
    if not labels.several:
        return codes
    marks = np.zeros((labels.num_rows, len(classes)), np.int64)
    marks[labels.rows, codes] = 1
    return marks
