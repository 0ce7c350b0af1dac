"""Runs for reports, made without training: all their files, of a model whose answers are drawn at random."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vitrail.checkpoint import ModelCard, save_model
from vitrail.classifier import Classifier
from vitrail.config import config_to_json, with_settings
from vitrail.data.dataset import ImageSet
from vitrail.data.preprocess import Preprocess
from vitrail.engines.pytorch import TorchEngine
from vitrail.evaluation import classification_metrics, multilabel_metrics, sigmoid, softmax
from vitrail.models import build_model
from vitrail.predictions import GIVEN, write_parquet
from vitrail.recipes import recipe_function
from vitrail.reporting.multilabel_figures import label_sets
from vitrail.runs import RunDirectory


@dataclass
class MadeRun:
    """A run's directory, its model, and the images of its splits."""

    directory: RunDirectory
    classifier: Classifier
    images: dict[str, ImageSet]

    @property
    def path(self) -> Path:
        return self.directory.path


def draw_images(count: int, side: int, labels: np.ndarray, split: str, channels: int) -> ImageSet:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return ImageSet(pixels, labels, tuple(f"{split}/{index:05d}.png" for index in range(count)))


def make_run(
    path: Path,
    *,
    num_classes: int = 3,
    num_images: int = 30,
    side: int = 8,
    channels: int = 1,
    multilabel: bool = False,
    test: bool = True,
    finished: bool = True,
    source: str = "/home/ann/photos",
) -> MadeRun:
    rng = np.random.default_rng(0)
    classes = tuple(f"class {index}" for index in range(num_classes))
    patch = max(2, side // 4)
    config = with_settings(
        recipe_function("digits")(),
        {"model.image_size": (side, side), "model.patch_size": (patch, patch), "model.stem": "linear"}
        | {"model.num_classes": num_classes, "model.in_chans": channels, "model.embed_dim": 16, "model.depth": 2}
        | {"model.mean": [0.5] * channels, "model.std": [0.25] * channels, "data.source": source, "data.fit": "pad"},
    )
    preprocess = Preprocess(image_size=(side, side), channels=channels, fit="pad")
    card = ModelCard(
        model_name=config.model_name,
        model=config.model,
        classes=classes,
        preprocess=preprocess,
        temperature=1.5,
        multilabel=multilabel,
        provenance={"vitrail": "0.1.0", "dataset": "photos", "seed": 0},
    )
    torch.manual_seed(0)
    model = build_model(config.model).eval()
    directory = RunDirectory(path)
    splits = ("train", "validation", *(("test",) if test else ()))
    parts = {split: {"source": "all", "indices": list(range(num_images))} for split in splits}
    splits_json = {"dataset": "photos", "classes": classes, "seed": 0, "rates": {"validation": 0.1, "test": 0.2}}
    directory.create(config_to_json(config), json.dumps(splits_json | {"fingerprint": "f00", "splits": parts}))
    save_model(path, model.state_dict(), card)
    images, result = {}, {"run": str(path), "dataset": "photos", "recipe": "digits", "model": config.model_name}
    result |= {"parameters": 1234, "images_seen": 480, "epochs": 2.0, "best_epoch": 1.0, "best_by": "accuracy"}
    result |= {"train_seconds": 3.4, "evaluation_seconds": 0.2, "compile_seconds": 0.0, "preparation_seconds": 1.0}
    result |= {"stopped": "done", "total_seconds": 5.0}
    for split in splits:
        labels = np.arange(num_images) % num_classes
        logits = rng.normal(size=(num_images, num_classes)) + 2 * (labels[:, None] == np.arange(num_classes))
        if multilabel:
            labels = (rng.random((num_images, num_classes)) < 0.4).astype(np.int64)
            logits = rng.normal(size=labels.shape) + 2 * labels - 1
        images[split] = draw_images(num_images, side, labels, split, channels)
        if split != "train":
            metrics = multilabel_metrics if multilabel else classification_metrics
            result[split] = metrics(logits, labels, classes, temperature=1.5, bootstrap_samples=20)
        if split == "test":
            save_answers(directory, images[split], logits / 1.5, classes)
    lines = [{"step": step, "epoch": step / 10, "loss": 2 / step, "accuracy": 0.5} for step in (10, 20)]
    lines += [{"split": "validation", "epoch": epoch, "accuracy": 0.4 + 0.1 * epoch, "loss": 1.0} for epoch in (1, 2)]
    directory.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    environment = {"python": "3.11.7", "device": "cpu", "processor": "A processor", "usable_cpus": 2}
    environment |= {"memory_bytes": 8 * 10**9, "packages": {"torch": "2.15.0"}, "data_fingerprint": "f00"}
    directory.environment_path.write_text(json.dumps(environment), encoding="utf-8")
    directory.journal.write("start", device="cpu", bfloat16=False, threads=1, data=[], init=None)
    if finished:
        directory.journal.write("finished", result=result)
    for name in ("samples", "curves", "confusion", "reliability", "coverage", "predictions", "mistakes"):
        figure = Figure(figsize=(1, 1))
        figure.savefig(directory.figures_path / f"{name}.png")
    return MadeRun(directory, Classifier(TorchEngine(model, torch.device("cpu")), card), images)


def save_answers(directory: RunDirectory, images: ImageSet, logits: np.ndarray, classes: tuple[str, ...]) -> None:
    columns: dict[str, list[Any]] = {"image": list(images.names)}
    if images.labels.ndim == 2:
        probabilities = sigmoid(logits)
        columns |= {"labels": label_sets(images.labels, classes)}
        columns |= {"predictions": label_sets(probabilities > GIVEN, classes)}
    else:
        probabilities = softmax(logits)
        columns |= {"label": [classes[label] for label in images.labels]}
        columns |= {"prediction": [classes[label] for label in probabilities.argmax(axis=1)]}
    columns |= {f"probability_{name}": probabilities[:, index].tolist() for index, name in enumerate(classes)}
    write_parquet(directory.predictions_path / "test.parquet", columns)


@pytest.fixture(scope="session")
def kept_run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    return make_run(tmp_path_factory.mktemp("runs") / "photos-digits-1")


@pytest.fixture
def made_run(kept_run: MadeRun, tmp_path: Path) -> MadeRun:
    """A finished run of three classes whose files may be changed; its data is said to lie at /home/ann/photos."""
    shutil.copytree(kept_run.path, tmp_path / "photos-digits-1")
    return MadeRun(RunDirectory(tmp_path / "photos-digits-1"), kept_run.classifier, kept_run.images)


@pytest.fixture(scope="session")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., MadeRun]:
    """`other_run(num_classes=10, multilabel=True, test=False, finished=False, ...)`: another run of that kind."""

    def make(**kind: Any) -> MadeRun:
        return make_run(tmp_path_factory.mktemp("runs") / "photos-digits-1", **kind)

    return make
