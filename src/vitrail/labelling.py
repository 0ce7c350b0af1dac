"""Labelling: what a classifier says of many image files, and what follows: a table, sorted folders, suggestions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitrail.classifier import Classifier, Count
from vitrail.data.images import list_images
from vitrail.data.tables import is_table, list_table_images
from vitrail.errors import ConfigError
from vitrail.predictions import Prediction, check_output, write_predictions
from vitrail.sorting import Sorted, make_sorted_folder, outside, sort_images
from vitrail.suggestions import Candidates, Suggestion, write_suggestions


class Predictions(list[Prediction]):
    """The predictions, in the order of the images, and what else was asked for.

    `sorted` counts what was put into folders, `suggestions` are the images most worth labelling; each is None where it
    was not asked for. `notes` are sentences on what was left out, or done in another way than asked.
    """

    sorted: Sorted | None = None
    suggestions: list[Suggestion] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wishes:
    """What to do with predictions, as the parameters of `vitrail.predict` say."""

    output: Path | None = None
    sort: Path | None = None
    link: bool = False
    suggest: int | None = None

    def check(self) -> None:
        """Raise ConfigError or CheckpointError for what cannot be done; make the folder to sort into."""
        if self.suggest is not None and self.suggest < 1:
            raise ConfigError(f"suggest={self.suggest} is not possible; ask for 1 image or more")
        if self.link and self.sort is None:
            raise ConfigError("--link says how --sort puts images into folders; give --sort DIR with it")
        if self.output is not None:
            check_output(self.output)
        if self.sort is not None:
            make_sorted_folder(self.sort)


def list_files(images: Sequence[str | Path]) -> list[Path]:
    """The image files that `images` stand for: files, folders, patterns, and tables that list files; each once."""
    found: dict[Path, None] = {}
    for given in images:
        path = Path(given)
        is_list = is_table(path) and path.is_file()
        found.update(dict.fromkeys(list_table_images(path) if is_list else list_images([given])))
    return list(found) or list_images([])


def list_inputs(images: Sequence[str | Path], wishes: Wishes) -> tuple[list[Path], list[str]]:
    """The image files that `images` stand for, without those in the folder to sort into, and a note of the latter."""
    paths = list_files(images)
    if wishes.sort is None:
        return paths, []
    kept = outside(paths, wishes.sort)
    if not kept:
        raise ConfigError(f"All {len(paths):,} images lie in {wishes.sort} already; sort into another folder")
    left_out = len(paths) - len(kept)
    return kept, [f"{_images(left_out)} in {wishes.sort} left out"] if left_out else []


def check_wishes(classifier: Classifier, wishes: Wishes) -> None:
    """Raise ConfigError for what this model's predictions cannot be used for."""
    if classifier.card.multilabel and wishes.sort is not None:
        raise ConfigError(
            "--sort puts each image into one folder, and this model may give an image several labels, or none; "
            "write them to a table with --output"
        )


def label_images(
    classifier: Classifier,
    paths: Sequence[Path],
    wishes: Wishes,
    *,
    known: Collection[str] | None = None,
    report: Count | None = None,
) -> Predictions:
    """The predictions for `paths`, written, sorted and chosen from as `wishes` say, which were checked before.

    `known` are the content hashes of images that have labels, None where they are not known; `report` hears how many
    images are done. Predictions are written before anything is sorted, so that a full disk does not cost them.
    """
    check_wishes(classifier, wishes)
    found, notes = Predictions(), list[str]()
    if wishes.suggest is None:
        for prediction in classifier.predict_many(paths):
            found.append(prediction)
            _tell(report, len(found), len(paths))
    else:
        candidates = Candidates(known)
        for prediction, content, features in classifier.examine_many(paths):
            found.append(prediction)
            if content is not None and features is not None:
                candidates.add(prediction, content, features)
            _tell(report, len(found), len(paths))
        found.suggestions = candidates.choose(wishes.suggest)
        notes += _suggestion_notes(candidates, wishes.suggest, is_known=known is not None)
    if wishes.output is not None and found.suggestions is not None:
        write_suggestions(wishes.output, found.suggestions)
    elif wishes.output is not None:
        write_predictions(wishes.output, found, classifier.classes if classifier.card.multilabel else None)
    if wishes.sort is not None:
        found.sorted = sort_images(wishes.sort, found, classifier.classes, link=wishes.link, report=report)
        notes += _sorting_notes(found.sorted, wishes, has_threshold=classifier.card.reject_threshold is not None)
    found.notes = tuple(notes)
    return found


def _tell(report: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if report is not None:
        report(done, total)


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _suggestion_notes(candidates: Candidates, asked: int, *, is_known: bool) -> list[str]:
    notes: list[str] = []
    if not is_known:
        notes.append("The run does not say which images it was trained on, so some of these may have labels already")
    if candidates.num_known:
        notes.append(f"{_images(candidates.num_known)} that the run was trained or tested on left out")
    if candidates.num_copies:
        notes.append(f"{_images(candidates.num_copies)} with the same pixels as another one left out")
    if len(candidates) < asked:
        notes.append(f"{asked:,} images were asked for, and there are {len(candidates):,}")
    return notes


def _sorting_notes(done: Sorted, wishes: Wishes, *, has_threshold: bool) -> list[str]:
    notes = [
        f"Class {name!r} is in {done.folder}/{made}, as its name cannot be that of a folder in a data set"
        for name, made in done.renamed.items()
    ]
    if wishes.link and done.soft_linked:
        notes.append(f"{_images(done.soft_linked)} on another disk linked symbolically; keep them where they are")
    if wishes.link and done.copied:
        notes.append(f"{_images(done.copied)} copied, as {done.folder} takes no links")
    if not has_threshold:
        notes.append(
            "Nothing is sorted as not sure, as the model has no reject threshold; "
            "train with --set evaluation.reject=0.95 for answers that are right 95 times of 100"
        )
    return notes
