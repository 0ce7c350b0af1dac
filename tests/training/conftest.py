"""A training small enough for a fraction of a second, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vitrail.checkpoint import ModelCard
from vitrail.config import RunConfig, TrainingConfig, config_to_json, with_settings
from vitrail.data.dataset import ImageSet, number_names
from vitrail.data.preprocess import Preprocess
from vitrail.models.cnn import TimmConfig
from vitrail.models.vit import ViTConfig
from vitrail.runs import RunDirectory
from vitrail.training import loop
from vitrail.training.loop import Progress, Training
from vitrail.training.plans import Timing

CONFIG = RunConfig(
    recipe="digits",
    model_name="vit_micro_conv4_8",
    model=ViTConfig(
        image_size=(8, 8), patch_size=(4, 4), in_chans=1, num_classes=3, embed_dim=16, depth=2, num_heads=2
    ),
    training=TrainingConfig(epochs=3, batch_size=8, log_steps=2, learning_rate=3e-3),
)

# A network with running statistics besides its weights.
BATCH_NORM = TimmConfig(name="test_resnet", image_size=(8, 8), in_chans=1, num_classes=3)


def draw_images(count: int, seed: int) -> ImageSet:
    """Noisy images of three classes, each with a bright column of its own."""
    numbers = np.random.default_rng(seed)
    labels = numbers.permutation(np.arange(count, dtype=np.int64) % 3)
    pixels = numbers.integers(0, 200, (count, 8, 8, 1), dtype=np.uint8)
    pixels[np.arange(count), :, 2 * labels + 1] += 55
    return ImageSet(pixels, labels, number_names("train", count))


def start(
    path: Path,
    settings: dict[str, Any] | None = None,
    images: ImageSet | None = None,
    *,
    autocast: bool = False,
    timing: Timing | None = None,
    model: Any = None,
) -> Training:
    """A training in `path`, new or resumed, of 40 images in 5 steps an epoch, with `settings` as for --set.

    `model` is the config of another model than CONFIG has.
    """
    config = with_settings(CONFIG.model_copy(update={"model": model or CONFIG.model}), settings or {})
    run = RunDirectory(path)
    if not run.exists():
        run.create(config_to_json(config), "{}")
    card = ModelCard(
        model_name=config.model_name,
        model=config.model,
        classes=("left", "middle", "right"),
        preprocess=Preprocess(image_size=config.model.image_size, channels=1, fit="pad"),
    )
    training, validation = images or draw_images(40, seed=0), draw_images(24, seed=1)
    return Training(config, training, validation, run, card, torch.device("cpu"), autocast, timing)


def silent(progress: Progress) -> None:
    """Show nothing."""


def metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the one number that the clock decides."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def outcome(training: Training) -> dict[str, Any]:
    """All that must be the same in a run that was stopped and one that was not; weights as bytes."""
    path, counters = training.run_directory.path, training.state.counters
    state = {name: tensor.numpy().tobytes() for name, tensor in training.state.named_tensors()}
    return {
        "state": state,
        "model": (path / "model.safetensors").read_bytes(),
        "metrics": metrics(path),
        "counters": (counters.step, counters.epoch, counters.best_epoch, counters.best_accuracy, counters.best_loss),
        "stopped_early": counters.stopped_early,
    }


def stop_after(step: int, number: int = signal.SIGINT) -> Callable[[Progress], None]:
    """A report that sends this process a signal once `step` is done."""

    def report(progress: Progress) -> None:
        if progress.step == step and progress.evaluation is None:
            signal.raise_signal(number)

    return report


@pytest.fixture(autouse=True)
def _report_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "REPORT_SECONDS", -1.0)


@pytest.fixture(autouse=True)
def _leave_files_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time of these trainings is waiting for the disk, which only a power cut could tell."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def small(tmp_path: Path) -> SimpleNamespace:
    """The functions above; `small.train(settings)` runs a training in tmp_path/run to its end."""

    def train(settings: dict[str, Any] | None = None, images: ImageSet | None = None, **options: Any) -> Training:
        training = start(options.pop("path", tmp_path / "run"), settings, images, **options)
        training.run(silent)
        return training

    return SimpleNamespace(
        config=CONFIG,
        batch_norm=BATCH_NORM,
        images=draw_images,
        start=start,
        train=train,
        silent=silent,
        metrics=metrics,
        outcome=outcome,
        outcome_of=lambda training: (training.run(silent), outcome(training))[1],
        stop_after=stop_after,
    )
