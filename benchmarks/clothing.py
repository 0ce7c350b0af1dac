"""Photographs of clothes, from scratch, in five minutes on a laptop's cores, beside what costs nothing or little.

Beside it: always the class with most training images, and a linear classifier on 32x32 RGB pixels (scikit-learn's
logistic regression, its strength chosen by the validation images). Each is compared with Vitrail's first run on the
same 372 test images by the exact McNemar test. Needs VITRAIL_DATA to hold clothing/. Draws docs/images/clothing.png.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from command import run_vitrail
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from table import print_machine, print_markdown

from vitrail.data.preprocess import Preprocess
from vitrail.data.sources import open_dataset
from vitrail.evaluation import paired_comparison, wilson_interval
from vitrail.figures.style import INK, TRAIN, new_figure, text_style

SEEDS = (0, 1, 2)
BY_ACCURACY = ("--set", "training.imbalance=none")  # by default rare classes are drawn as often as others
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "clothing.png"


def main() -> None:
    seeds = SEEDS[: int(sys.argv[1])] if len(sys.argv) > 1 else SEEDS
    folder = Path(os.environ["VITRAIL_DATA"], "clothing")
    names, labels, answers, seconds = _simple(folder)
    classes = open_dataset(folder).classes
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch, "run")
            result, _ = run_vitrail(
                "train", str(folder), "--time", "5m", *BY_ACCURACY, "--seed", str(seed), "--out", str(out)
            )
            table = pq.read_table(out / "predictions" / "test.parquet").to_pydict()
        assert tuple(table["image"]) == names
        name = f"vitrail train clothing --time 5m, seed {seed}"
        answers[name] = np.array([classes.index(label) for label in table["prediction"]])
        seconds[name] = result["total_seconds"]
    correct = {name: answer == labels for name, answer in answers.items()}
    ours = correct[f"vitrail train clothing --time 5m, seed {seeds[0]}"]
    rows = [_row(name, correct[name], ours, seconds[name]) for name in answers]
    print_machine()
    print_markdown(
        ("classifier", "test accuracy, %", "95 % interval", "seconds", "Vitrail's first run is better by", "McNemar p"),
        rows,
    )
    _draw(correct)


def _simple(folder: Path) -> tuple[tuple[str, ...], np.ndarray, dict[str, np.ndarray], dict[str, float]]:
    """Names and labels of the test images, and the answers of the two simple classifiers with their seconds."""
    size = Preprocess(image_size=(32, 32), channels=3, fit="squash")
    dataset = open_dataset(folder)
    train, validation, test = (dataset.prepared(split, size) for split in ("train", "validation", "test"))
    started = time.perf_counter()
    fitted: list[tuple[float, Any]] = []
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        model.fit(_flat(train.pixels), train.labels)
        fitted.append((model.score(_flat(validation.pixels), validation.labels), model))
    linear = max(fitted, key=lambda scored: scored[0])[1].predict(_flat(test.pixels))
    answers = {
        "always the largest class": np.full(len(test), np.bincount(train.labels).argmax()),
        "linear, 32x32 pixels": linear,
    }
    return test.names, test.labels, answers, dict(zip(answers, (0.0, time.perf_counter() - started), strict=True))


def _flat(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1).astype(np.float32)


def _row(name: str, correct: np.ndarray, ours: np.ndarray, seconds: float) -> tuple[str, ...]:
    low, high = wilson_interval(int(correct.sum()), len(correct))
    interval = f"{100 * low:.1f} to {100 * high:.1f}"
    difference, p_value = "", ""
    if correct is not ours:
        found = paired_comparison(ours, correct)
        below, above = found["difference_ci95"]
        difference = f"{100 * found['difference']:.1f} ({100 * below:.1f} to {100 * above:.1f})"
        p_value = f"{found['mcnemar_p']:.2g}"
    return name, f"{100 * correct.mean():.1f}", interval, f"{seconds:.0f}", difference, p_value


def _draw(correct: dict[str, np.ndarray]) -> None:
    """Accuracies with their intervals as points on lines."""
    figure = new_figure(7.2, 0.5 + 0.42 * len(correct))
    axes = figure.add_subplot()
    for place, (name, right) in enumerate(correct.items()):
        low, high = wilson_interval(int(right.sum()), len(right))
        color = TRAIN if name.startswith("vitrail") else INK
        axes.plot([100 * low, 100 * high], [-place, -place], color=color, linewidth=1.5)
        axes.plot(100 * right.mean(), -place, "o", color=color)
        axes.annotate(
            f"{100 * right.mean():.1f}", (100 * high, -place), (6, -3), textcoords="offset points", **text_style()
        )
    axes.set_yticks([-place for place in range(len(correct))], list(correct), **text_style())
    axes.set_xlim(0, 100)
    axes.set_ylim(0.6 - len(correct), 0.6)
    axes.set_xlabel("accuracy on 372 test photographs with its 95 % interval, %", **text_style())
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(PICTURE, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
