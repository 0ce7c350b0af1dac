"""What a run's own files say of it, for its report and its model card.

A file that is missing or damaged keeps nothing else from being told: `missing` says what is. No path of this machine
gets any further than here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.checkpoint import ModelCard, read_card
from vitrail.data.audit import Audit
from vitrail.data.findings import Finding
from vitrail.data.splits import Splits, read_splits
from vitrail.errors import VitrailError
from vitrail.reporting.report_paths import known_places, shown_source, without_names, without_paths
from vitrail.runs import RunDirectory, read_json_lines

UNREADABLE = (VitrailError, OSError, KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
"""What reading a damaged file of a run, or one of another version, may raise."""
BROKEN = (*UNREADABLE, RuntimeError, MemoryError)
"""What a model may raise besides, such as for want of memory."""
_NEEDED = frozenset({"images", "accuracy", "accuracy_ci95", "loss", "ece", "per_class"})  # of a split's results


@dataclass(frozen=True, eq=False)
class RunFacts:
    """All that the files of a run say; what they do not say is None or empty, and `missing` names it.

    `result` is what `vitrail train` printed, None of a run that has not finished. `counts` are the images of each
    split, None where not known, and `class_counts` those to train on by class. `steps` and `evaluations` are the lines
    of metrics.jsonl.
    """

    name: str
    dataset: str
    config: Mapping[str, Any]
    card: ModelCard | None
    result: Mapping[str, Any] | None
    environment: Mapping[str, Any]
    splits: Splits | None
    audit: Audit | None
    counts: Mapping[str, int | None]
    class_counts: tuple[int, ...] | None
    steps: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Mapping[str, Any], ...]
    missing: tuple[str, ...]
    places: tuple[str, ...] = ()
    """the folders and files of this machine that the run is in and was made from, which nobody else is to read"""

    def told(self, sentence: str) -> str:
        """A sentence as others may read it: without the places, or any other path, of this machine."""
        return without_paths(sentence, self.places)

    def nameless(self) -> RunFacts:
        """The same without the names of the data's files: those that the audit found something with are numbered."""
        return self if self.audit is None else replace(self, audit=_nameless(self.audit))

    @property
    def split(self) -> str | None:
        """The split that the run is judged by: test, else validation; None of a run that has not finished."""
        return next((name for name in ("test", "validation") if name in (self.result or {})), None)

    @property
    def judged(self) -> Mapping[str, Any]:
        """The results of that split, empty where there are none."""
        return {} if self.split is None or self.result is None else self.result[self.split]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, as far as any file says them."""
        if self.card is not None:
            return self.card.classes
        if self.splits is not None:
            return self.splits.classes
        return tuple(str(row["class"]) for row in self.judged.get("per_class", ()))

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.card.multilabel if self.card is not None else "label_accuracy" in self.judged

    @property
    def model_name(self) -> str:
        """The model's name, "" where no file says it."""
        return str(self.config.get("model_name") or (self.result or {}).get("model") or "")


def read_facts(directory: RunDirectory) -> RunFacts:
    """The facts of a run, by its files alone; raises nothing."""
    missing: list[str] = []

    def told(read: Callable[[], Any], sentence: str, default: Any = None) -> Any:
        try:
            return read()
        except UNREADABLE:
            missing.append(sentence)
            return default

    config = told(lambda: _object(directory.config_path), "config.json is damaged: settings are not known", {})
    splits = told(
        lambda: read_splits(directory.splits_path), "splits.json is missing or damaged: the splits are not known"
    )
    audit = None
    if directory.audit_path.is_file():
        audit = told(lambda: _audit(_object(directory.audit_path)), "audit.json is damaged: its findings are not known")
    environment = told(
        lambda: _object(directory.environment_path),
        "environment.json is missing or damaged: versions and hardware are not known",
        {},
    )
    result = told(directory.result, "journal.jsonl is damaged: the results are not known")
    if result is not None and not _complete(result):
        missing.append("journal.jsonl holds no results as this version writes them: they are not known")
        result = None
    lines = told(lambda: list(read_json_lines(directory.metrics_path)), "", [])
    if not lines:
        missing.append("metrics.jsonl is missing or empty: how training went is not known")
    card = told(
        lambda: read_card(directory.path), "model.json is missing or damaged: what the model takes is not known"
    )
    counts = _counts(splits, result or {})
    return RunFacts(
        name=directory.path.resolve().name,
        dataset=shown_source(str((result or {}).get("dataset") or getattr(splits, "dataset", "") or "")),
        config=config,
        card=card,
        result=result,
        environment=environment,
        splits=splits,
        audit=audit,
        counts=counts,
        class_counts=None if splits is None else _class_counts(splits),
        steps=tuple(line for line in lines if "step" in line and "loss" in line),
        evaluations=tuple(line for line in lines if line.get("split") == "validation" and "accuracy" in line),
        missing=tuple(sentence for sentence in missing if sentence),
        places=_places(directory, config),
    )


def _places(directory: RunDirectory, config: Mapping[str, Any]) -> tuple[str, ...]:
    data = config.get("data")
    data = data if isinstance(data, dict) else {}
    also = data.get("also")
    named = [data.get("source"), *(also if isinstance(also, list) else ()), data.get("corrections")]
    return known_places([str(directory.path), *(str(place) for place in (*named, config.get("init")) if place)])


def _complete(result: object) -> bool:
    """Whether a result says of each split what is told of it."""
    if not isinstance(result, dict) or not isinstance(result.get("validation"), dict):
        return False
    splits = [result[name] for name in ("test", "validation") if name in result]
    return all(isinstance(split, dict) and split.keys() >= _NEEDED and split["per_class"] for split in splits)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or what it is called."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(path.name)
    return content


def _audit(content: Mapping[str, Any]) -> Audit:
    """The audit that `Audit.to_dict` wrote."""
    classes = tuple(content["classes"])
    return Audit(
        dataset=content["dataset"],
        classes=classes,
        counts={split: tuple(found[name] for name in classes) for split, found in content["counts"].items()},
        num_images=content["num_images"],
        broken={
            split: tuple((file["image"], file["reason"]) for file in files)
            for split, files in content["broken"].items()
        },
        ignored=tuple(content["ignored"]),
        findings=tuple(
            Finding(found["kind"], found["split"], tuple(found["images"]), found["sentence"], found["details"])
            for found in content["findings"]
        ),
        statistics=content.get("statistics", {}),
        notes=tuple(content.get("notes", ())),
    )


def _nameless(audit: Audit) -> Audit:
    names = [name for finding in audit.findings for name in finding.images]
    names += [name for files in audit.broken.values() for name, _ in files] + [*audit.ignored]
    numbered = {name: f"file {place}" for place, name in enumerate(dict.fromkeys(names), start=1)}
    findings = [
        replace(
            finding,
            images=tuple(numbered[name] for name in finding.images),
            sentence=without_names(finding.sentence, {name: numbered[name] for name in finding.images}),
        )
        for finding in audit.findings
    ]
    broken = {
        split: tuple((numbered[name], without_names(reason, {name: numbered[name]})) for name, reason in files)
        for split, files in audit.broken.items()
    }
    ignored = tuple(numbered[name] for name in audit.ignored)
    notes = tuple(without_names(note) for note in audit.notes)
    return replace(audit, findings=tuple(findings), broken=broken, ignored=ignored, notes=notes)


def _counts(splits: Splits | None, result: Mapping[str, Any]) -> dict[str, int | None]:
    """How many images each split has, None where the run does not say."""
    counts: dict[str, int | None] = {}
    for name, part in ({} if splits is None else splits.parts).items():
        known = part.indices if part.members is None else part.members.names
        counts[name] = None if known is None else len(known)
    for name in ("validation", "test"):
        if counts.get(name) is None and isinstance(result.get(name), dict):
            counts[name] = result[name].get("images")
    return counts


def _class_counts(splits: Splits) -> tuple[int, ...] | None:
    """The training images of each class, where their labels are in the splits; an image may count for several."""
    members = splits.parts["train"].members
    if members is None:
        return None
    flat = [place for label in members.labels for place in ((label,) if isinstance(label, int) else label)]
    return tuple(np.bincount(np.array(flat, np.int64), minlength=len(splits.classes)).tolist())


def settings_table(
    config: Mapping[str, Any], places: Sequence[str] = (), prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Every setting of a config.json with its value, keys dotted, paths by their last part."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from settings_table(value, places, f"{prefix}{key}.")
        elif prefix + key in ("data.source", "init") and isinstance(value, str):
            yield prefix + key, shown_source(value)
        elif isinstance(value, list):
            yield prefix + key, ", ".join(without_paths(str(part), places) for part in value) or "none"
        else:
            yield prefix + key, "none" if value is None else without_paths(str(value), places)
