"""Embedding: the vectors that a model makes of many images, in memory or in a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.checkpoint import open_atomically
from vitrail.classifier import Classifier, Count, Embedded
from vitrail.engines.pytorch import TorchEngine
from vitrail.predictions import storable

GROUP_VALUES = 2**22  # numbers in memory before they are written: 16 MiB of float32


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The vectors of images: how many there are, how wide, and what could not be read.

    `rows` are all images in their order, those that could not be read without a vector; None where they were written
    to a file, so that a million of them take no memory.
    """

    num_images: int
    width: int
    unreadable: tuple[Embedded, ...] = ()
    rows: tuple[Embedded, ...] | None = None

    @property
    def vectors(self) -> np.ndarray:
        """The vectors (num_images, width) float32 of the images that could be read, in their order."""
        found = [row.vector for row in self.rows or () if row.vector is not None]
        return np.stack(found) if found else np.zeros((0, self.width), np.float32)


def embed_images(
    classifier: Classifier, paths: Sequence[Path], output: Path | None, report: Count | None = None
) -> Embeddings:
    """The vectors of image files, written to `output` if given, a .parquet, .jsonl or .csv file checked before.

    `report` hears how many images are done. Raises CheckpointError if the disk refuses; an old file is replaced whole
    or not at all.
    """
    width = len(classifier.embed(np.zeros((1, 1), np.uint8)))
    unreadable: list[Embedded] = []

    def counted() -> Iterator[Embedded]:
        for done, row in enumerate(classifier.embed_many(paths), start=1):
            if row.vector is None:
                unreadable.append(row)
            yield row
            if report is not None:
                report(done, len(paths))

    rows = None
    if output is None:
        rows = tuple(counted())
    else:
        _WRITERS[output.suffix.lower()](output, counted(), width, _origin(classifier))
    return Embeddings(len(paths) - len(unreadable), width, tuple(unreadable), rows)


def _origin(classifier: Classifier) -> dict[str, str]:
    """Which model, used in which way, vectors come from: two files of equal origin can be compared."""
    rows, columns = classifier.card.preprocess.image_size
    origin = {"model": classifier.card.model_name, "image_size": f"{rows}x{columns}"}
    if isinstance(classifier.engine, TorchEngine):
        origin["digest"] = classifier.engine.digest()
        origin["merge_tokens"] = str(getattr(classifier.engine.model, "merged_tokens", 0))
    return origin


def _groups(rows: Iterable[Embedded], width: int) -> Iterator[list[Embedded]]:
    waiting, size = iter(rows), max(1, GROUP_VALUES // width)
    while group := list(islice(waiting, size)):
        yield group


def _write_parquet(path: Path, rows: Iterable[Embedded], width: int, origin: dict[str, str]) -> None:
    """Columns image, content, embedding (so many float32), error; the origin in the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"image": pa.string(), "content": pa.string(), "embedding": pa.list_(pa.float32(), width)}
    schema = pa.schema({**types, "error": pa.string()}, {f"vitrail.{key}": value for key, value in origin.items()})
    with open_atomically(path) as file, pq.ParquetWriter(file, schema) as writer:
        for group in _groups(rows, width):
            columns = {
                "image": [storable(row.image) for row in group],
                "content": [row.content for row in group],
                "embedding": [row.vector for row in group],
                "error": [storable(row.error) for row in group],
            }
            writer.write_table(pa.table(columns, schema))


def _write_json_lines(path: Path, rows: Iterable[Embedded], width: int, origin: dict[str, str]) -> None:
    """An object a line: image, content, embedding, error."""
    with open_atomically(path) as file:
        for row in rows:
            vector = None if row.vector is None else row.vector.tolist()
            content = {"image": row.image, "content": row.content, "embedding": vector, "error": row.error}
            file.write((json.dumps(content, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def _write_csv(path: Path, rows: Iterable[Embedded], width: int, origin: dict[str, str]) -> None:
    """Columns image, content, error, embedding_0, embedding_1, ..."""
    with open_atomically(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "content", "error", *(f"embedding_{index}" for index in range(width))])
        for row in rows:
            values: list[Any] = [None] * width if row.vector is None else row.vector.tolist()
            writer.writerow([row.image, row.content, row.error, *values])
        text.flush()
        text.detach()


_WRITERS = {".parquet": _write_parquet, ".jsonl": _write_json_lines, ".csv": _write_csv}
