"""The verbs: one function each, composed of what the other modules do."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vitrail import models
from vitrail.checkpoint import ModelCard, load_model, write_atomically
from vitrail.classifier import Classifier
from vitrail.config import RunConfig, config_to_json
from vitrail.data.dataset import Dataset, ImageSet
from vitrail.data.images import list_images
from vitrail.data.sources import open_dataset
from vitrail.data.splits import fingerprint, read_splits
from vitrail.engines.pytorch import TorchEngine, resolve_device
from vitrail.environment import describe_environment, package_version
from vitrail.errors import ConfigError, DataError, Interrupted, TrainingError, VitrailError, suggest
from vitrail.evaluation import classification_metrics, softmax
from vitrail.predictions import Prediction, check_output, write_parquet, write_predictions
from vitrail.preparation import Request, TrainingData, prepare_new, prepare_resumed, preprocess_of, resized
from vitrail.reporting.run_figures import (
    Picture,
    draw_data_figures,
    draw_result_figures,
    draw_training_figures,
    run_html,
)
from vitrail.runs import RunDirectory, find_run, new_run, newest_unfinished

if TYPE_CHECKING:
    from vitrail.training.loop import Progress, Report, Training


_BETTER_SMALL = frozenset({"loss", "ece"})


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

    def predict(self, images: Sequence[str | Path] | str | Path, device: str = "auto") -> list[Prediction]:
        """As `vitrail.predict`."""
        return predict(self.path, images, device=device)

    def figures(self) -> dict[str, Picture]:
        """The pictures of the run by name, such as "curves" and "confusion"; a notebook shows each as it is."""
        return {path.stem: Picture(path) for path in sorted(self.directory.figures_path.glob("*.png"))}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        return run_html(str(self.path), self.result, self.figures())


def create_model(name: str, **settings: Any) -> nn.Module:
    """An untrained model by name: `create_model("vit_tiny_patch16_224", num_classes=10)`, settings of ViTConfig.

    It takes (B, C, rows, columns) uint8 in 0..255 or float in 0..1 and gives logits (B, num_classes).
    Raises ConfigError for an unknown name or settings that do not fit together.
    """
    return models.create_model(name, **settings)


def load(run: str | Path, device: str = "auto") -> Classifier:
    """The classifier of a run ("last" is the newest finished one), on `device`.

    Raises ConfigError if there is no such run, CheckpointError if its model is missing or damaged.
    """
    model, card = load_model(find_run(run).path)
    return Classifier(TorchEngine(model, resolve_device(device)), card)


def train(
    data: str | Path | None = None,
    *,
    recipe: str | None = None,
    model: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str | None = None,
    settings: Mapping[str, Any] | None = None,
    report: Report | None = None,
    started: float | None = None,
) -> Run:
    """Train a classifier and test it once; gives the finished run.

    `data` is a named set, a folder or a Parquet file; None is `digits`. `settings` are dotted keys, as for --set.
    `report` is called with a Progress as training goes on; `started` is time.perf_counter() at the command's start.
    With `resume`, the run at `out`, or the newest unfinished one, goes on; it must have the same config and data.
    Raises ConfigError, DataError, TrainingError or CheckpointError with one sentence, Interrupted after a signal.
    """
    from vitrail.training.loop import Training
    from vitrail.training.threads import threads

    started = time.perf_counter() if started is None else started
    request = Request(str(data) if data is not None else None, recipe, model, epochs, seed, precision, settings)
    target = resolve_device(device)
    if resume:
        directory = find_run(out) if out is not None else newest_unfinished()
        config, content = prepare_resumed(directory, request)
    else:
        dataset = open_dataset(request.data or "digits")
        config, content = prepare_new(dataset, request)
        directory = RunDirectory(out) if out is not None else new_run(dataset.name, config.recipe)
        directory.create(config_to_json(config), content.splits.to_json() + "\n")
        draw_data_figures(directory, content.train, dataset.classes)
    plan = _journal_start(directory, config, target)
    environment = describe_environment(str(target)) | {"data_fingerprint": content.splits.fingerprint}
    write_atomically(directory.environment_path, json.dumps(environment, indent=2) + "\n")
    card = _model_card(config, content)
    with _advice(directory, config), threads(plan["threads"]):
        training = Training(config, content.train, content.validation, directory, card, target, plan["bfloat16"])
        preparation_seconds = time.perf_counter() - started
        training.run(report or _say_nothing)
        facts = _facts(directory, config, content, training, preparation_seconds)
        _finish(directory, content, facts, target, started)
    return Run(directory.path)


@contextmanager
def _advice(directory: RunDirectory, config: RunConfig) -> Generator[None]:
    """Say how a run goes on that was stopped by a signal, a full disk, damaged test data, or for want of memory."""
    try:
        yield
    except Interrupted:
        with suppress(VitrailError):  # a disk that is full now is no reason to end otherwise
            draw_training_figures(directory)
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"Stopped by SIGINT; continue with: {directory.resume_command()}") from None
    except VitrailError as error:
        if not isinstance(error.__cause__, OSError) and not isinstance(error, DataError):
            raise
        raise type(error)(f"{error}; when that is mended, continue with: {directory.resume_command()}") from error
    except (RuntimeError, MemoryError) as error:  # torch has a type of its own for CUDA's memory only
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise TrainingError(
            f"There is not enough memory for {config.model_name} with training.batch_size={config.training.batch_size};"
            " lower that, raise training.accumulate, or take a smaller model"
        ) from error


def _facts(
    directory: RunDirectory, config: RunConfig, content: TrainingData, training: Training, preparation_seconds: float
) -> dict[str, Any]:
    """What the result says of the training itself."""
    counters = training.state.counters
    return {
        "run": str(directory.path),
        "dataset": content.dataset.name,
        "recipe": config.recipe,
        "model": config.model_name,
        "parameters": sum(parameter.numel() for parameter in training.state.model.parameters()),
        "images_seen": counters.step * training.loader.batch_size,
        "epochs": counters.epoch,
        "best_epoch": counters.best_epoch,
        "train_seconds": round(counters.train_seconds, 3),
        "evaluation_seconds": round(counters.evaluation_seconds, 3),
        "compile_seconds": round(counters.compile_seconds, 3),
        "preparation_seconds": round(preparation_seconds, 3),
        "stopped": "early" if counters.stopped_early else "done",
    }


def _say_nothing(progress: Progress) -> None:
    """The report of a caller who wants none."""


def _journal_start(directory: RunDirectory, config: RunConfig, device: torch.device) -> dict[str, Any]:
    """What this start computes with; a resumed run keeps the arithmetic and the threads it began with."""
    from vitrail.training.threads import training_threads

    began = directory.journal.last("start")
    precision = config.training.precision
    plan = {
        "bfloat16": precision == "bfloat16" or (precision == "auto" and device.type == "cuda"),
        "threads": training_threads(config),
    }
    if began is not None:
        plan = {key: began[key] for key in plan}
    directory.journal.write("start" if began is None else "resume", device=str(device), **plan)
    return plan


def _model_card(config: RunConfig, content: TrainingData) -> ModelCard:
    provenance = {
        "vitrail": package_version("vitrail"),
        "recipe": config.recipe,
        "dataset": content.dataset.name,
        "data_fingerprint": content.splits.fingerprint,
        "seed": config.seed,
    }
    return ModelCard(
        model_name=config.model_name,
        model=config.model,
        classes=content.dataset.classes,
        preprocess=preprocess_of(config),
        provenance=provenance,
    )


def _finish(
    directory: RunDirectory, content: TrainingData, facts: dict[str, Any], device: torch.device, started: float
) -> None:
    """Read the test split, this once; write predictions and figures; declare the run finished."""
    model, card = load_model(directory.path)
    classifier = Classifier(TorchEngine(model, device), card)
    tested_on = content.splits.images(content.dataset, "test")
    test = resized(tested_on, card.preprocess)
    result = dict(facts)
    for name, images in (("validation", content.validation), ("test", test)):
        logits = classifier.engine.logits(images.pixels)
        result[name] = classification_metrics(logits, images.labels, classifier.classes)
        if name == "test":
            _save_predictions(directory, name, images, logits, classifier.classes)
            draw_result_figures(directory, images, logits, classifier.classes, result[name])
    draw_training_figures(directory)
    result["total_seconds"] = round(time.perf_counter() - started, 3)
    directory.journal.write("finished", result=result, test_fingerprint=fingerprint(tested_on))


def _save_predictions(
    directory: RunDirectory, split: str, images: ImageSet, logits: np.ndarray, classes: tuple[str, ...]
) -> None:
    """predictions/<split>.parquet: image, label, prediction and the probability of every class."""
    probabilities = softmax(logits)
    columns: dict[str, list[Any]] = {
        "image": list(images.names),
        "label": [classes[label] for label in images.labels],
        "prediction": [classes[index] for index in probabilities.argmax(axis=1)],
    }
    columns |= {f"probability_{name}": probabilities[:, index].tolist() for index, name in enumerate(classes)}
    write_parquet(directory.predictions_path / f"{split}.parquet", columns)


def evaluate(
    run: str | Path, data: str | Path | None = None, *, split: str = "test", device: str = "auto"
) -> dict[str, Any]:
    """How good a run's model is on one split: the JSON object of `vitrail evaluate`, results under the split's name.

    Without `data` the run's own data and splits are used. Other data must have the same classes; its published split
    of that name is taken, or all of it where none is published.
    Raises ConfigError for an unknown run or split, or classes that differ, DataError for data that changed.
    """
    started = time.perf_counter()
    directory = find_run(run)
    classifier = load(directory.path, device)
    dataset, images = _evaluation_images(directory, None if data is None else str(data), split)
    if dataset.classes != classifier.classes:
        raise ConfigError(
            f"{dataset.name} has the classes {_some(dataset.classes)}, the model {_some(classifier.classes)}; "
            "evaluate on data with the model's classes"
        )
    images = resized(images, classifier.card.preprocess)
    logits = classifier.engine.logits(images.pixels)
    known = directory.result() or {}
    config = directory.config()
    model = classifier.engine.model if isinstance(classifier.engine, TorchEngine) else nn.Module()
    return {
        "run": str(directory.path),
        "dataset": dataset.name,
        "recipe": config.recipe,
        "model": config.model_name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "images_seen": known.get("images_seen"),
        "train_seconds": known.get("train_seconds"),
        "total_seconds": round(time.perf_counter() - started, 3),
        "stopped": known.get("stopped"),
        split: classification_metrics(logits, images.labels, classifier.classes),
    }


def _some(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:5])
    return shown if len(classes) <= 5 else f"{shown} and {len(classes) - 5} more"


def missed_requirements(metrics: Mapping[str, Any], requirements: Mapping[str, float]) -> list[str]:
    """One sentence for each result that misses what is required of it, such as {"accuracy": 0.95}.

    Results must be at least as large; loss and ece, which are better small, at most.
    Raises ConfigError for a name that is no single number among the results.
    """
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    for name in requirements:
        if name not in numbers:
            raise ConfigError(
                f"There is no result {name!r} to require.{suggest(name, numbers)} Use one of {', '.join(numbers)}"
            )
    missed: list[str] = []
    for name, required in requirements.items():
        if name in _BETTER_SMALL and not numbers[name] <= required:
            missed.append(f"{name} is {numbers[name]:.6g}, above the required {required:.6g}")
        elif name not in _BETTER_SMALL and not numbers[name] >= required:
            missed.append(f"{name} is {numbers[name]:.6g}, below the required {required:.6g}")
    return missed


def _evaluation_images(directory: RunDirectory, data: str | None, split: str) -> tuple[Dataset, ImageSet]:
    """The images to evaluate on; the run's own splits whenever the data is what it was trained on."""
    splits = read_splits(directory.splits_path)
    source = data or directory.config().data.source
    try:
        dataset = open_dataset(source)
    except ConfigError as error:
        if data is not None:
            raise
        raise ConfigError(
            f"The run's data, {source}, is not here ({error}); name it: vitrail evaluate RUN DATA"
        ) from None
    if data is None:
        images = splits.images(dataset, split)
        tested_on = (directory.journal.last("finished") or {}).get("test_fingerprint")
        if split == "test" and tested_on not in (None, fingerprint(images)):
            raise DataError(
                f"The test images or labels of {dataset.name} have changed since the run was tested; "
                "name the data to evaluate on it as it is: vitrail evaluate RUN DATA"
            )
        return dataset, images
    trained_on = splits.parts["train"].source
    if trained_on in dataset.published and fingerprint(dataset.read(trained_on)) == splits.fingerprint:
        return dataset, splits.images(dataset, split)
    return dataset, dataset.read("all" if dataset.published == ("all",) else split)


def predict(
    run: str | Path,
    images: Sequence[str | Path] | str | Path,
    *,
    output: str | Path | None = None,
    device: str = "auto",
) -> list[Prediction]:
    """A Prediction for each image file; `images` are files, folders (searched whole) and globs.

    A file that cannot be read has a Prediction with its `error` set. With `output`, a .csv, .jsonl or .parquet file,
    they are also written there. Raises ConfigError for an unknown run, paths without images, or an unfit `output`.
    """
    paths = list_images([images] if isinstance(images, str | Path) else list(images))
    if output is not None:
        check_output(Path(output))
    predictions = list(load(run, device).predict_many(paths))
    if output is not None:
        write_predictions(Path(output), predictions)
    return predictions
