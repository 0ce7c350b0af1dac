"""Rare classes: what each `training.imbalance` gains or costs, by the ratio between the largest class and the smallest.

A long tail is cut out of digits and of MNIST: class sizes fall by a constant factor down to 1/ratio of the largest, in
an order of classes that each seed draws anew. Validation images are as unbalanced as training images; the test stays as
it is, so that its accuracy is nearly the balanced one. Everything else is the recipe's.

    python benchmarks/imbalance.py [SEEDS] [digits|mnist]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from table import print_machine, print_markdown

from vitrail.checkpoint import ModelCard, load_model
from vitrail.config import RunConfig, config_to_json, with_settings
from vitrail.data.dataset import ImageSet
from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.data.splits import make_splits
from vitrail.engines.pytorch import TorchEngine
from vitrail.evaluation import classification_metrics
from vitrail.recipes import recipe_function
from vitrail.runs import RunDirectory
from vitrail.training.loop import Training

RATIOS = (2, 5, 10, 30, 100)
KINDS = ("none", "class_weights", "balanced_sampling", "focal", "logit_adjusted")
EPOCHS, LARGEST = {"digits": 20, "mnist": 6}, {"digits": 140, "mnist": 400}  # images of the largest class


def long_tail(labels: np.ndarray, ratio: float, largest: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and validation images, a sixth of the former, whose class sizes fall down to 1/ratio."""
    numbers = np.random.default_rng(seed)
    train: list[np.ndarray] = []
    validation: list[np.ndarray] = []
    classes = numbers.permutation(np.unique(labels))
    for place, label in enumerate(classes):
        count = max(1, round(largest * ratio ** (-place / (len(classes) - 1))))
        held_out = max(1, count // 6)
        members = numbers.permutation(np.flatnonzero(labels == label))
        train.append(members[:count])
        validation.append(members[count : count + held_out])
    return np.concatenate(train), np.concatenate(validation)


def balanced_accuracy(config: RunConfig, parts: dict[str, ImageSet], seed: int) -> float:
    """That of the best epoch's model on the test images."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder, "run"))
        run.create(config_to_json(config), "{}")
        size = config.model.image_size
        card = ModelCard(
            model_name=config.model_name,
            model=config.model,
            classes=tuple(map(str, range(10))),
            preprocess=Preprocess(image_size=size, channels=1, fit="pad"),
        )
        device = torch.device("cpu")
        training = Training(config, parts["train"], parts["validation"], run, card, device, autocast=False)
        training.run(lambda progress: None)
        logits = TorchEngine(load_model(run.path)[0], device).logits(parts["test"].pixels)
    metrics = classification_metrics(logits, parts["test"].labels, card.classes, bootstrap_samples=1)
    return metrics["balanced_accuracy"]


def measure(name: str, ratio: float, seed: int) -> dict[str, float]:
    dataset = open_dataset(name)
    splits = make_splits(dataset, 0.1, 0.2, 0)
    images, test = splits.images(dataset, "train"), splits.images(dataset, "test")
    train, validation = long_tail(images.labels, ratio, LARGEST[name], seed)
    parts = {"train": images.take(train), "validation": images.take(validation), "test": test}
    settings = {
        "seed": seed,
        "training.epochs": EPOCHS[name],
        "training.batch_size": 32,
        "model.image_size": images.pixels.shape[1:3],
        "model.mean": [0.2],
        "model.std": [0.35],
    }
    config = with_settings(recipe_function(name)(), settings)
    return {kind: balanced_accuracy(with_settings(config, {"training.imbalance": kind}), parts, seed) for kind in KINDS}


def main() -> None:
    torch.set_num_threads(1)
    num_seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print_machine()
    for name in sys.argv[2:] or ("digits", "mnist"):
        rows: list[tuple[str, ...]] = []
        for ratio in RATIOS:
            found = [measure(name, ratio, seed) for seed in range(num_seeds)]
            cells: list[str] = []
            for kind in KINDS:
                values = 100 * np.array([one[kind] for one in found])
                deviation = f" ± {values.std(ddof=1):.1f}" if num_seeds > 1 else ""
                cells.append(f"{values.mean():.1f}{deviation}")
            rows.append((f"{ratio}", *cells))
            print(f"{name} {ratio}: {cells}", file=sys.stderr, flush=True)
        print(f"\n{name}, balanced test accuracy in %, {num_seeds} seeds\n")
        print_markdown(("largest : smallest", *KINDS), rows)


if __name__ == "__main__":
    main()
