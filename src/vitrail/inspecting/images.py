"""The images that a model is inspected with, and where its figures go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vitrail.classifier import Classifier
from vitrail.data.dataset import ImageSet
from vitrail.data.hub_sets import PREFIX
from vitrail.data.named import NAMED
from vitrail.data.records import ReadOptions
from vitrail.errors import VitrailError
from vitrail.evaluation_data import own_images
from vitrail.loading import Source
from vitrail.preparation import open_data_of
from vitrail.probing import PARTS, named_data, split_images
from vitrail.runs import RunDirectory

_NAME_IT = "vitrail inspect RUN DATA"
NAMELESS = f"There are no images to look at; name some: {_NAME_IT}"


@dataclass(frozen=True)
class InspectionImages:
    """The images to look at a model with: by split, labels in `classes`; and what is said where there are none."""

    parts: Mapping[str, ImageSet]
    classes: tuple[str, ...]
    no_images: str = NAMELESS


def inspection_folder(source: Source) -> Path:
    """Where a model's figures go: into its run, or below the current directory if it is a published one."""
    if source.directory is not None:
        return source.directory.path / "inspection"
    return Path("inspection", re.sub(r"[^A-Za-z0-9_.-]+", "_", source.name))


def inspection_images(
    source: Source, data: tuple[str, ...], classifier: Classifier, options: ReadOptions | None = None
) -> InspectionImages:
    """The images to inspect a model with: a run's own, or those of named data.

    A run's own data that has moved or changed is said; so is a model that has none. The test images of a run that has
    not finished are left alone. Raises ConfigError and DataError for named data that is not there or cannot be used.
    """
    directory, preprocess, classes = source.directory, classifier.card.preprocess, classifier.classes
    if data:
        images = split_images(directory, named_data(directory, data, options), preprocess)
        return InspectionImages(images.parts, images.classes)
    if directory is None:
        return InspectionImages(
            {}, classes, f"{source.name} has no images of its own here; name some: vitrail inspect {source.name} DATA"
        )
    try:
        dataset = open_data_of(directory, options=options)
    except VitrailError as error:
        return InspectionImages({}, classes, _moved(directory, error))
    parts: dict[str, ImageSet] = {}
    reason = NAMELESS
    for name in PARTS if directory.result() is not None else PARTS[:2]:
        try:
            parts[name] = own_images(directory, dataset, name, preprocess)
        except VitrailError as error:
            reason = str(error).replace("vitrail evaluate RUN DATA", _NAME_IT)
    return InspectionImages(parts, dataset.classes, reason)


def _moved(directory: RunDirectory, error: VitrailError) -> str:
    """That a run's data is not where it was: the folder or file that is not there, else why it cannot be opened."""
    data = directory.config().data
    for source in (data.source, *data.also):
        if source not in NAMED and not source.startswith(PREFIX) and not Path(source).exists():
            kind = "file" if Path(source).suffix else "folder"
            return f"The run's data is not here: there is no {kind} {source}; name it where it is now: {_NAME_IT}"
    return f"The run's data, {data.source}, cannot be used ({error}); name it: {_NAME_IT}"
