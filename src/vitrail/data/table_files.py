"""Tables as text: CSV, TSV and JSON Lines, each column read as a list of values."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeVar

from vitrail.errors import DataError

T = TypeVar("T")

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Table(Protocol):
    """A file with a row for each image, and named columns."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """Their names, in order; a name may be there twice."""
        ...

    @property
    def encoded(self) -> Sequence[str]:
        """Those of a type that holds the bytes of images."""
        ...

    @property
    def typed(self) -> bool:
        """Whether texts and numbers are told apart."""
        ...

    def class_names(self, label: str) -> list[str]:
        """The names of the classes that the numbers in a column stand for, where the file says them."""
        ...

    def read(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """The values of these columns, one for each row; None, or empty text, where there is none."""
        ...

    def place(self, row: int) -> str:
        """Where a row is found by whoever opens the file, such as "line 7"."""
        ...


def check_columns(table: Table, names: Sequence[str]) -> None:
    """Raise DataError where a table lacks one of these columns, which others of its set have."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(f"{table.path} has no column {missing[0]!r}; its columns are {', '.join(table.columns)}")


class _TextTable:
    encoded: Sequence[str] = ()

    def class_names(self, label: str) -> list[str]:
        """As `Table.class_names`: text files say none."""
        return []


class DelimitedTable(_TextTable):
    """A CSV or TSV file, UTF-8 or UTF-16, with a line of column names. All values are text without spaces around it."""

    typed = False

    def __init__(self, path: Path) -> None:
        """Read the names of the columns. Raises DataError for a file that is empty or cannot be read as text."""
        self.path = path
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else _read(path, _find_delimiter)
        self.columns = [name.strip() for name in _read(path, lambda file: next(self._lines(file), []))]
        if not any(self.columns):
            raise DataError(f"{path} is empty; a table has a line of column names, and one for each image")

    def read(self, names: Sequence[str]) -> dict[str, list[str]]:
        """As `Table.read`. Raises DataError for lines with more or fewer fields than columns."""
        check_columns(self, names)
        places = [self.columns.index(name) for name in names]
        width = len(self.columns)

        def read(file: TextIO) -> dict[str, list[str]]:
            values: list[list[str]] = [[] for _ in names]
            ragged: list[str] = []
            for number, line in enumerate(self._lines(file)):
                if number and len(line) != width:
                    ragged.append("" if ragged else self._delimiter.join(line))
                elif number:
                    for place, column in zip(places, values, strict=True):
                        column.append(line[place].strip())
            if ragged:
                self._refuse(ragged)
            return dict(zip(names, values, strict=True))

        return _read(self.path, read)

    def place(self, row: int) -> str:
        """As `Table.place`."""
        return f"line {self._line_number(lambda number, _: number == row + 1)}"

    def _lines(self, file: TextIO) -> Iterator[list[str]]:
        """The fields of each line that has any."""
        for line in csv.reader(file, delimiter=self._delimiter, strict=True):
            if line:
                yield line

    def _line_number(self, wanted: Callable[[int, list[str]], bool]) -> int:
        """The number, in an editor, of the first line that is wanted, by its place among lines and its fields."""

        def find(file: TextIO) -> int:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            place, before = -1, 0
            for line in reader:
                place += bool(line)
                if line and wanted(place, line):
                    return before + 1
                before = reader.line_num
            return before

        return _read(self.path, find)

    def _refuse(self, ragged: list[str]) -> None:
        width = len(self.columns)
        number = self._line_number(lambda place, line: place > 0 and len(line) != width)
        count = f"{len(ragged):,} lines have" if len(ragged) > 1 else "1 line has"
        raise DataError(
            f"{self.path}: {count} not the {width} fields that the first line names, such as line {number}, "
            f"{ragged[0]!r}; put fields that hold a {self._delimiter!r} into double quotes"
        )


class JsonLinesTable(_TextTable):
    """A JSON Lines file, UTF-8 or UTF-16: an object a line, whose keys are the columns. Values are as JSON has them."""

    typed = True

    def __init__(self, path: Path) -> None:
        """Read the first object. Raises DataError for a file that is empty or holds something else."""
        self.path = path
        first = _read(path, lambda file: next(_json_lines(file), None))
        if first is None:
            raise DataError(f"{path} is empty; a table in JSON Lines has an object for each image, one a line")
        pairs = _parse(path, *first, pairs=True)
        self.columns = [key for key, _ in pairs]

    def read(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """As `Table.read`. Raises DataError for a line that is no object."""

        def read(file: TextIO) -> dict[str, list[Any]]:
            values: list[list[Any]] = [[] for _ in names]
            for number, line in _json_lines(file):
                row = _parse(self.path, number, line)
                for name, column in zip(names, values, strict=True):
                    column.append(row.get(name))
            return dict(zip(names, values, strict=True))

        return _read(self.path, read)

    def place(self, row: int) -> str:
        """As `Table.place`."""
        return _read(self.path, lambda file: f"line {[number for number, _ in _json_lines(file)][row]}")


def _json_lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """(number, line) of each line that is not empty."""
    return ((number, line) for number, line in enumerate(file, 1) if not line.isspace())


def _parse(path: Path, number: int, line: str, *, pairs: bool = False) -> Any:
    """The object of a line; with `pairs` as (key, value) pairs, so that doubled keys are seen."""
    try:
        value = json.loads(line, object_pairs_hook=_Pairs if pairs else None)
    except (json.JSONDecodeError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
        raise DataError(f"{path}: line {number} is no JSON ({reason}); each line holds one whole object") from None
    if not isinstance(value, _Pairs if pairs else dict):
        raise DataError(
            f"{path}: line {number} holds no JSON object; write one for each image, "
            'one a line, such as {"image": "a.jpg", "label": "ant"}'
        )
    return value


class _Pairs(list[tuple[str, Any]]):
    pass


def _read(path: Path, take: Callable[[TextIO], T]) -> T:
    """What `take` takes from the open file. Raises DataError where the file cannot be read as text."""
    encoding = _encoding(path)
    try:
        with path.open(encoding=encoding, newline="") as file:
            return take(file)
    except UnicodeError as error:
        raise _wrong_encoding(path, encoding) from error
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table: {error}; a quote may be opened and not closed") from error
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror or error}") from error


def _encoding(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror or error}") from error
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    if b"\0" in head:
        raise DataError(f"{path} is no text in UTF-8: it holds zero bytes; save the table as UTF-8")
    return "utf-8"


def _wrong_encoding(path: Path, encoding: str) -> DataError:
    if encoding == "utf-16":
        return DataError(f"{path} begins as UTF-16, and goes on as something else; save it as UTF-8")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return DataError(
                    f"{path} is not UTF-8: line {number} holds the byte 0x{line[error.start]:02x}; save it as UTF-8, "
                    "such as with iconv -f WINDOWS-1252 -t UTF-8"
                )
    return DataError(f"{path} is not UTF-8; save it as UTF-8")


def _find_delimiter(file: TextIO) -> str:
    """A comma, or what stands between the names of the columns where there is none."""
    line = next((line for line in file if not line.isspace()), "")
    return next((delimiter for delimiter in ",;\t" if delimiter in line), ",")
