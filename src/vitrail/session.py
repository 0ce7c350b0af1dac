"""One training from its start to its finish: journal, loop, test, predictions, figures."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitrail.checkpoint import ModelCard, load_model, write_atomically
from vitrail.classifier import Classifier
from vitrail.config import RunConfig
from vitrail.data.dataset import ImageSet
from vitrail.data.splits import fingerprint
from vitrail.engines.pytorch import TorchEngine
from vitrail.environment import describe_environment, package_version
from vitrail.errors import ConfigError, DataError, Interrupted, TrainingError, VitrailError
from vitrail.evaluation import classification_metrics, softmax
from vitrail.predictions import write_parquet
from vitrail.preparation import TrainingData, preprocess_of, resized
from vitrail.reporting.run_figures import draw_result_figures, draw_training_figures
from vitrail.runs import RunDirectory

if TYPE_CHECKING:
    from vitrail.training.loop import Progress, Report, Training


def train_prepared(
    directory: RunDirectory,
    config: RunConfig,
    content: TrainingData,
    device: torch.device,
    report: Report,
    started: float,
) -> None:
    """Train a run whose directory, config and images are ready, then test it; `started` is the command's start.

    Raises as `vitrail.train` does.
    """
    from vitrail.training.loop import Training
    from vitrail.training.threads import threads

    plan = _journal_start(directory, config, content, device)
    environment = describe_environment(str(device)) | {"data_fingerprint": content.splits.fingerprint}
    write_atomically(directory.environment_path, json.dumps(environment, indent=2) + "\n")
    card = _model_card(config, content)
    forked = [device] if device.type == "cuda" else []
    with _advice(directory, config):
        with threads(plan["threads"]), torch.random.fork_rng(forked):  # the caller's draws stay what they are
            training = Training(config, content.train, content.validation, directory, card, device, plan["bfloat16"])
            preparation_seconds = time.perf_counter() - started
            training.run(report)
        facts = _facts(directory, config, content, training, preparation_seconds)
        _finish(directory, content, facts, device, started)


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
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
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


def say_nothing(progress: Progress) -> None:
    """The report of a caller who wants none."""


def _journal_start(
    directory: RunDirectory, config: RunConfig, content: TrainingData, device: torch.device
) -> dict[str, Any]:
    """What this start computes with; a resumed run keeps the data, the arithmetic and the threads it began with.

    Raises ConfigError if images, labels or names of classes are not those that the run began with.
    """
    from vitrail.training.threads import training_threads

    began = directory.journal.last("start")
    precision = config.training.precision
    plan = {
        "bfloat16": precision == "bfloat16" or (precision == "auto" and device.type == "cuda"),
        "threads": training_threads(config),
        "data": [*map(fingerprint, (content.train, content.validation)), *content.dataset.classes],
    }
    if began is not None:
        if began["data"] != plan["data"]:
            raise ConfigError(
                f"{directory.path} began with other images, labels or classes than {content.dataset.name} has now; "
                "bring the old data back, or start a new run"
            )
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
        logits = classifier.logits(images.pixels)
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
