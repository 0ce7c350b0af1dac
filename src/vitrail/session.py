"""One training from its start to its finish: journal, loop, test, predictions, figures."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vitrail.checkpoint import ModelCard, load_model, save_card, write_atomically
from vitrail.classifier import Classifier
from vitrail.config import RunConfig, with_settings
from vitrail.data.colors import to_levels
from vitrail.data.dataset import ImageSet
from vitrail.data.groups import interval_groups
from vitrail.data.splits import fingerprint
from vitrail.engines.pytorch import TorchEngine
from vitrail.environment import describe_environment, package_version
from vitrail.errors import ConfigError, DataError, Interrupted, TrainingError, VitrailError
from vitrail.evaluation import (
    classification_metrics,
    multilabel_metrics,
    reject_threshold,
    softmax,
    validated_sigmoid_temperature,
    validated_temperature,
)
from vitrail.models import count_parameters
from vitrail.models.weights import load_weights
from vitrail.predictions import GIVEN, write_parquet
from vitrail.preparation import TrainingData, preprocess_of
from vitrail.reporting.multilabel_figures import draw_multilabel_figures, label_sets
from vitrail.reporting.run_figures import (
    draw_batch_figure,
    draw_calibration_figures,
    draw_data_figures,
    draw_result_figures,
    draw_training_figures,
)
from vitrail.reporting.training_report import REPORT_IMAGES, REPORT_SECONDS, report_training
from vitrail.runs import RunDirectory
from vitrail.training.trackers import tracked

if TYPE_CHECKING:
    from vitrail.training.loop import Progress, Report, Training
    from vitrail.training.plans import Timing
    from vitrail.training.trackers import Tracker

logger = logging.getLogger(__name__)

FINISH_SECONDS = 2.5  # figures and files after training and the end of the process, on one idle core
DECODE_SECONDS = 2e-8  # for one value of one pixel of a PNG or JPEG file


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
    plan = _journal_start(directory, config, content, device)
    environment = describe_environment(str(device)) | {"data_fingerprint": content.splits.fingerprint}
    write_atomically(directory.environment_path, json.dumps(environment, indent=2) + "\n")
    report = _drawing_samples(report, directory, content)
    with tracked(directory, config) as tracker, _advice(directory, config):
        facts = _train(plan, directory, config, content, device, report, started, tracker)
        result, classifier, images = _finish(directory, config, content, facts, device, started)
        if tracker is not None:
            tracker.result(result)
    if config.evaluation.report:
        report_training(directory, classifier, result, content.train, images)


def _drawing_samples(report: Report, directory: RunDirectory, content: TrainingData) -> Report:
    """The report, which also draws samples.png when the first epoch has ended.

    Not before the first step: loading matplotlib and drawing take as long as all else that comes before it.
    """
    path = directory.figures_path / "samples.png"

    def drawing(progress: Progress) -> None:
        if progress.evaluation is not None and not path.exists():
            draw_data_figures(directory, content.train, content.splits.classes)
        report(progress)

    return drawing


def train_model(
    directory: RunDirectory,
    config: RunConfig,
    content: TrainingData,
    device: torch.device,
    report: Report,
    started: float,
) -> dict[str, Any]:
    """As `train_prepared`, but only the calibrated model, for a run that is not kept: nothing is tested or drawn.

    Gives what the result would say of the training itself.
    """
    config = with_settings(config, {"evaluation.report": False})  # no time is left for one
    plan = _journal_start(directory, config, content, device)
    with _advice(directory, config):
        facts = _train(plan, directory, config, content, device, report, started)
        model, card = load_model(directory.path)
        logits = Classifier(TorchEngine(model, device), card).logits(content.validation.pixels)
        save_card(directory.path, calibrated(card, config, logits, content.validation.labels))
    return facts


def _train(
    plan: dict[str, Any],
    directory: RunDirectory,
    config: RunConfig,
    content: TrainingData,
    device: torch.device,
    report: Report,
    started: float,
    tracker: Tracker | None = None,
) -> dict[str, Any]:
    """Run the loop as planned, and give what the result says of it."""
    from vitrail.training.loop import Training
    from vitrail.training.threads import threads

    card = _model_card(config, content, plan["init"])
    forked = [device] if device.type == "cuda" else []
    with threads(plan["threads"]), torch.random.fork_rng(forked):  # the caller's draws stay what they are
        preparation_seconds = time.perf_counter() - started
        timing = _timing(content, started, reports=config.evaluation.report)
        images = content.train, content.validation
        training = Training(config, *images, directory, card, device, plan["bfloat16"], timing)
        training.tracker = tracker
        if content.initial is not None:
            for model in filter(None, (training.state.model, training.state.averaged)):
                load_weights(model, content.initial.weights, content.initial.new)
        if config.data.preview:
            _draw_batch(directory, training, content.splits.classes)
        training.run(report)
    return _facts(directory, config, content, training, preparation_seconds)


def _draw_batch(directory: RunDirectory, training: Training, classes: tuple[str, ...]) -> None:
    """batch.png: the first batch, drawn and changed as the loop will do it, which is a function of the seed alone."""
    images, targets, _ = training.batch(0, 0)
    pixels = to_levels(images).permute(0, 2, 3, 1).cpu().numpy()
    draw_batch_figure(directory, pixels, targets.cpu().numpy(), classes)


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
        said = ("allocate memory", "out of memory")  # by the CPU, by MPS
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(part in str(error) for part in said):
            raise
        raise TrainingError(
            f"There is not enough memory for {config.model_name} with training.batch_size={config.training.batch_size};"
            " lower that, raise training.accumulate, or take a smaller model"
        ) from error


def _timing(content: TrainingData, started: float, *, reports: bool) -> Timing:
    """What the command does besides training; how many test images there are is guessed where they are not read yet."""
    from vitrail.training.plans import Timing

    after, more = (REPORT_SECONDS, REPORT_IMAGES) if reports else (0.0, 0)
    if "test" not in content.splits.parts:  # nor its figures, which take most of what comes after training
        return Timing(started, more, after)
    part = content.splits.parts["test"]
    known = part.indices if part.members is None else part.members.names
    if known is not None:
        return Timing(started, len(known) + more, FINISH_SECONDS + after)
    num_test = 2 * len(content.validation)
    reading = num_test * math.prod(content.dataset.shape) * DECODE_SECONDS
    return Timing(started, num_test + more, FINISH_SECONDS + after + reading)


def _facts(
    directory: RunDirectory, config: RunConfig, content: TrainingData, training: Training, preparation_seconds: float
) -> dict[str, Any]:
    """What the result says of the training itself."""
    counters = training.state.counters
    epochs = round(training.planner.epochs_done(counters.epoch, counters.step), 2)
    stopped = "done" if config.training.time_seconds is None else "time"
    return {
        "run": str(directory.path),
        "dataset": content.dataset.name,
        "recipe": config.recipe,
        "model": config.model_name,
        "parameters": sum(parameter.numel() for parameter in training.state.model.parameters()),
        "images_seen": counters.step * training.loader.batch_size,
        "epochs": epochs,
        "best_epoch": min(counters.best_epoch, epochs),
        "best_by": training.best_by,
        "train_seconds": round(counters.train_seconds, 3),
        "evaluation_seconds": round(counters.evaluation_seconds, 3),
        "compile_seconds": round(counters.compile_seconds, 3),
        "preparation_seconds": round(preparation_seconds, 3),
        "stopped": "early" if counters.stopped_early else stopped,
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
        "data": content.identity(),
        "init": None if content.initial is None else content.initial.origin,
    }
    repeated = directory.journal.last("repeats")
    if repeated is not None:
        plan |= {key: repeated[key] for key in ("bfloat16", "threads")}
    if began is not None:
        if began["data"] != plan["data"]:
            raise ConfigError(
                f"{directory.path} began with other images, labels or classes than {content.dataset.name} has now; "
                "bring the old data back, or start a new run"
            )
        plan = {key: began.get(key) for key in plan}
    directory.journal.write("start" if began is None else "resume", device=str(device), **plan)
    return plan


def _model_card(config: RunConfig, content: TrainingData, init: dict[str, Any] | None) -> ModelCard:
    provenance: dict[str, Any] = {
        "vitrail": package_version("vitrail"),
        "recipe": config.recipe,
        "dataset": content.dataset.name,
        "data_fingerprint": content.splits.fingerprint,
        "seed": config.seed,
    }
    if init is not None:
        provenance["init"] = init
    return ModelCard(
        model_name=config.model_name,
        model=config.model,
        classes=content.splits.classes,
        preprocess=preprocess_of(config),
        multilabel=content.train.labels.ndim == 2,
        provenance=provenance,
    )


def _finish(
    directory: RunDirectory,
    config: RunConfig,
    content: TrainingData,
    facts: dict[str, Any],
    device: torch.device,
    started: float,
) -> tuple[dict[str, Any], Classifier, dict[str, ImageSet]]:
    """Calibrate on validation, read the test split if there is one, this once; write, draw and give what was found.

    That is the result, the calibrated model, and the images.
    """
    model, card = load_model(directory.path)
    validation_logits = Classifier(TorchEngine(model, device), card).logits(content.validation.pixels)
    card = calibrated(card, config, validation_logits, content.validation.labels)
    save_card(directory.path, card)
    classifier = Classifier(TorchEngine(model, device), card)
    evaluated, tested = {"validation": content.validation}, dict[str, str]()
    if "test" in content.splits.parts:
        evaluated["test"] = content.splits.images(content.dataset, "test", card.preprocess)
        tested = {"test_fingerprint": fingerprint(evaluated["test"])}
    result = dict(facts)
    for name, images in evaluated.items():
        logits = validation_logits if name == "validation" else classifier.logits(images.pixels)
        result[name] = metrics_of(card, config, logits, images.labels, images.groups)
        if name == "test":
            probabilities = classifier.calibrated(logits)
            _save_predictions(directory, name, images, probabilities, card)
            if card.multilabel:
                draw_multilabel_figures(directory, images, probabilities, card.classes, result[name])
            else:
                draw_result_figures(directory, images, logits / card.temperature, card.classes, result[name])
                draw_calibration_figures(directory, logits, images.labels, card)
    draw_training_figures(directory)
    result["total_seconds"] = round(time.perf_counter() - started, 3)
    directory.journal.write("finished", result=result, **tested)
    return result, classifier, evaluated


def calibrated(card: ModelCard, config: RunConfig, logits: np.ndarray, labels: np.ndarray) -> ModelCard:
    """The card with the temperature, and if one is wanted the reject threshold, that validation images give."""
    if card.multilabel:
        return card.model_copy(update={"temperature": validated_sigmoid_temperature(logits, labels)})
    temperature = validated_temperature(logits, labels)
    wanted, threshold = config.evaluation.reject, None
    if wanted is not None:
        threshold, coverage = reject_threshold(softmax(logits / temperature), labels, wanted)
        if coverage == 0:
            logger.warning(
                "evaluation.reject=%g cannot be reached: no part of the validation images is answered that well, so "
                "every prediction will say not sure",
                wanted,
            )
        else:
            counts = f"{round(coverage * len(labels)):,} of {len(labels):,} validation images"
            logger.info("%s", f"Answers above a probability of {threshold:.3f} are {wanted:.0%} right on {counts}")
    return card.model_copy(update={"temperature": temperature, "reject_threshold": threshold})


def evaluated(
    facts: dict[str, Any],
    directory: RunDirectory | None,
    card: ModelCard,
    split: str,
    images: ImageSet,
    logits: np.ndarray,
    started: float,
) -> dict[str, Any]:
    """The JSON object of `vitrail evaluate`: what is known of the run, if it is one, and the results of one split.

    `facts` begin with run and dataset; what else they say comes after what is known of the run.
    """
    known = {} if directory is None else directory.result() or {}
    config = RunConfig(recipe="", model_name=card.model_name) if directory is None else directory.config()
    return {
        "run": facts["run"],
        "dataset": facts["dataset"],
        "recipe": config.recipe or None,
        "model": config.model_name,
        "parameters": count_parameters(card.model),
        "images_seen": known.get("images_seen"),
        "train_seconds": known.get("train_seconds"),
        "total_seconds": round(time.perf_counter() - started, 3),
        "stopped": known.get("stopped"),
        **facts,
        split: metrics_of(card, config, logits, images.labels, images.groups),
    }


def metrics_of(
    card: ModelCard, config: RunConfig, logits: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None = None
) -> dict[str, Any]:
    """The results of one split, for the model that `card` describes; `groups` are those that users gave."""
    how: dict[str, Any] = {
        "temperature": card.temperature,
        "groups": interval_groups(groups),
        "bootstrap_samples": config.evaluation.bootstrap_samples,
    }
    if card.multilabel:
        return multilabel_metrics(logits, labels, card.classes, **how)
    return classification_metrics(logits, labels, card.classes, reject_threshold=card.reject_threshold, **how)


def _save_predictions(
    directory: RunDirectory, split: str, images: ImageSet, probabilities: np.ndarray, card: ModelCard
) -> None:
    """predictions/<split>.parquet: image, label, prediction and the calibrated probability of every class.

    Where an image may have several labels these are lists, under labels and predictions.
    """
    columns: dict[str, list[Any]] = {"image": list(images.names)}
    if card.multilabel:
        columns["labels"] = label_sets(images.labels, card.classes)
        columns["predictions"] = label_sets(probabilities > GIVEN, card.classes)
    else:
        columns["label"] = [card.classes[label] for label in images.labels]
        columns["prediction"] = [card.classes[index] for index in probabilities.argmax(axis=1)]
    columns |= {f"probability_{name}": probabilities[:, index].tolist() for index, name in enumerate(card.classes)}
    write_parquet(directory.predictions_path / f"{split}.parquet", columns)
