"""What an audit would correct, as a file for --corrections: what is sure enough in force, the rest to be looked at.

A line in force relabels or drops an image whose label is very probably wrong, or drops one that cannot be read or whose
pixels are in the data again.
Lines that begin with # are not: suspicions that are weaker, and whatever is in a published test split, which is
never altered unless its user says so.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitrail.checkpoint import write_atomically
from vitrail.data.audit import Audit
from vitrail.data.corrections import COLUMNS, IMAGE_ACTIONS, Corrections, find_images
from vitrail.data.dataset import ImageSet
from vitrail.data.findings import Finding, count_of
from vitrail.errors import ConfigError

# What is done unseen, by the part of all labels that the predictions agree with, which says how much they know. From
# 0.9 on every suspicious label is changed; from 0.5 on an image whose label is a hundred times less probable than
# another class is dropped, as that one is too often wrong, too; below, nothing. So nine of ten lines and more were
# right on digits and MNIST, seven to nine of ten on clothing and CIFAR-10 (benchmarks/label_issues.py).
SURE_AGREEMENT, LEAST_AGREEMENT = 0.9, 0.5
SURE_RATIO = 100.0


@dataclass(frozen=True)
class Proposal:
    """The text of a file of corrections, and how many of its lines the audit added, in force and to be looked at."""

    text: str
    num_active: int
    num_doubtful: int

    def write(self, path: Path) -> None:
        """Write the file. Raises CheckpointError if the disk refuses."""
        write_atomically(path, self.text)

    def note(self, path: Path) -> str:
        """What was written, or why nothing was."""
        suspicions = count_of(self.num_doubtful, "suspicion")
        if not self.num_active:
            verb = "is" if self.num_doubtful == 1 else "are"
            more = f", and {suspicions} {verb} to look at" if self.num_doubtful else ""
            return f"{path} was not written: nothing to correct is sure{more}"
        more = f", and {suspicions} to look at, behind #" if self.num_doubtful else ""
        held = count_of(self.num_active, "correction")
        return f"{path} holds {held}{more}; look through it, then give it as --corrections"


@dataclass(frozen=True)
class _Line:
    split: str
    image: str
    action: str
    label: str
    reason: str
    sure: bool


def check_new_file(path: Path) -> None:
    """Raise ConfigError unless a new file can be made at `path`: corrections may hold what someone wrote by hand."""
    if path.exists():
        raise ConfigError(f"{path} exists already; write to another file, or move that one away")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} does not exist; make that folder first, or write elsewhere")


def propose_corrections(audit: Audit, images: Mapping[str, ImageSet], before: Corrections | None = None) -> Proposal:
    """Corrections by what an audit found among `images`, after those `before` that it was made with."""
    decided = _decided(images, before)
    names = {split: {name: index for index, name in enumerate(found.names)} for split, found in images.items()}
    counts: dict[str, int] = {}
    for own in names.values():
        for name in own:
            counts[name] = counts.get(name, 0) + 1
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow((*COLUMNS, "reason"))
    if before is not None:
        file.write(before.text.removeprefix("\ufeff").rstrip("\r\n") + "\n")
    done: set[tuple[str, str]] = set()
    num_active = num_doubtful = 0
    for line in _lines(audit):
        place = (line.split, line.image)
        if place in done:
            continue
        done.add(place)
        if line.image not in names[line.split]:  # it cannot be read, and has no content
            num_active += 1
            writer.writerow((_written_name(line.image) or line.image, line.action, line.label, line.reason))
            continue
        content = images[line.split].hashes[names[line.split][line.image]]
        what = _written_name(line.image) if counts[line.image] == 1 else None
        alone = what is not None or images[line.split].hashes.count(content) == 1
        sure = (
            line.sure and line.split != "test" and place not in decided and alone and line.label == line.label.strip()
        )
        if sure:
            num_active += 1
            writer.writerow((what or content, line.action, line.label, line.reason))
        else:
            num_doubtful += 1
            why = "of the test split; " if line.split == "test" else "corrected already; " if place in decided else ""
            writer.writerow((f"# {what or content}", line.action, line.label, why + line.reason))
    return Proposal(file.getvalue(), num_active, num_doubtful)


def _lines(audit: Audit) -> Iterator[_Line]:
    """What to do with each image, most important first; a later line for the same image does not count."""
    for split, files in audit.broken.items():
        for name, why in files:
            yield _Line(split, name, "drop", "", _plain(why), sure=True)
    agreement = (audit.statistics.get("label_check") or {}).get("agreement", 0.0)
    suspicions = [_corrected(finding, agreement) for finding in audit.of_kind("suspicious_label")]
    yield from (line for line in suspicions if line.sure)
    settled = {(line.split, line.image) for line in suspicions if line.sure}
    for finding in audit.of_kind("conflicting_labels"):
        if "/" in finding.split or any((finding.split, name) in settled for name in finding.images):
            continue  # between splits a drop would be of the image to train on, too
        for name in finding.images:
            yield _Line(finding.split, name, "drop", "", _plain(finding.sentence), finding.exact)
    conflicting = {(finding.split, finding.images) for finding in audit.of_kind("conflicting_labels")}
    for finding in audit.of_kind("exact_duplicate"):
        if finding.split == "test" or (finding.split, finding.images) in conflicting:
            continue
        for name in finding.images[1:]:
            yield _Line(finding.split, name, "drop", "", f"a copy of {_plain(finding.images[0])}", sure=True)
    yield from (line for line in suspicions if not line.sure)


def _corrected(finding: Finding, agreement: float) -> _Line:
    (name,), details, reason = finding.images, finding.details, _plain(finding.sentence)
    if LEAST_AGREEMENT <= agreement < SURE_AGREEMENT:
        if details["probability"] >= SURE_RATIO * details["label_probability"]:
            return _Line(finding.split, name, "drop", "", reason, sure=True)
        agreement = 0.0
    return _Line(finding.split, name, "relabel", details["suggested"], reason, agreement >= SURE_AGREEMENT)


def _decided(images: Mapping[str, ImageSet], before: Corrections | None) -> set[tuple[str, str]]:
    """The images that a correction names already."""
    wanted = [] if before is None else [line.what for line in before.lines if line.action in IMAGE_ACTIONS]
    return {
        (split, found.names[index])
        for split, found in images.items()
        for places in find_images(found, wanted).values()
        for index in places
    }


def _written_name(name: str) -> str | None:
    """An image's name as a file of corrections can hold it; None if it cannot."""
    if name != name.strip() or "\\" in name or re.fullmatch(r"[0-9a-f]{8,64}", name):
        return None
    return f"./{name}" if name.startswith("#") else name


def _plain(text: str) -> str:
    return " ".join(text.split())
