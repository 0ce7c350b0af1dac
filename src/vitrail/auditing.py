"""Auditing: what is wrong with a data set, labels included, and the files that say so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.classifier import Count
from vitrail.config import RunConfig, settings_of
from vitrail.data.audit import Audit, read_all
from vitrail.data.corrections import Corrections
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.drawing import draw_folds
from vitrail.data.findings import Finding
from vitrail.data.full_audit import audit_fully
from vitrail.data.preprocess import Preprocess
from vitrail.data.splits import fingerprint, read_splits
from vitrail.data.units import units_of
from vitrail.errors import ConfigError, some
from vitrail.evaluation.label_issues import LabelIssue, find_label_issues, out_of_fold
from vitrail.evaluation.patch_features import patch_features
from vitrail.loading import Source, find_source
from vitrail.preparation import Request, data_to_audit
from vitrail.reading import READ_SETTINGS
from vitrail.reporting.audit_corrections import check_new_file, propose_corrections
from vitrail.reporting.audit_report import write_audit_report
from vitrail.reporting.pages import check_report_path
from vitrail.runs import RunDirectory

# What says how images are read, and how a model sees them.
SETTINGS = (*READ_SETTINGS, "data.fit", "data.crop_rate", "model.image_size", "model.patch_size", "model.in_chans")
NUM_FOLDS = 5
# Images times classes and ten more, which is what a logistic regression's time goes with: about a minute on two cores.
MOST_WORK = 400_000
LEAST_GAIN = 0.2  # of what always naming the commonest class gets wrong, that predictions must get right to be heard
MOST_TOLD_RATIO = 1000
LEAST_AGREEMENT = 0.9  # part of the labels; below, half of what is suspected was no fault, or more, in benchmarks


@dataclass(frozen=True)
class AuditWishes:
    """What to do besides looking at images, as the parameters of `vitrail.audit` say."""

    model: str | Path | None = None
    labels: bool | None = None
    html: Path | None = None
    write_corrections: Path | None = None
    preview: int | None = None

    def check(self) -> None:
        """Raise ConfigError for what cannot be done, before any image is read."""
        if self.model is not None and self.labels is False:
            raise ConfigError("A model is for the check of labels, which is left out; leave one of the two out")
        if self.preview is not None and self.preview < 1:
            raise ConfigError(f"preview={self.preview} is not possible; draw 1 image or more")
        if self.html is not None:
            check_report_path(self.html)
        if self.write_corrections is not None:
            check_new_file(self.write_corrections)


@dataclass(frozen=True)
class FullAudit(Audit):
    """An audit, and the files that were `written`: what each is, and its path."""

    written: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON has it."""
        return super().to_dict() | {"written": dict(self.written)}


def audit_data(asked: Request, wishes: AuditWishes, device: str = "auto", report: Count | None = None) -> FullAudit:
    """The audit of the data that is asked for. Raises as `vitrail.audit` does."""
    wishes.check()
    _check_settings(asked.settings or {})
    source = None if wishes.model is None else find_source(wishes.model)
    dataset, preprocess, lines = data_to_audit(asked)
    found = audit_fully(dataset, preprocess, report)
    images = read_all(dataset, preprocess)
    if wishes.labels is not False:
        check, forced = LabelCheck(dataset, preprocess, images), bool(wishes.labels)
        found = check.run(source, device, asked.offline, forced=forced, report=report).added_to(found)
    return _written(found, dataset, preprocess, images, wishes, lines)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for settings that change nothing about an audit; names that are none are told of later."""
    known = {setting.key for setting in settings_of(RunConfig(recipe="", model_name=""))}
    for key in settings:
        if key in known and key not in SETTINGS:
            raise ConfigError(f"{key} changes nothing about an audit; what does is {', '.join(SETTINGS)}")


def _written(
    found: Audit,
    dataset: Dataset,
    preprocess: Preprocess,
    images: Mapping[str, ImageSet],
    wishes: AuditWishes,
    before: Corrections | None,
) -> FullAudit:
    """The audit with the files that were asked for."""
    written: dict[str, str] = {}
    notes: list[str] = []
    picture = None
    if wishes.preview is not None:
        from vitrail.reporting.preview import write_preview

        folder = Path() if wishes.html is None else wishes.html.parent
        picture = folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', dataset.name)}-preview.png"
        _, unread = write_preview(dataset, preprocess, wishes.preview, picture)
        written["preview"] = str(picture)
        if unread:
            notes.append(f"Not drawn, as {'it' if len(unread) == 1 else 'they'} cannot be read: {some(unread)}")
    if wishes.write_corrections is not None:
        proposed = propose_corrections(found, images, before)
        if proposed.num_active:
            proposed.write(wishes.write_corrections)
            written["corrections"] = str(wishes.write_corrections)
        notes.append(proposed.note(wishes.write_corrections))
    if wishes.html is not None:
        headers = {} if dataset.headers is None else {split: dataset.headers(split) for split in images}
        write_audit_report(found.with_findings((), notes), images, wishes.html, headers, picture)
        written["html"] = str(wishes.html)
    found = found.with_findings((), notes)
    return FullAudit(**{known.name: getattr(found, known.name) for known in fields(Audit)}, written=written)


class CheckedLabels:
    """What a check of labels found: `findings`, `notes` on how or why not, and `facts` for the audit's statistics."""

    def __init__(self, *notes: str, findings: tuple[Finding, ...] = (), facts: Mapping[str, Any] | None = None) -> None:
        self.notes = notes
        self.findings = findings
        self.facts = facts

    def added_to(self, audit: Audit) -> Audit:
        """The audit with what was found."""
        statistics = {**audit.statistics, "label_check": None if self.facts is None else dict(self.facts)}
        return replace(audit.with_findings(self.findings, self.notes), statistics=statistics)


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """The check of a data set's labels."""

    dataset: Dataset
    preprocess: Preprocess
    images: Mapping[str, ImageSet]

    def run(
        self, source: Source | None, device: str, offline: bool, *, forced: bool = False, report: Count | None = None
    ) -> CheckedLabels:
        """The labels that are probably wrong, and how they were looked for, or why they were not.

        Images are told apart by the vectors of the model that `source` names, else by those of a small model of pixels.
        Where that takes long it is done only if `forced`, or if a model was named.
        """
        total, num_classes = sum(map(len, self.images.values())), len(self.dataset.classes)
        if self.dataset.multilabel:
            return CheckedLabels("Labels were not checked, as an image may have several here")
        if total * (num_classes + 10) > MOST_WORK and not forced and source is None:
            return CheckedLabels(
                f"Labels were not checked, as {total:,} images of {num_classes:,} classes take more than about a "
                "minute; --labels checks them"
            )
        labels = np.concatenate([found.labels for found in self.images.values()])
        units = [unit for own in units_of(self.dataset.name, self.images).values() for unit in own]
        kept, few = self._enough(labels, units)
        if len(np.unique(labels[kept])) < 2:
            return CheckedLabels(
                f"Labels were not checked: that takes two classes of {NUM_FOLDS} different images or more each"
            )
        classes, own = np.unique(labels[kept], return_inverse=True)
        own = own.astype(np.int64)
        folds = draw_folds(own, [units[index] for index in kept.tolist()], NUM_FOLDS, seed=0)
        vectors, said, notes = self._vectors(source, device, offline, report)
        probabilities = out_of_fold(vectors[kept], own, folds, report)
        agreement = float((probabilities.argmax(axis=1) == own).mean())
        told = (
            f"Labels were compared with out-of-fold predictions from {said}, which agree with {agreement:.1%} of them"
        )
        largest = float(np.bincount(own).max() / len(own))
        found: tuple[Finding, ...] = ()
        if agreement - largest < LEAST_GAIN * (1 - largest):
            told += f"; that is too little to suspect any{'' if source else ', and --model may know better'}"
        else:
            found = tuple(self._finding(issue, kept, classes) for issue in find_label_issues(probabilities, own))
            if found and agreement < LEAST_AGREEMENT:
                told += "; half of what they suspect, or more, may be no fault, so look at the images"
        if few:
            notes = [*notes, f"Not checked, being of fewer than {NUM_FOLDS} different images: the labels {some(few)}"]
        facts = {"predictions": said, "agreement": round(agreement, 6), "folds": NUM_FOLDS, "images": len(kept)}
        return CheckedLabels(told, *notes, findings=found, facts=facts)

    def _finding(self, issue: LabelIssue, kept: np.ndarray, classes: np.ndarray) -> Finding:
        split, index = self._place(int(kept[issue.image]))
        name = self.images[split].names[index]
        label, suggested = (self.dataset.classes[classes[place]] for place in (issue.label, issue.suggested))
        ratio = round(issue.ratio)
        times = f"over {MOST_TOLD_RATIO:,}" if ratio > MOST_TOLD_RATIO else f"{ratio:,}"
        details = {
            "label": label,
            "suggested": suggested,
            "label_probability": round(issue.label_probability, 6),
            "probability": round(issue.probability, 6),
        }
        told = f"{name} is labelled {label}, and {suggested} is {times} times as probable"
        return Finding("suspicious_label", split, (name,), told, details)

    def _place(self, index: int) -> tuple[str, int]:
        """The split of an image of all, and its index there."""
        for split, found in self.images.items():
            if index < len(found):
                return split, index
            index -= len(found)
        raise AssertionError(index)

    def _enough(self, labels: np.ndarray, units: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """The images of classes that have a unit for each fold, and the names of the other classes."""
        different: dict[int, set[str]] = {}
        for label, unit in zip(labels.tolist(), units, strict=True):
            different.setdefault(label, set()).add(unit)
        few = sorted(label for label, own in different.items() if len(own) < NUM_FOLDS)
        return np.flatnonzero(~np.isin(labels, few)), [self.dataset.classes[label] for label in few]

    def _vectors(
        self, source: Source | None, device: str, offline: bool, report: Count | None
    ) -> tuple[np.ndarray, str, list[str]]:
        """A vector for each image, what made them, and what is to be said of that."""
        if source is None:
            pixels = [found.pixels for found in self.images.values()]
            return patch_features(*pixels, report=report), "a small model of their pixels", []
        classifier = source.classifier(device, offline=offline)
        same = classifier.card.preprocess == self.preprocess
        images = self.images if same else read_all(self.dataset, classifier.card.preprocess)
        vectors: list[np.ndarray] = []
        total, before = sum(map(len, images.values())), 0
        for found in images.values():
            tell = None if report is None else partial(_tell, report, before, total)
            vectors.append(classifier.features(found.pixels, tell))
            before += len(found)
        return np.concatenate(vectors), f"the vectors of {source.name}", _seen(source.directory, images)


def _tell(report: Count, before: int, total: int, done: int, _: int) -> None:
    """Hear how many images of one split are done, and say how many of all."""
    report(before + done, total)


def _seen(directory: RunDirectory | None, images: Mapping[str, ImageSet]) -> list[str]:
    """What is to be said of vectors by a run that was trained on some of the images."""
    if directory is None:
        return []
    splits, number = read_splits(directory.splits_path), 0
    source = splits.parts["train"].source
    same = source in images and fingerprint(images[source]) == splits.fingerprint
    for name in ("train", "validation"):
        part = splits.parts[name]
        if part.members is not None:
            known = {*part.members.hashes}
            number += sum(content in known for found in images.values() for content in found.hashes)
        elif same and part.source in images:
            number += len(images[part.source]) if part.indices is None else len(part.indices)
    if not number:
        return []
    return [
        f"{number:,} of the images {'are' if number > 1 else 'is'} among those that {directory.path} was trained on or "
        "chosen by; its vectors know their labels, so that wrong ones are harder to see"
    ]
