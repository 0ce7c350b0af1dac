"""What a model answers: evaluated, image by image, as vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from vitrail.api.inputs import optional_path, sources
from vitrail.classifier import Count
from vitrail.data.splits import read_splits
from vitrail.embedding import Embeddings, embed_images
from vitrail.engines.adaptation import SizeLike, changes
from vitrail.errors import ConfigError
from vitrail.evaluation import probes
from vitrail.evaluation_data import check_number_of_labels, evaluation_images, published_images
from vitrail.fitting import check_of_files
from vitrail.labelling import Predictions, Wishes, label_images, list_files, list_inputs
from vitrail.loading import check_classes, find_source
from vitrail.predictions import check_output
from vitrail.probing import probe_run
from vitrail.reading import read_options
from vitrail.session import evaluated


def evaluate(
    run: str | Path,
    data: str | Path | Sequence[str | Path] | None = None,
    *,
    split: str = "test",
    corrections: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    image_size: SizeLike | None = None,
    merge_tokens: int = 0,
    device: str = "auto",
    offline: bool = False,
    started: float | None = None,
    report: Count | None = None,
) -> dict[str, Any]:
    """How good a run's model is on one split: the JSON object of `vitrail evaluate`, results under the split's name.

    Without `data` the run's own data and splits are used, with its corrections or other `corrections`. Other data must
    have classes of the model; its published split of that name is taken, or all of it where none is published, without
    images that the run was trained on or chosen by. `settings` are those on reading data, such as data.label_column.
    `image_size` and `merge_tokens` are as for `load`; the result says them where they differ from training.
    Raises ConfigError for an unknown run or split, or classes that differ, DataError for data that changed.
    """
    started = perf_counter() if started is None else started
    source = find_source(run)
    directory = source.directory
    if directory is not None and directory.result() is None and data is None and split == "test":
        raise ConfigError(
            f"{directory.path} has not finished, and its test images are read once, at the end; "
            "finish it with --resume, or evaluate --split validation"
        )
    classifier = source.classifier(device, image_size, merge_tokens, offline=offline)
    check_classes(classifier, source.name)
    options = read_options(directory, sources(data), settings, offline=offline)
    card, asked = classifier.card, (sources(data), split, optional_path(corrections))
    if directory is None:
        dataset, images = published_images(card, source.name, *asked, options)
    else:
        dataset, images = evaluation_images(directory, *asked, card.preprocess, options)
    check_of_files(dataset, settings or {})
    check_number_of_labels(card, dataset)
    logits = classifier.logits(images.pixels, report)
    facts = {"run": source.name, "dataset": dataset.name, **changes(card, merge_tokens)}
    return evaluated(facts, directory, card, split, images, logits, started)


def predict(
    run: str | Path,
    images: Sequence[str | Path] | str | Path,
    *,
    output: str | Path | None = None,
    sort: str | Path | None = None,
    link: bool = False,
    suggest: int | None = None,
    image_size: SizeLike | None = None,
    merge_tokens: int = 0,
    device: str = "auto",
    offline: bool = False,
    report: Count | None = None,
) -> Predictions:
    """A Prediction for each image file; `images` are files, folders (searched whole), globs and tables of paths.

    A file that cannot be read has a Prediction with its `error` set. With `output`, a .csv, .jsonl or .parquet file,
    they are also written there. With `sort`, a folder, each image is copied (with `link`: linked) into its class's
    folder there, or into not_sure/; images below that folder are no input. With `suggest`, a number, the result's
    `suggestions` are so many images most worth labelling, best first, and `output` gets these; images that the run
    has seen are none of them. `image_size` and `merge_tokens` are as for `load`; `report` is called with the numbers of
    images done and in all.
    Raises ConfigError for an unknown run, paths without images, or an unfit `output`, `sort` or `suggest`, and
    CheckpointError when the disk refuses; what is sorted by then stays.
    """
    wishes = Wishes(None if output is None else Path(output), None if sort is None else Path(sort), link, suggest)
    source = find_source(run)
    paths, notes = list_inputs([images] if isinstance(images, str | Path) else list(images), wishes)
    wishes.check()
    known = None
    if suggest is not None and source.directory is not None and source.directory.splits_path.is_file():
        known = read_splits(source.directory.splits_path).hashes()
    classifier = source.classifier(device, image_size, merge_tokens, offline=offline)
    check_classes(classifier, source.name)
    predictions = label_images(classifier, paths, wishes, known=known, report=report)
    predictions.notes = (*notes, *predictions.notes)
    return predictions


def embed(
    run: str | Path,
    images: Sequence[str | Path] | str | Path,
    *,
    output: str | Path | None = None,
    image_size: SizeLike | None = None,
    merge_tokens: int = 0,
    device: str = "auto",
    offline: bool = False,
    report: Count | None = None,
) -> Embeddings:
    """The vector that the head of a run's model reads of each image file; `images` are as for `predict`.

    They are the result's `vectors`, or with `output`, a .parquet, .jsonl or .csv file, written there a part at a time,
    each with the image's name and content hash. A file that cannot be read has a row with its `error`. `image_size` and
    `merge_tokens` are as for `load`; `report` is called with the numbers of images done and in all.
    Raises ConfigError for an unknown run, paths without images or an unfit `output`, CheckpointError if the disk
    refuses.
    """
    target = optional_path(output)
    if target is not None:
        check_output(target, "embeddings")
    source = find_source(run)
    paths = list_files([images] if isinstance(images, str | Path) else list(images))
    classifier = source.classifier(device, image_size, merge_tokens, offline=offline)
    return embed_images(classifier, paths, target, report)


def linear_probe(run: str | Path, data: str | Path | Sequence[str | Path] | None = None, **how: Any) -> dict[str, Any]:
    """How well a linear classifier on the vectors of a run's model tells the classes of `data` apart.

    It learns from the training images, chooses the strength of its regularisation on validation, and is tested once;
    the model itself stays as it is. `data` may have any classes, and is the run's own where nothing is named, with its
    splits; where other data lacks splits they are drawn as for training. The result is the JSON object of
    `vitrail probe`; `test` says in `seen_in_training` how many images the run was trained on or chosen by, if known.
    `how` are settings, as for `evaluate`, and image_size, merge_tokens, device, offline and report, as for `embed`.
    Raises ConfigError and DataError as `evaluate` does.
    """
    return probe_run(probes.linear_probe, run, sources(data), **how)


def knn(run: str | Path, data: str | Path | Sequence[str | Path] | None = None, **how: Any) -> dict[str, Any]:
    """As `linear_probe`, but each image gets the class of the training images whose vectors are most like its own."""
    return probe_run(probes.knn, run, sources(data), **how)
