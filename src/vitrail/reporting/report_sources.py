"""What a report is made from besides a run's files: its model and its images, as far as they are there."""

from __future__ import annotations

from typing import NamedTuple

from vitrail.classifier import Classifier
from vitrail.data.dataset import ImageSet
from vitrail.data.splits import read_splits
from vitrail.engines.pytorch import resolve_device
from vitrail.errors import DataError, VitrailError
from vitrail.evaluation_data import own_images
from vitrail.loading import Source
from vitrail.preparation import open_data_of, preprocess_of
from vitrail.reading import read_options
from vitrail.reporting.report_facts import UNREADABLE, first_line
from vitrail.reporting.report_paths import shown_source
from vitrail.runs import RunDirectory


class ReportSources(NamedTuple):
    """A run's model and the images of its splits; `notes` say what is not there, and why."""

    classifier: Classifier | None
    images: dict[str, ImageSet]
    notes: tuple[str, ...]


def report_sources(directory: RunDirectory, device: str, *, offline: bool = False) -> ReportSources:
    """The model of a run on a device, and its images at the model's size; of a run not finished none of the test.

    Raises ConfigError for a device that is not there.
    """
    resolve_device(device)
    notes: list[str] = []
    classifier = None
    try:
        classifier = Source(directory.path.name, directory).classifier(device)
    except UNREADABLE as error:
        notes.append(f"The model cannot be used: {first_line(error)}")
    images: dict[str, ImageSet] = {}
    try:
        config, parts = directory.config(), read_splits(directory.splits_path).parts
        named = shown_source(config.data.source)
        finished = directory.result() is not None
    except UNREADABLE:  # which the facts say
        return ReportSources(classifier, images, tuple(notes))
    try:
        dataset = open_data_of(directory, options=read_options(directory, offline=offline))
        preprocess = preprocess_of(config) if classifier is None else classifier.card.preprocess
    except UNREADABLE as error:
        reason = f": {first_line(error)}" if isinstance(error, DataError) else ""
        notes.append(f"The run's images, {named}, are not here, or cannot be read{reason}")
        return ReportSources(classifier, images, tuple(notes))
    for split in parts:
        if finished or split != "test":
            try:
                images[split] = own_images(directory, dataset, split, preprocess)
            except VitrailError as error:
                reason = first_line(error).partition(";")[0]
                notes.append(f"The {split} images of {named} are left out: {reason}")
    return ReportSources(classifier, images, tuple(notes))
