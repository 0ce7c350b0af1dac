"""From what a user asked for to what a run is trained on: one config and its images."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vitrail import models
from vitrail.config import RunConfig, config_to_json, differences, with_settings
from vitrail.data.audit import Audit, audit_dataset, broken_sentence, check_broken
from vitrail.data.corrections import Corrections, check_corrections, corrected, read_corrections
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.drawing import parse_fold
from vitrail.data.folders import holds_class_folders
from vitrail.data.named import NAMED
from vitrail.data.preprocess import Preprocess
from vitrail.data.records import ReadOptions
from vitrail.data.sources import open_dataset
from vitrail.data.splits import Splits, fingerprint, make_splits, read_splits
from vitrail.errors import ConfigError, DataError
from vitrail.fitting import check_of_files, check_parts, fit_flips, fit_to_pixels, fit_to_shapes
from vitrail.initialization import InitialWeights, begun_from, initial_weights, open_initial, reopened
from vitrail.models.adaptation import adapt_scaling
from vitrail.pretrained import Pretrained, settled
from vitrail.reading import READ_SETTINGS, read_options
from vitrail.recipes import RECIPES, recipe_for, recipe_function
from vitrail.runs import RunDirectory, copy_decisions, find_run
from vitrail.training.imbalance import check_for_several_labels, fit_to_counts
from vitrail.training.state import checkpoint_paths
from vitrail.training.trackers import check_tracker

logger = logging.getLogger(__name__)

LARGEST_SIDE = 96  # pixels that a recipe for small images grows to where none is named; larger images are shrunk


@dataclass(frozen=True)
class Request:
    """What a user asked `train` for; None where nothing was said."""

    data: tuple[str, ...] = ()
    recipe: str | None = None
    model: str | None = None
    epochs: int | None = None
    seed: int | None = None
    precision: str | None = None
    settings: Mapping[str, Any] | None = None
    corrections: Path | None = None
    time_seconds: float | None = None
    init: str | None = None
    offline: bool = False
    like: RunDirectory | None = None  # the run that `recipe` names, whose config is taken

    def all_settings(self) -> dict[str, Any]:
        """What was asked for by key, whether as a setting or as an option. Raises ConfigError where it is not clear."""
        options = {
            "training.epochs": ("--epochs", self.epochs),
            "training.time_seconds": ("--time", self.time_seconds),
            "seed": ("--seed", self.seed),
            "training.precision": ("--precision", self.precision),
        }
        given: dict[str, Any] = {key: value for key, (_, value) in options.items() if value is not None}
        asked = self.settings or {}
        for key in given.keys() & asked.keys():
            raise ConfigError(f"{key} is given twice, by {options[key][0]} and as a setting; leave one of them out")
        both = {**asked, **given}
        if "training.epochs" in both:
            if both.get("training.time_seconds") not in (None, "none", "null"):
                raise ConfigError("Epochs and a time both say how long to train; leave --epochs or --time out")
            given["training.time_seconds"] = None  # that of a run whose settings are taken
        for key, option in (("source", "DATA"), ("also", "DATA"), ("corrections", "--corrections")):
            if f"data.{key}" in asked:
                raise ConfigError(
                    f"data.{key}={asked[f'data.{key}']!r} is not a setting of its own; give it as {option}"
                )
        if self.corrections is not None:
            given["data.corrections"] = read_corrections(self.corrections).digest
        return {**asked, **given}

    def read_options(self) -> ReadOptions:
        """What was asked for about reading data. Raises ConfigError for what is not possible."""
        asked = {key: value for key, value in (self.settings or {}).items() if key in READ_SETTINGS}
        return read_options(self.like, self.data or ("digits",), asked, offline=self.offline)

    def resolved(self) -> Request:
        """The request with the run that its recipe names, where that is no recipe's name, and with that run's data."""
        name = self.recipe
        if name is None or name in RECIPES:
            return self
        try:
            run = find_run(name)
        except ConfigError:
            if name == "last" or len(Path(name).parts) > 1:
                raise
            return self  # a recipe's name that is wrong
        data = run.config().data
        kept = run.corrections_path if data.corrections is not None and not self.data else None
        sources = self.data or (data.source, *data.also)
        return replace(self, data=sources, recipe=None, corrections=self.corrections or kept, like=run)


@dataclass(frozen=True)
class TrainingData:
    """The images of a run, at the model's size, where they come from, and what is to be known of them."""

    dataset: Dataset
    splits: Splits
    train: ImageSet
    validation: ImageSet
    audit: Audit | None = None
    corrections: Corrections | None = None
    initial: InitialWeights | None = None

    def identity(self) -> list[str]:
        """What must be equal in a run that goes on, or is repeated: images and labels, and the names of classes."""
        return [*map(fingerprint, (self.train, self.validation)), *self.splits.classes]


def open_requested(request: Request) -> tuple[Dataset, Corrections | None]:
    """The data set asked for, digits where none is named, and the corrections to it."""
    if not request.data and holds_class_folders(Path()):
        raise ConfigError(
            "This folder holds class folders; `vitrail train .` trains on them, `vitrail train digits` on the digits"
        )
    dataset = open_dataset(*(request.data or ("digits",)), options=request.read_options())
    return dataset, None if request.corrections is None else read_corrections(request.corrections)


def open_data_of(directory: RunDirectory, data: tuple[str, ...] = (), options: ReadOptions | None = None) -> Dataset:
    """The data that a run was trained on, its corrections applied; looked for at `data` if given."""
    return corrected_as_in(directory, open_original(directory, data, options))


def corrected_as_in(directory: RunDirectory, original: Dataset) -> Dataset:
    """The data of a run with the corrections that it keeps, if it does."""
    if directory.config().data.corrections is None:
        return original
    return corrected(original, read_corrections(directory.corrections_path))


def open_original(directory: RunDirectory, data: tuple[str, ...] = (), options: ReadOptions | None = None) -> Dataset:
    """The data that a run was trained on as it is without corrections; looked for at `data` if given.

    It is read as the run did, or as `options` say.
    """
    config = directory.config().data
    return open_dataset(*(data or (config.source, *config.also)), options=options or read_options(directory, data))


def prepare_new(
    dataset: Dataset, request: Request, corrections: Corrections | None = None
) -> tuple[RunConfig, TrainingData]:
    """The config of a new run, fitted to its data, and the data with the corrections applied."""
    original = dataset
    settings = request.settings or {}
    check_of_files(original, settings)
    if corrections is not None:
        dataset = corrected(dataset, corrections)
    if len(dataset.classes) < 2:
        raise DataError(f"{dataset.name} has one class, {', '.join(dataset.classes)}; a classifier needs two or more")
    init = _requested_init(request)
    is_named = request.model is not None or request.init is None
    named = _requested_config(request, dataset).model if init is not None and is_named else None
    pretrained = None if init is None else open_initial(init, named, offline=request.offline)
    config = _fit_to_classes(_requested_config(request, dataset, pretrained), request, dataset, pretrained)
    check_parts(config, settings)
    config = fit_to_shapes(config, dataset, settings)
    chosen = request.like is not None or "data.augment.flip_rate" in settings
    config = fit_flips(config, dataset, chosen)
    initial = None if pretrained is None else initial_weights(pretrained, config, dataset.classes)
    check_tracker(config.training.tracker)
    if dataset.multilabel:
        check_for_several_labels(config)
    if config.data.fold is not None:
        parse_fold(config.data.fold)
    preprocess = preprocess_of(config)
    if corrections is not None:
        check_corrections(original, corrections, preprocess)
        logger.info("%s", corrections.summary())
    canvas = canvas_of(config, dataset)
    looked_at = _on_canvas(dataset, preprocess, canvas)
    audit = audit_dataset(looked_at, preprocess) if dataset.grows else None
    if audit is not None:
        for split, counts in audit.counts.items():
            check_broken(dataset, split, sum(counts), config.data.max_broken_rate)
        for sentence in audit.sentences():
            logger.info("%s", sentence)
    rates = config.data.validation_rate, config.data.test_rate
    splits = make_splits(looked_at, *rates, config.data.split_seed, preprocess, config.data.fold)
    if audit is None:
        for split, files in dataset.broken.items():
            check_broken(dataset, split, len(looked_at.prepared(split, preprocess)), config.data.max_broken_rate)
            if files:
                logger.info("%s", broken_sentence(split, files))
    train, validation = splits.images(dataset, "train", canvas), splits.images(dataset, "validation", preprocess)
    test = splits.parts["test"].members if "test" in splits.parts else None
    counts = f"{len(train):,} images to train on, {len(validation):,} to choose the best epoch by"
    logger.info("%s", f"{dataset.name}: {counts}" + ("" if test is None else f", {len(test.names):,} for the test"))
    content = TrainingData(dataset, splits, train, validation, audit, corrections, initial)
    return fit_to_counts(fit_to_pixels(config, train), train.labels), content


def data_to_audit(request: Request) -> tuple[Dataset, Preprocess, Corrections | None]:
    """The data asked for, as a training on it would read it, corrected, and the corrections."""
    original, corrections = open_requested(request)
    check_of_files(original, request.settings or {})
    dataset = original if corrections is None else corrected(original, corrections)
    config = _fit_to_classes(_requested_config(request, dataset), request, dataset)
    preprocess = preprocess_of(fit_to_shapes(config, dataset, request.settings or {}))
    if corrections is not None:
        check_corrections(original, corrections, preprocess)
    return dataset, preprocess, corrections


def prepare_resumed(directory: RunDirectory, request: Request) -> tuple[RunConfig, TrainingData]:
    """The config and data of a run to go on with; what was not asked for stays as the run has it.

    Raises ConfigError if the run is finished, or if what was asked for is not what it has.
    """
    if directory.result() is not None:
        raise ConfigError(f"{directory.path} is finished; `vitrail train` without --resume starts a new run")
    config = directory.config()
    check_tracker(config.training.tracker)
    changed = differences(config, _with_said(config, request))
    if changed:
        raise ConfigError(
            f"{directory.path} has other settings ({'; '.join(changed)}); resume it without them, or start a new run"
        )
    dataset = open_data_of(directory, request.data, read_options(directory, offline=request.offline))
    splits = read_splits(directory.splits_path)
    if dataset.name != splits.dataset:
        raise ConfigError(
            f"{directory.path} was trained on {splits.dataset}, not {dataset.name}; resume it on its own data"
        )
    initial = None
    if config.init is not None and not checkpoint_paths(directory.checkpoints_path):
        began = (directory.journal.last("start") or {}).get("init")
        initial = reopened(config, splits.classes, began, offline=request.offline)
    train = splits.images(dataset, "train", canvas_of(config, dataset))
    validation = splits.images(dataset, "validation", preprocess_of(config))
    return config, TrainingData(dataset, splits, train, validation, initial=initial)


def _requested_init(request: Request) -> str | None:
    """The weights to begin with: those asked for, else those of the run whose settings are taken."""
    if request.init is not None:
        return settled(request.init)
    return None if request.like is None else request.like.config().init


def _requested_config(request: Request, dataset: Dataset, pretrained: Pretrained | None = None) -> RunConfig:
    """The recipe with what the user asked for; its images as large as the data's if the user named no recipe.

    With the weights to begin with, the model and its images are as theirs.
    """
    rows, columns, channels = dataset.shape
    source, *also = request.data or (dataset.name,)
    if request.like is not None:
        config = _of_run(request.like, request, channels)
    else:
        known = dataset.name if source in NAMED else ""  # a folder called digits may hold anything
        name = request.recipe or ("finetune" if pretrained else recipe_for(known, (rows, columns), channels))
        config = _with_model(recipe_function(name)(), request.model)
        own_size = name == "photos" and max(rows, columns) >= max(config.model.image_size)
        if request.model is None and request.recipe is None and not own_size and pretrained is None:
            shrink = min(1.0, LARGEST_SIDE / max(rows, columns))
            size = [max(1, round(side * shrink)) for side in (rows, columns)]
            config = with_settings(config, {"model.image_size": size})
    if pretrained is not None and request.init is not None:  # else they are in the config of the run that had them
        fit = config.data.fit == "auto"  # a recipe, or a run, that names a fit keeps it
        config = begun_from(config, pretrained, settled(request.init), model=request.model, fit=fit)
    asked = request.all_settings()
    if asked.get("data.fit", config.data.fit) != config.data.fit:
        asked = {"data.crop_rate": 1.0, **asked}  # that of the recipe or the weights belongs to their fit
    return with_settings(config, {**asked, "data.source": source, "data.also": also})


def _with_model(config: RunConfig, name: str | None) -> RunConfig:
    """The config with the model of that name; as it is where none is named."""
    if name is None:
        return config
    return config.model_copy(update={"model_name": name, "model": models.model_config(name)})


def _of_run(run: RunDirectory, request: Request, channels: int) -> RunConfig:
    """The config of a run, for data with so many channels."""
    config = _with_model(run.config(), request.model)
    own = (config.data.source, *config.data.also)
    other_images = request.data != own and config.init is None  # than means and deviations are of
    if config.model.in_chans != channels or other_images:
        config = with_settings(config, {"model.mean": None, "model.std": None})
    return with_settings(config, {"data.corrections": None})  # those asked for, if any, come with the settings


def is_repetition(run: RunDirectory, config: RunConfig, content: TrainingData, device: str) -> bool:
    """Whether training this is doing again what a finished run did: its settings, its data, its device."""
    began = run.journal.last("start")
    if run.result() is None or began is None or began["device"] != device:
        return False
    here = {"data.source": config.data.source, "data.also": config.data.also}
    weights = None if content.initial is None else content.initial.origin["digest"]
    same_weights = (began.get("init") or {}).get("digest") == weights
    return with_settings(run.config(), here) == config and began["data"] == content.identity() and same_weights


def create_run(directory: RunDirectory, config: RunConfig, content: TrainingData) -> None:
    """Make the run's directory, with all that is known before training."""
    audit = None if content.audit is None else json.dumps(content.audit.to_dict(), indent=1) + "\n"
    corrections = None if content.corrections is None else content.corrections.text
    directory.create(config_to_json(config), content.splits.to_json() + "\n", corrections, audit)


def repeat_if_equal(
    like: RunDirectory, directory: RunDirectory, config: RunConfig, content: TrainingData, device: str
) -> None:
    """Let a run take the decisions of the one it repeats, if it does repeat it; say which of the two it is."""
    if is_repetition(like, config, content, device):
        copy_decisions(like, directory)
        logger.info("%s", f"This repeats {like.path} step by step")
    else:
        logger.info(
            "%s", f"This takes the settings of {like.path}, and is no repetition: data, settings or device differ"
        )


def _with_said(config: RunConfig, request: Request) -> RunConfig:
    """The config of a run with what the user asks for now: the same config where the two agree."""
    init = None if request.init is None else settled(request.init)
    names = {"recipe": request.recipe, "model_name": request.model, "init": init}
    settings = request.all_settings()
    for key in ("data.fit", "training.imbalance"):
        if settings.get(key) == "auto":
            del settings[key]  # the run has what came of it
    asked = with_settings(config, settings)
    return asked.model_copy(update={key: name for key, name in names.items() if name is not None})


def _fit_to_classes(
    config: RunConfig, request: Request, dataset: Dataset, pretrained: Pretrained | None = None
) -> RunConfig:
    """The config with the data's classes and channels, scaled as the weights to begin with are used to."""
    settings = request.settings or {}
    num_classes, asked = len(dataset.classes), config.model.num_classes
    if "model.num_classes" in settings and asked != num_classes:
        raise ConfigError(f"model.num_classes={asked} disagrees with {dataset.name}, which has {num_classes} classes")
    channels = config.model.in_chans if "model.in_chans" in settings else dataset.shape[2]
    fitted: dict[str, Any] = {"model.num_classes": num_classes, "model.in_chans": channels}
    known = {} if pretrained is None else adapt_scaling(pretrained.config, channels)
    for name in ("mean", "std"):
        values = getattr(config.model, name)
        if name in known and f"model.{name}" not in settings and (values is None or request.init is not None):
            fitted[f"model.{name}"] = known[name]
        elif values is not None and len(values) == 1:
            fitted[f"model.{name}"] = values * channels  # a recipe's one value stands for every channel
    return with_settings(config, fitted)


def canvas_of(config: RunConfig, dataset: Dataset) -> Preprocess:
    """How images are kept for training: larger than the model takes them where crops are cut from them."""
    preprocess = preprocess_of(config)
    return preprocess if config.data.augment.crop_scale is None else preprocess.canvas(dataset.shape[:2])


def _on_canvas(dataset: Dataset, preprocess: Preprocess, canvas: Preprocess) -> Dataset:
    """The data set for those who look at labels and hashes alone: training images are not decoded a second time."""
    source = dataset.training_source
    if canvas == preprocess or dataset.preparer is None:
        return dataset

    def prepared(split: str, size: Preprocess) -> ImageSet:
        return dataset.prepared(split, canvas if split == source else size)

    return replace(dataset, preparer=prepared)


def preprocess_of(config: RunConfig) -> Preprocess:
    """How images become the input of the config's model."""
    assert config.data.fit != "auto"
    return Preprocess(
        image_size=config.model.image_size,
        channels=config.model.in_chans,
        fit=config.data.fit,
        crop_rate=config.data.crop_rate,
    )
