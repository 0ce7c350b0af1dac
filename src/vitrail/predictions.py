"""Prediction: what a classifier says about one image; and tables of them as CSV, JSON Lines or Parquet."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrail.checkpoint import write_atomically
from vitrail.errors import ConfigError

NUM_TOP = 5
NOT_SURE = "not sure"
GIVEN = 0.5  # a label is given above this probability, where an image may have several
SEPARATOR = "|"  # between labels in one cell of a CSV file; data.label_separator reads them back
FORMATS = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the most probable class, or what kept the image from being read.

    `top` holds the five most probable classes with their probabilities, best first. `sure` is False where the model's
    reject threshold says that the probability is too small to act on; without a threshold it is always True. Where
    `error` is set, `label` and `probability` are None and `top` is empty.

    Of a model that gives an image several labels, or none, `probabilities` are those of all classes, each for itself,
    and `labels` the classes above a half; `label` is the most probable class even where it is not.
    """

    image: str
    label: str | None
    probability: float | None
    top: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    sure: bool = True
    probabilities: Mapping[str, float] | None = field(default=None, hash=False)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels, the most probable first, of a model that gives several; None of another, or without an answer."""
        if self.probabilities is None:
            return None
        given = [(-probability, label) for label, probability in self.probabilities.items() if probability > GIVEN]
        return tuple(label for _, label in sorted(given, key=lambda pair: pair[0]))

    @property
    def decision(self) -> str | None:
        """The label to act on: `label`, or "not sure"; several as `sea, sky`; None without an answer."""
        if self.labels is not None:
            return ", ".join(self.labels)
        return self.label if self.sure else NOT_SURE

    def to_dict(self) -> dict[str, Any]:
        """The prediction as JSON has it."""
        top = [{"label": label, "probability": probability} for label, probability in self.top]
        several: dict[str, Any] = {}
        if self.probabilities is not None:
            several = {"labels": list(self.labels or ()), "probabilities": dict(self.probabilities)}
        return {
            "image": self.image,
            "label": self.label,
            "probability": self.probability,
            "top": top,
            "decision": self.decision,
            "sure": None if self.label is None else self.sure,
            "error": self.error,
            **several,
        }

    def _repr_html_(self) -> str:
        if self.error is not None:
            return f"<p><b>{html.escape(self.image)}</b>: {html.escape(self.error)}</p>"
        bars = "".join(
            f"<tr><td>{html.escape(label)}</td><td>{probability:.1%}</td>"
            f'<td style="width:12em">'
            f'<div style="background:#0072b2;height:.8em;width:{probability:.1%}"></div></td></tr>'
            for label, probability in self.top
        )
        caption = html.escape(self.image) + ("" if self.sure else f": {NOT_SURE}")
        return f"<table><caption>{caption}</caption>{bars}</table>"


def check_output(path: Path, what: str = "predictions") -> None:
    """Raise ConfigError unless `what` can be written to `path`: a known suffix in a folder that exists."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path} does not end in {', '.join(FORMATS)}; {what} are written as one of these")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} does not exist; make that folder first, or write elsewhere")


def write_predictions(path: Path, predictions: Sequence[Prediction], classes: Sequence[str] | None = None) -> None:
    """Write one row an image: image, label, probability, label_2 .. probability_5, decision, sure, error.

    With `classes`, those of a model that gives several labels: image, labels, probability_<class> of each, error.
    The suffix decides: .csv, .jsonl (each line as `Prediction.to_dict`) or .parquet. Raises ConfigError for another
    suffix, CheckpointError if the disk refuses; an old file is replaced whole or not at all.
    """
    check_output(path)
    if path.suffix.lower() == ".jsonl":
        write_json_lines(path, [prediction.to_dict() for prediction in predictions])
    elif classes is not None:
        columns = ["image", "labels", *(f"probability_{name}" for name in classes), "error"]
        write_rows(path, columns, [_row_of_several(prediction, classes) for prediction in predictions])
    else:
        write_rows(path, _columns(), [_row(prediction) for prediction in predictions])


def write_json_lines(path: Path, objects: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line. Raises CheckpointError if the disk refuses."""
    write_atomically(path, "".join(json.dumps(content, ensure_ascii=False) + "\n" for content in objects))


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a .csv or .parquet table of these columns. Raises CheckpointError if the disk refuses."""
    if path.suffix.lower() == ".parquet":
        write_parquet(path, {name: [row[name] for row in rows] for name in columns})
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: SEPARATOR.join(cell) if isinstance(cell, list) else cell for name, cell in row.items()})
    write_atomically(path, text.getvalue())


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    """Write named columns as Parquet; their names say what they hold, so that an empty column has its type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers, exact = ("probability", "score", "margin"), {"sure": pa.bool_()}
    exact |= dict.fromkeys(("labels", "predictions"), pa.list_(pa.string()))
    types = {
        name: pa.float64() if name.startswith(numbers) else exact[name] if name in exact else pa.string()
        for name in columns
    }
    table = pa.table({name: pa.array(map(storable, values), types[name]) for name, values in columns.items()})
    content = io.BytesIO()
    pq.write_table(table, content)
    write_atomically(path, content.getvalue())


def storable(value: Any) -> Any:
    """The value, text without what UTF-8 cannot hold: a file's name may be any bytes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _columns() -> list[str]:
    others = [name for rank in range(2, NUM_TOP + 1) for name in (f"label_{rank}", f"probability_{rank}")]
    return ["image", "label", "probability", *others, "decision", "sure", "error"]


def _row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_columns())
    row |= {"image": prediction.image, "label": prediction.label, "probability": prediction.probability}
    row |= {"decision": prediction.decision, "error": prediction.error}
    row["sure"] = None if prediction.label is None else prediction.sure
    for rank, (label, probability) in enumerate(prediction.top[1:NUM_TOP], start=2):
        row[f"label_{rank}"], row[f"probability_{rank}"] = label, probability
    return row


def _row_of_several(prediction: Prediction, classes: Sequence[str]) -> dict[str, Any]:
    labels, probabilities = prediction.labels, prediction.probabilities or {}
    row: dict[str, Any] = {"image": prediction.image, "labels": None if labels is None else list(labels)}
    return row | {f"probability_{name}": probabilities.get(name) for name in classes} | {"error": prediction.error}
