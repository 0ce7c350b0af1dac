"""Checking the methods of explanation for one model: on which images, and the files that say which to trust."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.checkpoint import write_atomically
from vitrail.classifier import Classifier, Count
from vitrail.data.preprocess import read_prepared
from vitrail.errors import ConfigError, DataError
from vitrail.evaluation_data import own_images
from vitrail.figures import draw_faithfulness, save_figure
from vitrail.interpretation.method_check import check_methods
from vitrail.interpretation.subjects import Subject
from vitrail.loading import Source, check_classes
from vitrail.preparation import open_data_of
from vitrail.runs import RunDirectory

logger = logging.getLogger(__name__)

OUTPUT = Path("explanations")  # of a published model, which has no directory
NUM_IMAGES = 100
_NUM_LARGE = 32  # where an image has more than so many pixels, and an answer takes its time:
_LARGE = 96 * 96


@dataclass(frozen=True)
class CheckedImages:
    """Images as the model takes them, and what they are of: `labels` are None where they are not known."""

    pixels: np.ndarray
    labels: np.ndarray | None
    name: str


def check_model(
    source: Source,
    classifier: Classifier,
    paths: Sequence[Path] = (),
    *,
    methods: Sequence[str] | None = None,
    num_images: int | None = None,
    output: Path | None = None,
    seed: int = 0,
    report: Count | None = None,
) -> dict[str, Any]:
    """The JSON object of `vitrail explain --check`: each method's measures on the model's images, and advice.

    The images are a run's own validation images, drawn by `seed`, or those of `paths`. Test images are never used, as
    the method is chosen here. faithfulness.json and figures/faithfulness.png are written into the run, or into the
    folder `output`. Raises ConfigError for a published model without images, data that is not there and methods that
    the model does not allow, DataError for images that cannot be read, CheckpointError when the disk refuses.
    """
    check_classes(classifier, source.name)
    wanted = _wanted(classifier, num_images)
    if paths:
        images = _given_images(classifier, paths, wanted, seed)
    elif source.directory is None:
        raise ConfigError(
            f"{source.name} has no images of its own here; name some: vitrail explain {source.name} IMAGE --check"
        )
    else:
        images = _validation_images(source.directory, classifier, wanted, seed)
    found = check_methods(
        Subject.of(classifier.engine, classifier.card.model),
        images.pixels,
        images.labels,
        methods=methods,
        seed=seed,
        probabilities=classifier.calibrated,
        report=report,
    )
    result = {"run": source.name, "model": classifier.card.model_name, "dataset": images.name, **found}
    folder = output or (OUTPUT if source.directory is None else source.directory.path)
    files = {"json": folder / "faithfulness.json", "png": folder / "figures" / "faithfulness.png"}
    save_figure(drawn(found), files["png"])
    write_atomically(files["json"], json.dumps(result, indent=2) + "\n")
    return {**result, "files": {kind: str(path) for kind, path in files.items()}}


def drawn(found: Mapping[str, Any]) -> Any:
    """The figure of what `check_methods` found."""
    table = found["methods"]
    curves = [entry["curves"] for entry in table.values()]
    intervals = {
        measure: [[entry[measure]["mean"], *entry[measure]["ci95"]] for entry in table.values()]
        for measure in ("faithfulness", "road")
    }
    return draw_faithfulness(
        [*table],
        curves[0]["shares"],
        [curve["deletion"] for curve in curves],
        [curve["insertion"] for curve in curves],
        intervals["faithfulness"],
        intervals["road"],
    )


def _wanted(classifier: Classifier, num_images: int | None) -> int:
    """The number of images to check on. Raises ConfigError for none."""
    if num_images is None:
        return NUM_IMAGES if np.prod(classifier.card.preprocess.image_size) <= _LARGE else _NUM_LARGE
    if num_images < 2:
        raise ConfigError(f"images={num_images} is too few for an interval; use 2 or more, {NUM_IMAGES} is usual")
    return num_images


def _validation_images(directory: RunDirectory, classifier: Classifier, wanted: int, seed: int) -> CheckedImages:
    try:
        dataset = open_data_of(directory)
    except ConfigError as error:
        raise ConfigError(
            f"The run's data, {directory.config().data.source}, is not here ({error}); "
            "name images: vitrail explain RUN IMAGE --check"
        ) from None
    images = own_images(directory, dataset, "validation", classifier.card.preprocess)
    if not len(images):
        raise ConfigError(
            f"{directory.path} has no validation images, and test images are not for choosing; "
            "name images: vitrail explain RUN IMAGE --check"
        )
    chosen = _drawn(len(images), wanted, seed)
    return CheckedImages(np.asarray(images.pixels[chosen]), images.labels[chosen], f"{dataset.name}, validation")


def _given_images(classifier: Classifier, paths: Sequence[Path], wanted: int, seed: int) -> CheckedImages:
    """Images of files, whose classes are not known; those that cannot be read are left out, and said."""
    readable: list[np.ndarray] = []
    for place in _drawn(len(paths), wanted, seed).tolist():
        try:
            readable.append(read_prepared(paths[place], classifier.card.preprocess))
        except DataError as error:
            logger.warning("%s; it is left out", error)
    if len(readable) < 2:
        raise DataError(f"Of {len(paths):,} images {len(readable)} can be used; give at least two")
    return CheckedImages(np.stack(readable), None, f"{len(readable):,} image files")


def _drawn(num_images: int, wanted: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(num_images)[:wanted])
