"""Several data sets as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet, Sample, Shape, map_labels, spread
from vitrail.data.headers import Header
from vitrail.data.pixels import joined_pixels
from vitrail.data.preprocess import Preprocess
from vitrail.errors import DataError, some

logger = logging.getLogger(__name__)


def join_datasets(datasets: Sequence[Dataset]) -> Dataset:
    """One data set of all images; equal class names are one class, and splits of one name one split.

    Where some have published splits, those without go into training. Names begin with that of their data set. An image
    that is in several sets under one class counts once.
    Raises DataError where that leaves test or validation images of a class without training images.
    """
    name = "+".join(dataset.name for dataset in datasets)
    named = _numbered([dataset.name for dataset in datasets])
    classes = _joined_classes(datasets)
    places = {label: place for place, label in enumerate(classes)}
    drawn = {split for dataset in datasets for split in dataset.published} - {"all"}
    broken: dict[str, tuple[tuple[str, str], ...]] = {}

    def parts_of(split: str) -> list[_Part]:
        found = [
            _Part(dataset, prefix, "all" if dataset.published == ("all",) and split == "train" else split)
            for dataset, prefix in zip(datasets, named, strict=True)
        ]
        return [part for part in found if part.source in part.dataset.published]

    def prepared(split: str, preprocess: Preprocess) -> ImageSet:
        parts = parts_of(split)
        images = _without_copies(concatenated([_renamed(part, preprocess, places) for part in parts]), split)
        broken[split] = tuple(
            (f"{prefix}/{image}", reason)
            for dataset, prefix, source in parts
            for image, reason in dataset.broken.get(source, ())
        )
        return images

    def trained_on() -> list[Dataset]:
        found = [part.dataset for part in parts_of("train" if drawn else "all")]
        if not found:
            raise DataError(f"{name} has no images to train on, only {some(sorted(drawn))}")
        return found

    published = tuple(split for split in ("train", "validation", "test") if split in drawn) or ("all",)
    if drawn and "train" not in published and any(dataset.published == ("all",) for dataset in datasets):
        published = ("train", *published)
    ignored = tuple(
        f"{prefix}/{file}" for dataset, prefix in zip(datasets, named, strict=True) for file in dataset.ignored
    )
    return Dataset(
        name,
        classes,
        published,
        None,
        prepared,
        cache(lambda: _largest(trained_on())),
        grows=True,
        broken=broken,
        ignored=ignored,
        multilabel=datasets[0].multilabel,
        headers=lambda split: _headers(parts_of(split)),
        shapes=lambda: np.concatenate([dataset.sampled_shapes() for dataset in trained_on()]),
        samples=lambda count: _samples(trained_on(), count),
    )


def _joined_classes(datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """The classes of all, in the order that they have everywhere, else sorted. Raises DataError for unlike labels."""
    if len({dataset.multilabel for dataset in datasets}) > 1:
        several = some([dataset.name for dataset in datasets if dataset.multilabel])
        raise DataError(f"Images of {several} have any number of labels, others have one; such sets cannot be joined")
    if all(dataset.classes == datasets[0].classes for dataset in datasets):
        return datasets[0].classes
    return tuple(sorted({label for dataset in datasets for label in dataset.classes}))


class _Part(NamedTuple):
    """A data set, what the names of its images begin with, and the split of it that is wanted."""

    dataset: Dataset
    prefix: str
    source: str


def _renamed(part: _Part, preprocess: Preprocess, places: Mapping[str, int]) -> ImageSet:
    """A part's images under their new names, labels by the `places` of their classes in the whole."""
    images = part.dataset.prepared(part.source, preprocess)
    own = np.array([places[label] for label in part.dataset.classes], np.int64)
    names = tuple(f"{part.prefix}/{image}" for image in images.names)
    labels = map_labels(images.labels, own, len(places))
    return replace(images, labels=labels, names=names, originals=images.hashes, small=images.packed_thumbnails)


def _without_copies(joined: ImageSet, split: str) -> ImageSet:
    first = _first_of_copies(joined)
    if len(first) == len(joined):
        return joined
    logger.info("%s", f"{len(joined) - len(first):,} images of {split} are in several of the sets; they count once")
    return joined.take(first)


def _headers(parts: Sequence[_Part]) -> dict[str, Header]:
    found: dict[str, Header] = {}
    for dataset, prefix, source in parts:
        if dataset.headers is not None:
            found |= {f"{prefix}/{image}": header for image, header in dataset.headers(source).items()}
    return found


def _largest(datasets: Sequence[Dataset]) -> Shape:
    rows, columns, channels = (max(side) for side in zip(*(dataset.shape for dataset in datasets), strict=True))
    return rows, columns, channels


def _samples(datasets: Sequence[Dataset], count: int) -> list[Sample]:
    together = [sample for dataset in datasets for sample in dataset.stored_samples(count)]
    return [together[index] for index in map(int, spread(len(together), count))]


def _first_of_copies(images: ImageSet) -> np.ndarray:
    """The places of all images but those that have an equal one, of the same class, in an earlier set."""
    sets: dict[tuple[str, bytes], str] = {}
    kept: list[int] = []
    for index, (content, label) in enumerate(zip(images.hashes, images.labels, strict=True)):
        own = images.names[index].partition("/")[0]
        if sets.setdefault((content, label.tobytes()), own) == own:
            kept.append(index)
    return np.array(kept, np.int64)


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, with -2, -3 ... after those that come again, so that no two images share one."""
    seen: dict[str, int] = {}
    numbered: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbered.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return numbered


def concatenated(parts: Sequence[ImageSet]) -> ImageSet:
    """The images of all sets, which have one size, in one set; groups of one name are one group."""
    groups = None
    if any(part.groups is not None for part in parts):
        groups = tuple(group for part in parts for group in part.groups or [""] * len(part))
    return ImageSet(
        joined_pixels([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
        tuple(name for part in parts for name in part.names),
        tuple(content for part in parts for content in part.hashes),
        groups,
        np.concatenate([part.packed_thumbnails for part in parts]),
    )
