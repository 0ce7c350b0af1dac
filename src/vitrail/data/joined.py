"""Several data sets as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from vitrail.data.dataset import Dataset, ImageSet, Sample, Shape, map_labels, spread
from vitrail.data.headers import Header
from vitrail.data.preprocess import Preprocess
from vitrail.data.streaming import joined_pixels
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
    classes = tuple(sorted({label for dataset in datasets for label in dataset.classes}))
    places = {label: place for place, label in enumerate(classes)}
    if all(dataset.classes == datasets[0].classes for dataset in datasets):
        classes, places = datasets[0].classes, {label: place for place, label in enumerate(datasets[0].classes)}
    if len({dataset.multilabel for dataset in datasets}) > 1:
        several = some([dataset.name for dataset in datasets if dataset.multilabel])
        raise DataError(f"Images of {several} have any number of labels, others have one; such sets cannot be joined")
    drawn = {split for dataset in datasets for split in dataset.published} - {"all"}
    broken: dict[str, tuple[tuple[str, str], ...]] = {}

    def source_of(dataset: Dataset, split: str) -> str | None:
        source = "all" if dataset.published == ("all",) and split == "train" else split
        return source if source in dataset.published else None

    def prepared(split: str, preprocess: Preprocess) -> ImageSet:
        parts: list[ImageSet] = []
        left_out: list[tuple[str, str]] = []
        for dataset, prefix in zip(datasets, named, strict=True):
            source = source_of(dataset, split)
            if source is None:
                continue
            images = dataset.prepared(source, preprocess)
            own = np.array([places[label] for label in dataset.classes], np.int64)
            names = tuple(f"{prefix}/{image}" for image in images.names)
            labels = map_labels(images.labels, own, len(classes))
            parts.append(replace(images, labels=labels, names=names, originals=images.hashes, small=images.thumbnails))
            left_out += [(f"{prefix}/{image}", reason) for image, reason in dataset.broken.get(source, ())]
        broken[split] = tuple(left_out)
        joined = concatenated(parts)
        first = _first_of_copies(joined)
        if len(first) < len(joined):
            logger.info(
                "%s", f"{len(joined) - len(first):,} images of {split} are in several of the sets; they count once"
            )
        return joined if len(first) == len(joined) else joined.take(first)

    def headers(split: str) -> Mapping[str, Header]:
        found: dict[str, Header] = {}
        for dataset, prefix in zip(datasets, named, strict=True):
            source = source_of(dataset, split)
            if source is not None and dataset.headers is not None:
                found |= {f"{prefix}/{image}": header for image, header in dataset.headers(source).items()}
        return found

    def trained_on() -> list[Dataset]:
        found = [dataset for dataset in datasets if source_of(dataset, "train" if drawn else "all")]
        if not found:
            raise DataError(f"{name} has no images to train on, only {some(sorted(drawn))}")
        return found

    @cache
    def measure() -> Shape:
        shapes = [dataset.shape for dataset in trained_on()]
        rows, columns, channels = (max(side) for side in zip(*shapes, strict=True))
        return rows, columns, channels

    def shapes() -> np.ndarray:
        return np.concatenate([dataset.sampled_shapes() for dataset in trained_on()])

    def samples(count: int) -> list[Sample]:
        together = [sample for dataset in trained_on() for sample in dataset.stored_samples(count)]
        return [together[index] for index in spread(len(together), count).tolist()]

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
        measure,
        grows=True,
        broken=broken,
        ignored=ignored,
        multilabel=datasets[0].multilabel,
        headers=headers,
        shapes=shapes,
        samples=samples,
    )


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
        np.concatenate([part.thumbnails for part in parts]),
    )
