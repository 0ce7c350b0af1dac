"""The verbs: one function each, composed of what the other modules do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from torch import nn

from vitrail import history, models
from vitrail.auditing import AuditWishes, FullAudit, audit_data
from vitrail.classifier import Classifier, Count
from vitrail.config import RunConfig, parse_duration
from vitrail.data.splits import read_splits
from vitrail.embedding import Embeddings, embed_images
from vitrail.engines.adaptation import SizeLike, changes
from vitrail.engines.pytorch import resolve_device
from vitrail.errors import ConfigError
from vitrail.evaluation import probes
from vitrail.evaluation_data import check_number_of_labels, evaluation_images, published_images
from vitrail.exporting.folders import Exported, export_classifier
from vitrail.fitting import check_of_files
from vitrail.initialization import initial_model
from vitrail.labelling import Predictions, Wishes, label_images, list_files, list_inputs
from vitrail.loading import check_classes, find_source
from vitrail.predictions import check_output
from vitrail.preparation import (
    Request,
    create_run,
    open_requested,
    prepare_new,
    prepare_resumed,
    repeat_if_equal,
)
from vitrail.probing import probe_run
from vitrail.publishing import push_run
from vitrail.reading import read_options
from vitrail.reporting.run_figures import Picture, run_html
from vitrail.runs import RunDirectory, find_run, new_run, newest_unfinished
from vitrail.session import evaluated, say_nothing, train_prepared

if TYPE_CHECKING:
    from vitrail.training.loop import Report


class Run:
    """A run's directory and its verbs."""

    def __init__(self, path: str | Path) -> None:
        self.directory = find_run(path)
        self.path = self.directory.path

    @property
    def config(self) -> RunConfig:
        """Every setting of the run."""
        return self.directory.config()

    @property
    def result(self) -> dict[str, Any] | None:
        """What `vitrail train --json` printed, or None if the run has not finished."""
        return self.directory.result()

    def classifier(self, device: str = "auto") -> Classifier:
        """The run's best model, ready to predict."""
        return load(self.path, device)

    def evaluate(self, data: str | None = None, split: str = "test", device: str = "auto") -> dict[str, Any]:
        """As `vitrail.evaluate`."""
        return evaluate(self.path, data, split=split, device=device)

    def predict(self, images: Sequence[str | Path] | str | Path, device: str = "auto") -> Predictions:
        """As `vitrail.predict`."""
        return predict(self.path, images, device=device)

    def embed(
        self, images: Sequence[str | Path] | str | Path, output: str | Path | None = None, device: str = "auto"
    ) -> Embeddings:
        """As `vitrail.embed`."""
        return embed(self.path, images, output=output, device=device)

    def figures(self) -> dict[str, Picture]:
        """The pictures of the run by name, such as "curves" and "confusion"; a notebook shows each as it is."""
        return {path.stem: Picture(path) for path in sorted(self.directory.figures_path.glob("*.png"))}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        return run_html(str(self.path), self.result, self.figures())


def create_model(name: str, *, init: str | None = None, offline: bool = False, **settings: Any) -> nn.Module:
    """A model by name: `create_model("vit_tiny_patch16_224", num_classes=10)`, settings of its config.

    It takes (B, C, rows, columns) uint8 in 0..255 or float in 0..1 and gives logits (B, num_classes). It is untrained,
    but for the weights that `init` names, as for `train`; its head too, unless it has as many classes as they have.
    Raises ConfigError for an unknown name or settings that do not fit together, CheckpointError for unfit weights.
    """
    if init is None:
        return models.create_model(name, **settings)
    return initial_model(name, settings, init, offline=offline)


def load(
    run: str | Path,
    device: str = "auto",
    *,
    image_size: SizeLike | None = None,
    merge_tokens: int = 0,
    offline: bool = False,
) -> Classifier:
    """The classifier of a run ("last" is the newest finished one), on `device`.

    A published model is one too: "timm:<name>", "hf:<owner>/<model>" or "torchvision:<name>", downloaded unless
    `offline`, or a file or folder of weights.

    With `image_size`, such as 96 or (96, 128) rows and columns, it looks at larger, smaller or non-square images than
    in training; with `merge_tokens` it merges so many patches in each block, which is faster where there are many.
    Raises ConfigError if there is no such run, or for what does not fit its model, CheckpointError if that is missing
    or damaged.
    """
    return find_source(run).classifier(device, image_size, merge_tokens, offline=offline)


def train(
    data: str | Path | Sequence[str | Path] | None = None,
    *,
    recipe: str | None = None,
    model: str | None = None,
    init: str | Path | None = None,
    epochs: int | None = None,
    time: float | str | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str | None = None,
    settings: Mapping[str, Any] | None = None,
    corrections: str | Path | None = None,
    offline: bool = False,
    report: Report | None = None,
    started: float | None = None,
) -> Run:
    """Train a classifier and test it once; gives the finished run.

    `data` is a named set, a folder or a table, or several of these, joined; None is `digits`. `corrections` is a
    CSV file of corrections to it. `settings` are dotted keys, as for --set. `time` is the wall time for all of it, in
    seconds or as text such as "10m", instead of `epochs`. `recipe` is a recipe's name, or a run whose settings are
    taken; if none is changed, nor its data, a finished run is repeated, with the same weights to the last bit.
    `init` names the weights to begin with: timm:<name>, hf:<owner>/<model>, torchvision:<name>, a file or folder of
    weights, or a run; the model is then theirs where no `model` is named. With `offline` nothing is downloaded.
    `report` is called with a Progress as training goes on; `started` is time.perf_counter() at the command's start.
    With `resume`, the run at `out`, or the newest unfinished one, goes on; it must have the same config and data.
    Raises ConfigError, DataError, TrainingError or CheckpointError with one sentence, Interrupted after a signal.
    """
    started = perf_counter() if started is None else started
    seconds = parse_duration(time) if isinstance(time, str) else time
    request = Request(_sources(data), recipe, model, epochs, seed, precision, settings, _path(corrections), seconds)
    request = replace(request, init=None if init is None else str(init), offline=offline)
    target = resolve_device(device)
    if resume:
        directory = find_run(out) if out is not None else newest_unfinished()
        config, content = prepare_resumed(directory, request)
        if device == "auto":  # another device has other last bits
            began = directory.journal.last("start")
            target = target if began is None else resolve_device(began["device"])
    else:
        if out is not None:
            RunDirectory(out).check_unused()
        request = request.resolved()
        began = None if request.like is None else request.like.journal.last("start")
        if began is not None and device == "auto":
            with suppress(ConfigError):  # that device may not be here; then it is no repetition
                target = resolve_device(began["device"])
        dataset, corrections_read = open_requested(request)
        config, content = prepare_new(dataset, request, corrections_read)
        directory = RunDirectory(out) if out is not None else new_run(dataset.name, config.recipe)
        create_run(directory, config, content)
        if request.like is not None:
            repeat_if_equal(request.like, directory, config, content, str(target))
    with directory.locked():
        train_prepared(directory, config, content, target, report or say_nothing, started)
    return Run(directory.path)


def _sources(data: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    given = [] if data is None else [data] if isinstance(data, str | Path) else data
    return tuple(map(str, given))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


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
    options = read_options(directory, _sources(data), settings, offline=offline)
    card, asked = classifier.card, (_sources(data), split, _path(corrections))
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
    target = _path(output)
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
    return probe_run(probes.linear_probe, run, _sources(data), **how)


def knn(run: str | Path, data: str | Path | Sequence[str | Path] | None = None, **how: Any) -> dict[str, Any]:
    """As `linear_probe`, but each image gets the class of the training images whose vectors are most like its own."""
    return probe_run(probes.knn, run, _sources(data), **how)


def export(run: str | Path, format: str, output: str | Path | None = None, *, offline: bool = False) -> Exported:
    """Write a run's model for another library, "timm" or "huggingface", into the folder `output`, new or empty.

    What was written is read again, and must give the same logits. Without `output` it goes to exports/<run>-<format>.
    Raises ConfigError for a model that the format cannot express, ExportError if what was written answers otherwise.
    """
    source = find_source(run)
    classifier = source.classifier("cpu", offline=offline)
    check_classes(classifier, source.name)
    return export_classifier(classifier, source.name, format, _path(output))


def push(run: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a finished run's model with a model card to `repository`, owner/name on the hub; gives its address.

    It is made if it is not there, with `private` for its owner alone. Images and paths of this machine stay here.
    Raises ConfigError for an unknown or unfinished run, CheckpointError if the hub refuses or is not reached.
    """
    return push_run(find_run(run), repository, private=private)


def audit(
    data: str | Path | Sequence[str | Path],
    *,
    corrections: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    model: str | Path | None = None,
    labels: bool | None = None,
    html: str | Path | None = None,
    write_corrections: str | Path | None = None,
    preview: int | None = None,
    device: str = "auto",
    offline: bool = False,
    report: Count | None = None,
) -> FullAudit:
    """What is wrong with the images of `data`: unreadable ones, copies, odd images, suspicious labels, rare classes.

    `corrections` are as for `train`, `settings` as for `evaluate`, and those on fit and size. `labels` says whether to
    check these, by default where that is quick, and `model`'s vectors then tell images apart. `html`,
    `write_corrections` (a new file) and `preview` (a number of images) say what to write; the rest is as for `embed`.
    Raises ConfigError and DataError as `train` does.
    """
    asked = Request(_sources(data), settings=settings, corrections=_path(corrections), offline=offline)
    wishes = AuditWishes(model, labels, _path(html), _path(write_corrections), preview)
    return audit_data(asked, wishes, device, report)


def list_models(pattern: str | None = None) -> list[dict[str, Any]]:
    """The models whose names hold or match `pattern`, or all: what `vitrail models --json` prints.

    `timm:PATTERN` lists timm's. Raises ConfigError where none matches.
    """
    from vitrail.models import listing

    return listing.list_models(pattern)


def list_runs(folder: str | Path = "runs") -> list[dict[str, Any]]:
    """The runs in `folder`, or the one that it is, newest last: what `vitrail runs --json` prints.

    Raises ConfigError if `folder` is none; runs/ may be missing.
    """
    return history.list_runs(folder)


def difference(a: str | Path, b: str | Path) -> dict[str, Any]:
    """How two runs differ, and which is better on the same test images: the JSON object of `vitrail runs diff`.

    Raises ConfigError if a run is unknown, if both are the same, or if one is damaged.
    """
    return history.difference(a, b)
