"""What is inside a model, and why it answers as it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrail.api.inputs import optional_path, sources
from vitrail.checkpoint import read_card
from vitrail.classifier import Count
from vitrail.engines.adaptation import SizeLike
from vitrail.errors import ConfigError
from vitrail.explaining import ExplainedFiles, explain_files
from vitrail.explanations import Question, class_name
from vitrail.inspecting import Inspection, inspect_model, inspection_folder, inspection_images
from vitrail.labelling import list_files
from vitrail.loading import find_source
from vitrail.method_checking import check_model
from vitrail.reading import read_options
from vitrail.reporting.pages import check_report_path
from vitrail.reporting.report_sources import report_sources
from vitrail.reporting.run_report import Report, write_report


def explain(
    run: str | Path,
    images: Sequence[str | Path] | str | Path,
    *,
    method: str | None = None,
    target: str | int | None = None,
    against: str | int | None = None,
    layer: int | None = None,
    head: int | None = None,
    output: str | Path | None = None,
    figure: bool = False,
    image_size: SizeLike | None = None,
    device: str = "auto",
    offline: bool = False,
    report: Count | None = None,
) -> ExplainedFiles:
    """Write where in each image file the evidence for a class lies: a picture, a map, JSON.

    `images` are as for `predict`. The class is `target`, by default the one predicted; with `against` it is the
    evidence for the one rather than the other. `method`, `layer` and `head` are as for `Classifier.explain`. Files go
    to the folder `output`, by default explanations/, and overwrite no other image's; with `figure` each image has one
    more picture, of three panels. A file that cannot be read has a row with its `error`. `image_size` is as for `load`;
    `report` is called with the numbers of images done and in all.
    Raises ConfigError for an unknown run, class, method, layer or head, for paths without images, and for what the
    model does not allow, CheckpointError if the disk refuses.
    """
    source = find_source(run)
    question = Question(method, class_name(target), class_name(against, "against"), layer, head)
    if source.directory is not None:  # told before the weights and the images are read
        question.check_classes(read_card(source.directory.path))
    paths = list_files([images] if isinstance(images, str | Path) else list(images))
    classifier = source.classifier(device, image_size, offline=offline)
    return explain_files(classifier, paths, question, source.name, optional_path(output), figure=figure, report=report)


def check_methods(
    run: str | Path,
    images: Sequence[str | Path] | str | Path | None = None,
    *,
    methods: Sequence[str] | None = None,
    num_images: int | None = None,
    output: str | Path | None = None,
    seed: int = 0,
    image_size: SizeLike | None = None,
    device: str = "auto",
    offline: bool = False,
    report: Count | None = None,
) -> dict[str, Any]:
    """Measure how faithful each method of explanation is to a model, and say which to trust.

    The images are drawn from the run's validation images by `seed`, or from the files `images`; `num_images` of them,
    by default 100, or 32 of more than 96x96 pixels. `methods` are by default all that the model allows; random maps and
    last-layer attention are what they are compared with. The result has, by method, `deletion`, `insertion`,
    `faithfulness` (insertion less deletion) and `road`, each a mean with its 95 % interval, the differences
    `against_random` and `against_attention`, and `mosaics`; and `best` and `advice`. It is written to
    faithfulness.json, and drawn in figures/faithfulness.png, in the run or in the folder `output`.
    Raises ConfigError for an unknown run or method, a published model without images, and a run whose data is not here
    or that has no validation images, DataError for images that cannot be read, CheckpointError if the disk refuses.
    """
    source = find_source(run)
    paths = [] if images is None else list_files([images] if isinstance(images, str | Path) else list(images))
    classifier = source.classifier(device, image_size, offline=offline)
    return check_model(
        source,
        classifier,
        paths,
        methods=methods,
        num_images=num_images,
        output=optional_path(output),
        seed=seed,
        report=report,
    )


def inspect(
    run: str | Path,
    data: str | Path | Sequence[str | Path] | None = None,
    *,
    output: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    image_size: SizeLike | None = None,
    device: str = "auto",
    offline: bool = False,
    report: Count | None = None,
) -> Inspection:
    """Draw the inside of a run's model, or of a published one: filters, positions, attention, tokens, layers.

    The images looked at are the run's own, or those of `data`, which may have any classes; without any, what needs none
    is drawn. Figures and inspection.json go to the folder `output`, by default inspection/ in the run, or below the
    current directory for a published model. `settings` and `image_size` are as for `evaluate`, `report` is called with
    the numbers of images that have gone through the model's layers and in all. Figures that a model does not have, or
    whose images are not there, are `missing` in the result, with a sentence.
    Raises ConfigError and DataError for an unknown run and for named data that cannot be used, CheckpointError if the
    disk refuses.
    """
    source = find_source(run)
    classifier = source.classifier(device, image_size, offline=offline)
    options = read_options(source.directory, sources(data), settings, offline=offline)
    images = inspection_images(source, sources(data), classifier, options)
    folder = inspection_folder(source) if output is None else Path(output)
    return inspect_model(classifier, images, folder, report, source.name)


def report(
    run: str | Path,
    *,
    no_images: bool = False,
    output: str | Path | None = None,
    device: str = "auto",
    offline: bool = False,
) -> Report:
    """Write a run's report, report.html, and its model card, README.md, into it, or the report alone to `output`.

    The report is one HTML file that needs no other: data, curves, results, answers with their evidence, the figures of
    `inspect`, cost, and how the run is made again. With `no_images` no image of the user's is in it. What it lacks, as
    images have moved or files are damaged, is `missing` in the result, with sentences. A run that has not finished has
    a report so far, and no model card.
    Raises ConfigError for an unknown run, a published model and an unfit `output`, CheckpointError if the disk refuses.
    """
    target = optional_path(output)
    if target is not None:
        check_report_path(target)
    source = find_source(run)
    if source.directory is None:
        raise ConfigError(
            f"{source.name} is a published model, and nothing is known of its training; vitrail inspect shows its "
            "inside, vitrail evaluate what it is worth on your data"
        )
    found = report_sources(source.directory, device, offline=offline)
    return write_report(
        source.directory, found.classifier, found.images, no_images=no_images, output=target, notes=found.notes
    )
