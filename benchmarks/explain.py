"""Explanations measured: how faithful each method is on MNIST, whether maps point at planted evidence, what they cost.

    python benchmarks/explain.py [faithfulness] [planted] [cost] [--vit RUN] [--images N]

faithfulness: a ViT trained on MNIST for an epoch, unless a run is named, and a CNN trained for 300 steps; test images,
which chose nothing. planted: models trained for a minute on images of noise with a coloured square. cost: rollout of
ViT-B/16 at 224x224 (aim: under 1.5 s) and the other methods, in processor seconds, which with one thread are more than
two cores take; memory for 1,024 tokens above that of the imported process (aim: under 2 GB), each in a process of its
own. Needs VITRAIL_DATA to hold mnist/; memory needs Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attention2d import memory
from table import print_machine, print_markdown, spread
from torch import nn
from torch.nn import functional as F

import vitrail
from vitrail.data.dataset import ImageSet
from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.engines.pytorch import TorchEngine
from vitrail.evaluation import softmax
from vitrail.interpretation.method_check import check_methods
from vitrail.interpretation.methods import METHODS, default_method, evidence_maps, possible_methods
from vitrail.interpretation.pointing import planted_squares, pointing
from vitrail.interpretation.subjects import Subject
from vitrail.interpretation.targets import Target
from vitrail.models.cnn import Cnn, CnnConfig
from vitrail.models.vit import VisionTransformer
from vitrail.models.vit_config import ViTConfig

MEASURES = {"deletion": "deletion", "insertion": "insertion", "faithfulness": "insertion - deletion", "road": "ROAD"}
NUM_PLANTED, NUM_STEPS, NUM_POINTED = 2048, 300, 200
COLORS = 4
ROUNDS = 5
CNN_RATE = 5e-4


def interval(measured: Mapping[str, Any]) -> str:
    low, high = measured["ci95"]
    return f"{measured['mean']:.3f} ({low:.3f} to {high:.3f})"


def faithfulness_of_vit(run: str | None, num_images: int) -> None:
    """The tables of the recipe's ViT, trained for an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        if run is None:
            settings = {"training.compile": "off", "evaluation.report": False}
            run = str(vitrail.train("mnist", epochs=1, settings=settings, out=Path(folder, "vit")).path)
        classifier = vitrail.load(run, "cpu")
    test = open_dataset("mnist").prepared("test", classifier.card.preprocess)
    subject = Subject.of(classifier.engine, classifier.card.model)
    faithfulness(classifier.card.model_name, subject, test, num_images, classifier.calibrated)


def faithfulness_of_cnn(num_images: int) -> None:
    """The tables of an AlexNet for small images, which sees each training image less than once."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": (32, 32), "in_chans": 1, "num_classes": 10, "mean": (0.13,), "std": (0.31,)}
    model = Cnn(CnnConfig(architecture="alexnet", small_images=True, **sizes))
    preprocess = Preprocess(image_size=(32, 32), channels=1, fit="pad")
    mnist = open_dataset("mnist")
    train, test = mnist.prepared("train", preprocess), mnist.prepared("test", preprocess)
    learn(model, np.asarray(train.pixels[:12_800]), train.labels[:12_800], CNN_RATE)
    subject = Subject.of(TorchEngine(model, torch.device("cpu")), model.config)  # type: ignore[arg-type]
    faithfulness("alexnet_32", subject, test, num_images, softmax)


def faithfulness(
    name: str, subject: Subject, test: ImageSet, num_images: int, probabilities: Callable[[np.ndarray], np.ndarray]
) -> None:
    """The table of all methods on test images of MNIST, and how far each is from the baselines."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[:num_images])
    pixels, labels = np.asarray(test.pixels[chosen]), test.labels[chosen]
    accuracy = np.mean(subject.answer(pixels).argmax(axis=1) == labels)
    found = check_methods(subject, pixels, labels, probabilities=probabilities)
    print(f"\n{name}, {100 * accuracy:.1f} % of {num_images} test images right; maps of ", end="")
    print("x".join(map(str, found["grid"])), f"cells, {found['mosaics']} mosaics; the default is {found['default']}\n")
    rows = [
        [name, *(interval(entry[measure]) for measure in MEASURES), *pointed(entry)]
        for name, entry in found["methods"].items()
    ]
    print_markdown(("method", *MEASURES.values(), "points right", "evidence inside"), rows)
    for baseline in ("random", "attention"):
        compared = {name: entry.get(f"against_{baseline}") for name, entry in found["methods"].items()}
        rows = [
            [name, *(interval(entry[measure]) for measure in MEASURES)]
            for name, entry in compared.items()
            if entry is not None
        ]
        if rows:
            print()
            print_markdown((f"less {baseline}", *MEASURES.values()), rows)
    print(f"\n> {found['advice']}")


def pointed(entry: Mapping[str, Any]) -> list[str]:
    found = entry.get("mosaics")
    return ["-", "-"] if found is None else [f"{100 * found[key]['mean']:.0f} %" for key in ("hits", "share_inside")]


def planted_models() -> dict[str, nn.Module]:
    """Small models for the squares, untrained."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"image_size": (32, 32), "num_classes": COLORS + 1, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    plain: dict[str, Any] = {"patch_size": 4, "embed_dim": 48, "depth": 3, "num_heads": 3, **sizes}
    return {
        "ViT, class token": VisionTransformer(ViTConfig(**plain)),
        "ViT, mean": VisionTransformer(ViTConfig(class_token=False, global_pool="avg", **plain)),
        "AlexNet": Cnn(CnnConfig(architecture="alexnet", small_images=True, **sizes)),
    }


def learn(model: nn.Module, pixels: np.ndarray, truth: np.ndarray, learning_rate: float, seed: int = 0) -> None:
    """Train on the images, 32 at a time."""
    numbers = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(truth)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate)
    model.train()
    for _ in range(NUM_STEPS):
        batch = torch.randint(0, len(labels), (32,), generator=numbers)
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()


def planted() -> None:
    """How many maps point at the one square that decides the class."""
    train = planted_squares(NUM_PLANTED, num_classes=COLORS, num_blank=NUM_PLANTED // COLORS, seed=1)
    test = planted_squares(NUM_POINTED, num_classes=COLORS, seed=2)
    for name, model in planted_models().items():
        learn(model, train.images, train.labels, CNN_RATE if name == "AlexNet" else 2e-3)
        subject = Subject.of(TorchEngine(model, torch.device("cpu")), model.config)  # type: ignore[arg-type]
        hits = subject.answer(test.images).argmax(axis=1) == test.labels
        rows = []
        for method in possible_methods(subject):
            maps = evidence_maps(subject, test.images, [Target(int(label)) for label in test.labels], method)
            found = pointing(maps, test.regions)
            shares = [found.hits.mean(), found.hit_chances.mean(), np.nanmean(found.shares), found.areas.mean()]
            rows.append([method, "x".join(map(str, maps.shape[1:])), *(f"{100 * share:.1f}" for share in shares)])
        print(f"\n{name}: {100 * hits.mean():.1f} % right; the default is {default_method(subject)}\n")
        headings = ("points at the square, %", "by chance", "evidence inside, %", "by chance")
        print_markdown(("method", "map", *headings), rows)


def base(side: int) -> Subject:
    torch.manual_seed(0)
    config = ViTConfig(image_size=(side, side), patch_size=16, num_classes=1000)
    return Subject.of(TorchEngine(VisionTransformer(config), torch.device("cpu")), config)


def measure(method: str, side: int, rounds: int) -> dict[str, Any]:
    """Processor seconds of a map by ViT-B/16, and bytes at most above those of the imported process and the model."""
    imported = memory("VmRSS")
    subject = base(side)
    images = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    loaded, seconds = memory("VmRSS"), []
    for _ in range(rounds):
        started = time.process_time()
        evidence_maps(subject, images, [Target(0)], method)
        seconds.append(time.process_time() - started)
    peak = memory("VmHWM")
    return {"seconds": seconds, "above_imported": peak - imported, "above_model": peak - loaded}


def measure_apart(method: str, side: int, rounds: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", method, str(side), str(rounds)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def cost() -> None:
    """Processor seconds at 224x224, and memory at 512x512, which are 1,024 patches."""
    rows = []
    for method in METHODS:
        slow = method in ("occlusion", "integrated_gradients")
        timed = measure_apart(method, 224, 1 if slow else ROUNDS)
        large = measure_apart(method, 512, 1) if not slow else None
        seconds = spread(timed["seconds"][1:] or timed["seconds"], 2)
        cells = (
            ["-", "-"] if large is None else [f"{large[key] / 1e9:.2f}" for key in ("above_imported", "above_model")]
        )
        rows.append([method, seconds, *cells])
    print("\nViT-B/16, untrained, one image\n")
    headings = ("224x224, processor s", "512x512, GB above the imported process", "GB above the model")
    print_markdown(("method", *headings), rows)


def main(parts: Sequence[str], vit: str | None, num_images: int) -> None:
    print_machine()
    if "faithfulness" in parts:
        faithfulness_of_vit(vit, num_images)
        faithfulness_of_cnn(num_images)
    if "planted" in parts:
        planted()
    if "cost" in parts:
        cost()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("parts", nargs="*", default=["faithfulness", "planted", "cost"])
        parser.add_argument("--vit")
        parser.add_argument("--images", type=int, default=256)
        given = parser.parse_args()
        main(given.parts or ["faithfulness", "planted", "cost"], given.vit, given.images)
