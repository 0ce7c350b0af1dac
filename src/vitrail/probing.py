"""Probing: what a model's vectors alone say of a data set's classes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from vitrail.classifier import Classifier, Count
from vitrail.config import DataConfig
from vitrail.data.audit import broken_sentence
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.preprocess import Preprocess
from vitrail.data.records import ReadOptions
from vitrail.data.sources import open_dataset
from vitrail.data.splits import Splits, fingerprint, make_splits, read_splits
from vitrail.engines.adaptation import SizeLike, changes
from vitrail.errors import ConfigError, DataError
from vitrail.evaluation.probes import Labelled
from vitrail.evaluation_data import own_images
from vitrail.loading import find_source
from vitrail.preparation import open_data_of, open_original
from vitrail.reading import read_options
from vitrail.runs import RunDirectory

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
Probe = Callable[[Labelled, Labelled, Labelled], dict[str, Any]]


@dataclass(frozen=True)
class ProbeImages:
    """The images of a data set by split, at a model's size.

    `num_seen` counts the test images that the model was trained on or chosen by; None where that is not known.
    """

    dataset: str
    parts: dict[str, ImageSet]
    num_seen: int | None
    classes: tuple[str, ...]


def probe_run(
    probe: Probe,
    run: str | Path,
    data: tuple[str, ...],
    *,
    image_size: SizeLike | None = None,
    merge_tokens: int = 0,
    device: str = "auto",
    offline: bool = False,
    settings: Mapping[str, Any] | None = None,
    report: Count | None = None,
) -> dict[str, Any]:
    """The JSON object of `vitrail probe`. Raises as `vitrail.linear_probe` does."""
    started = perf_counter()
    source = find_source(run)
    options = read_options(source.directory, data, settings, offline=offline)
    classifier = source.classifier(device, image_size, merge_tokens, offline=offline)
    images = probe_images(source.directory, data, classifier.card.preprocess, options)
    return {
        "run": source.name,
        "dataset": images.dataset,
        "model": classifier.card.model_name,
        **changes(classifier.card, merge_tokens),
        **probe_classifier(classifier, images, probe, report),
        "total_seconds": round(perf_counter() - started, 3),
    }


def probe_images(
    directory: RunDirectory | None, data: tuple[str, ...], preprocess: Preprocess, options: ReadOptions | None = None
) -> ProbeImages:
    """The images to probe the model of a run with, or a model without a run: its own data and splits, or other data.

    Where other data has no splits, or lacks one, they are drawn as `vitrail.train` would draw them. Raises ConfigError
    and DataError for data that is not there or cannot be used, and for test images of a run that has not finished.
    """
    if data:
        dataset = named_data(directory, data, options)
        _check_one_label(dataset)
        return split_images(directory, dataset, preprocess)
    if directory is None:
        raise ConfigError("A published model has no data of its own; name some to probe it with")
    if directory.result() is None:
        raise ConfigError(
            f"{directory.path} has not finished, and its test images are read once, at the end; "
            "finish it with --resume, or name other data"
        )
    try:
        dataset = open_data_of(directory, options=options)
    except ConfigError as error:
        raise ConfigError(
            f"The run's data, {directory.config().data.source}, is not here ({error}); name it: vitrail probe RUN DATA"
        ) from None
    _check_one_label(dataset)
    return _own_images(directory, dataset, preprocess)


def named_data(directory: RunDirectory | None, data: tuple[str, ...], options: ReadOptions | None = None) -> Dataset:
    """The data that is named beside a run, or beside a model without one. Raises ConfigError if it is not there."""
    return open_dataset(*data, options=options) if directory is None else open_original(directory, data, options)


def _own_images(directory: RunDirectory, dataset: Dataset, preprocess: Preprocess) -> ProbeImages:
    parts = {name: own_images(directory, dataset, name, preprocess) for name in PARTS}
    seen = {content for name in ("train", "validation") for content in parts[name].hashes}
    return ProbeImages(dataset.name, parts, _count(parts["test"], seen), dataset.classes)


def split_images(directory: RunDirectory | None, dataset: Dataset, preprocess: Preprocess) -> ProbeImages:
    """The images of named data by split: the run's own splits if it is the run's data, else its own or drawn ones."""
    splits = None if directory is None else read_splits(directory.splits_path)
    if directory is not None and splits is not None and _is_same(dataset, splits, preprocess):
        with suppress(DataError):  # its other splits may be others
            return _own_images(directory, dataset, preprocess)
    settings = DataConfig(source=dataset.name) if directory is None else directory.config().data
    rates = settings.validation_rate, settings.test_rate
    drawn = make_splits(dataset, *rates, settings.split_seed, preprocess)
    parts = {name: drawn.images(dataset, name, preprocess) for name in PARTS}
    for source, broken in dataset.broken.items():
        if broken:
            logger.warning("%s", broken_sentence(source, broken))
    members = [splits.parts[name].members for name in ("train", "validation")] if splits is not None else [None]
    known = [part for part in members if part is not None]
    seen = {content for part in known for content in part.hashes}
    return ProbeImages(dataset.name, parts, _count(parts["test"], seen) if known else None, dataset.classes)


def _is_same(dataset: Dataset, splits: Splits, preprocess: Preprocess) -> bool:
    """Whether the data is what the splits were drawn from."""
    source = splits.parts["train"].source
    fits = dataset.classes == splits.classes and source in dataset.published
    return fits and fingerprint(dataset.prepared(source, preprocess)) == splits.fingerprint


def _check_one_label(dataset: Dataset) -> None:
    if dataset.multilabel:
        raise ConfigError(
            f"Images of {dataset.name} may have several labels; a probe tells classes apart, one an image"
        )


def _count(images: ImageSet, seen: set[str]) -> int:
    return sum(content in seen for content in images.hashes)


def probe_classifier(
    classifier: Classifier, images: ProbeImages, probe: Probe, report: Count | None = None
) -> dict[str, Any]:
    """What a probe finds in the vectors that the classifier makes of the images, with their width."""
    vectors: list[Labelled] = []
    done, total = 0, sum(map(len, images.parts.values()))
    for name in PARTS:
        part = images.parts[name]
        tell = None if report is None else partial(_tell, report, done, total)
        vectors.append(Labelled(classifier.features(part.pixels, tell), part.labels))
        done += len(part)
    found = probe(*vectors)
    if images.num_seen is not None:
        found["test"]["seen_in_training"] = images.num_seen
    if images.num_seen:
        logger.warning(
            "%s",
            f"{images.num_seen:,} of {len(images.parts['test']):,} test images are among those that the model was "
            "trained on or chosen by, so its test accuracy is too high",
        )
    return {"width": vectors[0].features.shape[1], **found}


def _tell(report: Count, before: int, total: int, done: int, _: int) -> None:
    """Hear how many images of one split are done, and say how many of all."""
    report(before + done, total)
