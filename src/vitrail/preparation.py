"""From what a user asked for to what a run is trained on: one config and its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitrail import models
from vitrail.config import RunConfig, differences, with_settings
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.preprocess import Preprocess, prepare_many
from vitrail.data.sources import open_dataset
from vitrail.data.splits import Splits, make_splits, read_splits
from vitrail.errors import ConfigError
from vitrail.recipes import recipe_for, recipe_function
from vitrail.runs import RunDirectory

LARGEST_SIDE = 96  # pixels that a recipe for small images grows to where none is named; larger images are shrunk


@dataclass(frozen=True)
class Request:
    """What a user asked `train` for; None where nothing was said."""

    data: str | None = None
    recipe: str | None = None
    model: str | None = None
    epochs: int | None = None
    seed: int | None = None
    precision: str | None = None
    settings: Mapping[str, Any] | None = None

    def all_settings(self) -> dict[str, Any]:
        """What was asked for by key, whether as a setting or as an option. Raises ConfigError where it is not clear."""
        options = {
            "training.epochs": ("--epochs", self.epochs),
            "seed": ("--seed", self.seed),
            "training.precision": ("--precision", self.precision),
        }
        given = {key: value for key, (_, value) in options.items() if value is not None}
        asked = self.settings or {}
        for key in given.keys() & asked.keys():
            raise ConfigError(f"{key} is given twice, by {options[key][0]} and as a setting; leave one of them out")
        if "data.source" in asked:
            raise ConfigError(
                f"data.source={asked['data.source']!r} is not a setting of its own; give the data as DATA"
            )
        return {**asked, **given}


@dataclass(frozen=True)
class TrainingData:
    """The images of a run, at the model's size, and where they come from."""

    dataset: Dataset
    splits: Splits
    train: ImageSet
    validation: ImageSet


def prepare_new(dataset: Dataset, request: Request) -> tuple[RunConfig, TrainingData]:
    """The config of a new run, fitted to its data, and the data."""
    source = dataset.read(dataset.training_source)
    config = _requested_config(request, dataset, source)
    splits = make_splits(dataset, config.data.validation_rate, config.data.test_rate, config.data.split_seed)
    return _fit_to_data(config, request, dataset, splits)


def prepare_resumed(directory: RunDirectory, request: Request) -> tuple[RunConfig, TrainingData]:
    """The config and data of a run to go on with; what was not asked for stays as the run has it.

    Raises ConfigError if the run is finished, or if what was asked for is not what it has.
    """
    if directory.result() is not None:
        raise ConfigError(f"{directory.path} is finished; `vitrail train` without --resume starts a new run")
    config = directory.config()
    changed = differences(config, _with_said(config, request))
    if changed:
        raise ConfigError(
            f"{directory.path} has other settings ({'; '.join(changed)}); resume it without them, or start a new run"
        )
    dataset = open_dataset(request.data or config.data.source)
    splits = read_splits(directory.splits_path)
    if dataset.name != splits.dataset:
        raise ConfigError(
            f"{directory.path} was trained on {splits.dataset}, not {dataset.name}; resume it on its own data"
        )
    preprocess = preprocess_of(config)
    train, validation = (resized(splits.images(dataset, name), preprocess) for name in ("train", "validation"))
    return config, TrainingData(dataset, splits, train, validation)


def _requested_config(request: Request, dataset: Dataset, source: ImageSet) -> RunConfig:
    """The recipe with what the user asked for; its images as large as the data's if the user named no recipe."""
    rows, columns = source.pixels.shape[1:3]
    name = request.recipe or recipe_for(dataset.name, (rows, columns))
    config = recipe_function(name)()
    if request.model is not None:
        chosen = models.model_config(request.model)
        config = config.model_copy(update={"model_name": request.model, "model": chosen})
    elif request.recipe is None:
        shrink = min(1.0, LARGEST_SIDE / max(rows, columns))
        config = with_settings(config, {"model.image_size": [max(1, round(side * shrink)) for side in (rows, columns)]})
    return with_settings(config, {**request.all_settings(), "data.source": request.data or dataset.name})


def _with_said(config: RunConfig, request: Request) -> RunConfig:
    """The config of a run with what the user asks for now: the same config where the two agree."""
    names = {"recipe": request.recipe, "model_name": request.model}
    asked = with_settings(config, request.all_settings())
    return asked.model_copy(update={key: name for key, name in names.items() if name is not None})


def _fit_to_data(
    config: RunConfig, request: Request, dataset: Dataset, splits: Splits
) -> tuple[RunConfig, TrainingData]:
    """The config with the data's classes, channels, mean and deviation, and the images at the model's size."""
    settings = request.settings or {}
    num_classes, raw = len(dataset.classes), splits.images(dataset, "train")
    asked = config.model.num_classes
    if "model.num_classes" in settings and asked != num_classes:
        raise ConfigError(f"model.num_classes={asked} disagrees with {dataset.name}, which has {num_classes} classes")
    channels = config.model.in_chans if "model.in_chans" in settings else raw.pixels.shape[3]
    fitted: dict[str, Any] = {"model.num_classes": num_classes, "model.in_chans": channels}
    for name in ("mean", "std"):
        values = getattr(config.model, name)
        if values is not None and len(values) == 1:  # a recipe's one value stands for every channel
            fitted[f"model.{name}"] = values * channels
    config = with_settings(config, fitted)
    preprocess = preprocess_of(config)
    train = resized(raw, preprocess)
    if config.model.mean is None or config.model.std is None:
        values = train.pixels.reshape(-1, channels)
        mean = [round(float(value) / 255, 6) for value in values.mean(axis=0, dtype=np.float64)]
        std = [max(round(float(value) / 255, 6), 1e-3) for value in values.std(axis=0, dtype=np.float64)]
        config = with_settings(config, {"model.mean": config.model.mean or mean, "model.std": config.model.std or std})
    validation = resized(splits.images(dataset, "validation"), preprocess)
    return config, TrainingData(dataset, splits, train, validation)


def preprocess_of(config: RunConfig) -> Preprocess:
    """How images become the input of the config's model."""
    return Preprocess(image_size=config.model.image_size, channels=config.model.in_chans, fit=config.data.fit)


def resized(images: ImageSet, preprocess: Preprocess) -> ImageSet:
    """The set with its images as `preprocess` makes them; shared, not copied, where they are so already."""
    return ImageSet(prepare_many(images.pixels, preprocess), images.labels, images.names)
