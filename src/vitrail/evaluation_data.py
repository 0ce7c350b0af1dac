"""The images that a model is evaluated on."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from vitrail.checkpoint import ModelCard
from vitrail.data.audit import broken_sentence, check_broken
from vitrail.data.corrections import check_corrections, corrected, read_corrections
from vitrail.data.dataset import Dataset, ImageSet, map_labels
from vitrail.data.preprocess import Preprocess
from vitrail.data.records import ReadOptions
from vitrail.data.sources import open_dataset
from vitrail.data.splits import Members, Part, Splits, fingerprint, read_splits
from vitrail.errors import ConfigError, DataError, some
from vitrail.preparation import corrected_as_in, open_original, preprocess_of
from vitrail.runs import RunDirectory

logger = logging.getLogger(__name__)


def evaluation_images(
    directory: RunDirectory,
    data: tuple[str, ...],
    split: str,
    corrections: Path | None,
    preprocess: Preprocess | None = None,
    options: ReadOptions | None = None,
) -> tuple[Dataset, ImageSet]:
    """The images to evaluate a run on, labels in its classes; its own splits whenever the data is what it had.

    They come as the run was trained on them, or as `preprocess` says, and are read as the run's were, or as `options`
    say. Raises as `vitrail.evaluate` does.
    """
    splits, config = read_splits(directory.splits_path), directory.config()
    preprocess = preprocess or preprocess_of(config)
    lines = None if corrections is None else read_corrections(corrections)
    try:
        dataset = open_original(directory, data, options)
    except ConfigError as error:
        if data:
            raise
        raise ConfigError(
            f"The run's data, {config.data.source}, is not here ({error}); name it: vitrail evaluate RUN DATA"
        ) from None
    if lines is not None:
        splits = _with_members(directory, splits, split, dataset, preprocess, own=not data)
        check_corrections(dataset, lines, preprocess)
        dataset = corrected(dataset, lines)
    elif not data:
        dataset = corrected_as_in(directory, dataset)
        return dataset, own_images(directory, dataset, split, preprocess)
    trained_on = splits.parts["train"].source
    same = lines is None and dataset.classes == splits.classes and trained_on in dataset.published
    if same and fingerprint(dataset.prepared(trained_on, preprocess)) == splits.fingerprint:
        with suppress(DataError):  # its other splits may be others
            return dataset, splits.images(dataset, split, preprocess)
    source = "all" if dataset.published == ("all",) else split
    if not data and split in splits.parts:
        source = splits.parts[split].source
    images = _with_classes(dataset, dataset.prepared(source, preprocess), splits.classes)
    if dataset.broken.get(source):
        logger.warning("%s", broken_sentence(source, dataset.broken[source]))
    check_broken(dataset, source, len(images), config.data.max_broken_rate, can_be_set=False)
    members = splits.parts[split].members if split in splits.parts else None
    if not data and members is not None:  # the run's own split, corrected
        own = {*members.hashes}
        return dataset, _kept(images, [content in own for content in images.hashes])
    return dataset, _unseen(images, splits, split)


def own_images(directory: RunDirectory, dataset: Dataset, split: str, preprocess: Preprocess) -> ImageSet:
    """A split of a run's own data. Raises DataError if its images are not what they were when the run was tested."""
    images = read_splits(directory.splits_path).images(dataset, split, preprocess)
    tested_on = (directory.journal.last("finished") or {}).get("test_fingerprint")
    if split == "test" and tested_on not in (None, fingerprint(images)):
        raise DataError(
            f"The test images or labels of {dataset.name} have changed since the run was tested; "
            "name the data to evaluate on it as it is: vitrail evaluate RUN DATA"
        )
    return images


def published_images(
    card: ModelCard,
    name: str,
    data: tuple[str, ...],
    split: str,
    corrections: Path | None,
    options: ReadOptions | None = None,
) -> tuple[Dataset, ImageSet]:
    """The images to evaluate the published model called `name` on, labels in its classes.

    They are the data's published split of that name, or all of it where none is published. Raises as
    `vitrail.evaluate` does.
    """
    if not data:
        raise ConfigError(f"{name} has no data of its own here; name some: vitrail evaluate {name} DATA")
    dataset = open_dataset(*data, options=options)
    if corrections is not None:
        lines = read_corrections(corrections)
        check_corrections(dataset, lines, card.preprocess)
        dataset = corrected(dataset, lines)
    source = "all" if dataset.published == ("all",) else split
    return dataset, _with_classes(dataset, dataset.prepared(source, card.preprocess), card.classes)


def _with_classes(dataset: Dataset, images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """The images with labels in the model's classes. Raises ConfigError if the model does not know a class."""
    unknown = sorted({*dataset.classes} - {*classes})
    if unknown:
        raise ConfigError(
            f"{dataset.name} has {'classes' if len(unknown) > 1 else 'a class'} that the model does not know, "
            f"{some(unknown)}; it knows {some(classes, 5)}. Rename or merge them with --corrections"
        )
    places = np.array([classes.index(name) for name in dataset.classes], np.int64)
    return replace(images, labels=map_labels(images.labels, places, len(classes)))


def check_number_of_labels(card: ModelCard, dataset: Dataset) -> None:
    """Raise ConfigError where images have several labels and the model gives one, or the other way round."""
    if card.multilabel != dataset.multilabel:
        theirs, its = ("any number of labels", "one") if dataset.multilabel else ("one label", "any number")
        raise ConfigError(
            f"Images of {dataset.name} have {theirs} each, and the model gives an image {its}; "
            "evaluate it on data like that which it was trained on"
        )


def _with_members(
    directory: RunDirectory, splits: Splits, split: str, original: Dataset, preprocess: Preprocess, *, own: bool
) -> Splits:
    """The splits with their images known by content, as indices mean nothing once other corrections are applied.

    `original` is the data without corrections. Raises DataError if it changed, unless it need not be the run's `own`:
    then it is other data, which the splits say nothing about.
    """
    parts = {
        name: part
        for name, part in splits.parts.items()
        if part.members is None and name in ("train", "validation", split)
    }
    if not parts:
        return splits
    known: dict[str, Part] = {}
    try:
        before = corrected_as_in(directory, original)
        for name, part in parts.items():
            images = splits.images(before, name, preprocess)
            known[name] = replace(part, members=Members.of(images, np.arange(len(images))))
    except (ConfigError, DataError):
        if own:
            raise
        return splits
    return replace(splits, parts={**splits.parts, **known})


def _kept(images: ImageSet, kept: list[bool]) -> ImageSet:
    return images.take(np.flatnonzero(np.array(kept, bool)))


def _unseen(images: ImageSet, splits: Splits, split: str) -> ImageSet:
    """Images of other data, without those the run learned from or was chosen by."""
    seen = {
        content
        for name, part in splits.parts.items()
        if part.members is not None and name in ("train", "validation") and name != split
        for content in part.members.hashes
    }
    kept = [content not in seen for content in images.hashes] if seen else [True] * len(images)
    if not all(kept):
        logger.info("%d images are left out: the run was trained on them or chosen by them", kept.count(False))
    if not any(kept):
        raise DataError("The run was trained on all of these images or chosen by them; evaluate it on others")
    return images if all(kept) else _kept(images, kept)
