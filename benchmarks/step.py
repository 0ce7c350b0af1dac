"""The part of a training step that is not forward, backward or optimizer, at batch 64 on the S5 model.

The same steps are taken twice in turn: by the training loop, with order, augmentation, schedule, checks and logging;
and bare, with the same batches prepared beforehand. Aim: the difference is under 5 % of the loop's step.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from table import print_machine, print_markdown
from torch.nn import functional as F

from vitrail.checkpoint import ModelCard
from vitrail.config import with_settings
from vitrail.data.dataset import ImageSet
from vitrail.preparation import preprocess_of
from vitrail.recipes import recipe_function
from vitrail.runs import RunDirectory
from vitrail.training.loop import Training

STEPS, ROUNDS = 50, 8


def random_images(num_images: int) -> ImageSet:
    numbers = np.random.default_rng(0)
    pixels = numbers.integers(0, 256, (num_images, 28, 28, 1), np.uint8)
    return ImageSet(pixels, numbers.integers(0, 10, num_images), tuple(map(str, range(num_images))))


class TimedTraining(Training):
    """The training loop, and beside it a step of forward, backward and optimizer alone."""

    def bare_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        for optimizer in self.state.optimizers:
            optimizer.zero_grad()
        F.cross_entropy(self.compute(images), labels).backward()
        for optimizer in self.state.optimizers:
            optimizer.step()


def measure(recipe: str, folder: Path) -> tuple[float, float]:
    """Median seconds of a step in the loop and bare."""
    epochs = ROUNDS + 2  # the first two warm up
    config = with_settings(recipe_function(recipe)(), {"training.epochs": epochs, "training.compile": "off"})
    config = with_settings(config, {"training.checkpoint_seconds": 1e9})
    run = RunDirectory(folder)
    run.create("{}", "{}")
    card = ModelCard(model_name="", model=config.model, classes=tuple("0123456789"), preprocess=preprocess_of(config))
    images = random_images(STEPS * 64)
    training = TimedTraining(config, images, random_images(10), run, card, torch.device("cpu"), False)
    loop_times: list[float] = []
    bare_times: list[float] = []
    batches = [training.loader.batch(0, index) for index in range(STEPS)]

    def between(progress: object) -> None:
        """Called after each epoch of the loop: note its time, then take the same steps bare."""
        if progress.evaluation is None:  # type: ignore[attr-defined]
            return
        counters = training.state.counters
        loop_times.append((counters.train_seconds - sum(loop_times) * STEPS) / STEPS)
        started = time.perf_counter()
        for batch in batches:
            training.bare_step(*batch)
        bare_times.append((time.perf_counter() - started) / STEPS)

    training.run(between)
    return statistics.median(loop_times[2:]), statistics.median(bare_times[2:])


def main() -> None:
    rows = []
    for recipe in ("s5_vit_mnist", "s5_wide_heads_vit_mnist", "mnist"):
        with tempfile.TemporaryDirectory() as folder:
            loop, bare = measure(recipe, Path(folder, "run"))
        rows.append((recipe, f"{1000 * loop:.2f}", f"{1000 * bare:.2f}", f"{100 * (loop - bare) / loop:.1f}"))
    print_machine()
    print_markdown(("recipe", "step in the loop, ms", "bare step, ms", "the rest, % of a step"), rows)


if __name__ == "__main__":
    main()
