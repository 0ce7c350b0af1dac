"""Fewer tokens, same weights: patch dropout in training, token merging at inference.

A small ViT with 49 patches of 4x4 and a class token is trained on MNIST for one epoch, with none, a quarter and half
of the patches dropped; then patches are merged in the one trained without. Times are processor seconds of one thread,
medians of rounds in turn. ViT-Ti/16 at 224 pixels, untrained, shows what merging saves where there are 196 patches.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from table import print_machine, print_markdown, spread
from torch import nn
from torch.nn import functional as F

import vitrail
from vitrail.checkpoint import load_model
from vitrail.data.sources import open_dataset

SETTINGS = {
    "model.stem": "linear",
    "model.patch_size": 4,
    "model.class_token": True,
    "model.global_pool": "token",
    "model.embed_dim": 48,
    "model.depth": 3,
    "training.compile": "off",
}
EPOCHS, ROUNDS = 1, 15

Key = TypeVar("Key", int, float)


def train(drop_rate: float, folder: Path) -> vitrail.Run:
    settings = {**SETTINGS, "model.patch_drop_rate": drop_rate}
    return vitrail.train("mnist", recipe="mnist", epochs=EPOCHS, settings=settings, out=folder / f"drop-{drop_rate}")


def timed(works: Mapping[Key, Callable[[], object]]) -> dict[Key, list[float]]:
    """Processor seconds that each work takes, in turn: with one thread, what else runs counts little."""
    times: dict[Key, list[float]] = {key: [] for key in works}
    for turn in range(ROUNDS + 1):
        for key, work in works.items():
            started = time.process_time()
            work()
            if turn:  # the first warms up
                times[key].append(time.process_time() - started)
    return times


def training_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    model.train()
    model.zero_grad()
    F.cross_entropy(model(images), labels).backward()


@torch.inference_mode()
def merged_forward(model: nn.Module, images: torch.Tensor, number: int) -> None:
    model.eval().merge_tokens(number)  # type: ignore[operator]
    model(images)


def forward_times(model: nn.Module, images: torch.Tensor, numbers: Sequence[int]) -> dict[int, list[float]]:
    """Seconds of forward passes with so many tokens merged in each block."""
    return timed({number: partial(merged_forward, model, images, number) for number in numbers})


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        runs = {rate: train(rate, Path(name)) for rate in (0.0, 0.25, 0.5)}
        print_machine()
        test = open_dataset("mnist").read("test")
        batch = torch.from_numpy(test.pixels[:256].transpose(0, 3, 1, 2).copy())
        labels = torch.from_numpy(test.labels[:256])
        models = {rate: load_model(run.path)[0] for rate, run in runs.items()}
        times = timed({rate: partial(training_step, model, batch, labels) for rate, model in models.items()})
        accuracies = [run.result["test"]["accuracy"] for run in runs.values() if run.result is not None]
        rows = [
            (f"{rate:g}", spread(seconds, scale=1000), f"{100 * accuracy:.2f}")
            for (rate, seconds), accuracy in zip(times.items(), accuracies, strict=True)
        ]
        heading = "test accuracy after one epoch, %"
        print_markdown(("patch_drop_rate", "forward and backward of 256 images, ms", heading), rows)

        classifier = vitrail.load(runs[0.0].path, "cpu")
        model = classifier.engine.model  # type: ignore[attr-defined]
        times = forward_times(model, batch, (0, 2, 4, 8))
        rows = []
        for number, seconds in times.items():
            model.merge_tokens(number)
            hits = classifier.logits(test.pixels).argmax(axis=1) == test.labels
            rows.append((str(number), spread(seconds, scale=1000), f"{100 * np.mean(hits):.2f}"))
        print()
        print_markdown(("merge_tokens", "forward of 256 images, ms", "test accuracy, %"), rows)

    tiny = vitrail.create_model("vit_tiny_patch16_224").eval()
    images = torch.zeros(16, 3, 224, 224)
    times = forward_times(tiny, images, (0, 4, 8, 13))
    print()
    print_markdown(
        ("merge_tokens", "forward of 16 images, ViT-Ti/16 at 224, ms"),
        [(str(number), spread(seconds, scale=1000)) for number, seconds in times.items()],
    )


if __name__ == "__main__":
    main()
