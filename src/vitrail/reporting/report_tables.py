"""The tables of a run's report: key figures, results by split, classes, what it cost, what it ran on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vitrail.data.findings import count_of
from vitrail.models import model_config
from vitrail.models.listing import COSTS
from vitrail.reporting.report_facts import RunFacts
from vitrail.reporting.report_findings import interval, percent, worst_first

Rows = list[tuple[str, str]]

_WIDTH = 100  # of the bar of a whole, per cent
# What changes a model's operations by next to nothing.
_CHEAP = {"num_classes", "in_chans", "mean", "std", "padding_mask"} | {
    f"{name}_rate" for name in ("drop", "pos_drop", "patch_drop", "proj_drop", "attn_drop", "drop_path")
}
_SHOWN_SECONDS = 0.05
_PACKAGES = ("vitrail", "torch", "torchvision", "timm", "numpy")


@dataclass(frozen=True)
class ClassRow:
    """A class's results as they are shown; `width` is that of its bar, and `low` and `high` where its interval ends."""

    name: str
    images: int
    trained_on: int | None
    cells: tuple[str, ...]
    interval: str
    width: float
    low: float
    high: float


def tiles(facts: RunFacts) -> Rows:
    """The numbers at the top."""
    judged, result = facts.judged, facts.result or {}
    rows: Rows = []
    if judged:
        rows.append((f"{facts.split} accuracy", percent(judged["accuracy"])))
        rows.append(("95 % interval", interval(judged["accuracy_ci95"])))
        if judged.get("mean_average_precision") is not None:
            rows.append(("mean average precision", f"{judged['mean_average_precision']:.3f}"))
        elif judged.get("balanced_accuracy") is not None:
            rows.append(("balanced accuracy", percent(judged["balanced_accuracy"])))
    if facts.classes:
        rows.append(("labels" if facts.multilabel else "classes", f"{len(facts.classes):,}"))
    if facts.counts.get("train"):
        rows.append(("training images", f"{facts.counts['train']:,}"))
    if "parameters" in result:
        rows.append(("parameters", short_count(result["parameters"])))
    if "train_seconds" in result:
        rows.append(("training time", duration(result["train_seconds"])))
    return rows


def split_columns(facts: RunFacts) -> list[str]:
    """The headings of `split_rows`."""
    more = ["mean average precision"] if facts.multilabel else ["balanced accuracy", "macro F1"]
    return ["split", "images", "accuracy", "95 % interval", *more, "loss", "calibration error"]


def split_rows(facts: RunFacts) -> list[list[str]]:
    """The results of each split that was measured, the test first."""
    rows: list[list[str]] = []
    for split in ("test", "validation"):
        found = (facts.result or {}).get(split)
        if found is not None:
            keys = ("mean_average_precision",) if facts.multilabel else ("balanced_accuracy", "macro_f1")
            more = ["-" if found.get(key) is None else percent(found[key]) for key in keys]
            bounds, images = interval(found["accuracy_ci95"]), f"{found['images']:,}"
            accuracy, loss = percent(found["accuracy"]), f"{found['loss']:.4f}"
            rows.append([split, images, accuracy, bounds, *more, loss, f"{found['ece']:.4f}"])
    return rows


def class_columns(facts: RunFacts) -> list[str]:
    """The headings of the cells of `class_rows`, after the class and its counts."""
    return ["average precision", "found", "right if given", "F1"] if facts.multilabel else ["right if given", "F1"]


def class_rows(facts: RunFacts) -> list[ClassRow]:
    """A row for each class, those that are found least first."""
    trained = dict(zip(facts.classes, facts.class_counts or (), strict=False))
    keys = ("average_precision", "recall", "precision", "f1") if facts.multilabel else ("precision", "f1")
    rows: list[ClassRow] = []
    for row in worst_first(facts):
        share = row["average_precision" if facts.multilabel else "recall"]
        bounds = row["recall_ci95"] if not facts.multilabel else None
        low, high = bounds or (share or 0.0, share or 0.0)
        rows.append(
            ClassRow(
                name=str(row["class"]),
                images=row["images"],
                trained_on=trained.get(str(row["class"])),
                cells=tuple("-" if row[key] is None else percent(row[key]) for key in keys),
                interval="-" if share is None else f"{percent(share)} ({interval(bounds)})" if bounds else "",
                width=_bar(share),
                low=_bar(low),
                high=_bar(high),
            )
        )
    return rows


def _bar(share: float | None) -> float:
    return 0.0 if share is None else round(_WIDTH * share, 1)


def cost_rows(facts: RunFacts, operations: int | None, model_bytes: int | None) -> Rows:
    """What the run and its model cost: time by part, images, size."""
    result, rows = facts.result or {}, list[tuple[str, str]]()
    parts = {
        "preparation": "preparation",
        "train": "training steps",
        "evaluation": "validation",
        "compile": "compiling",
    }
    for key, title in parts.items():
        if result.get(f"{key}_seconds", 0) >= _SHOWN_SECONDS:
            rows.append((title, duration(result[f"{key}_seconds"])))
    if "total_seconds" in result:
        rows.append(("all of it, before this report", duration(result["total_seconds"])))
    if "images_seen" in result:
        rows.append(("images seen in training", f"{result['images_seen']:,} in {result['epochs']:g} epochs"))
        if result.get("train_seconds"):
            rows.append(
                ("speed of training", f"{result['images_seen'] / result['train_seconds']:,.0f} images a second")
            )
    if "parameters" in result:
        rows.append(("parameters", f"{result['parameters']:,}"))
    if operations is not None:
        rows.append(("multiply-adds of one image", _operations(operations)))
    if model_bytes is not None:
        rows.append(("size of the model's file", _bytes(model_bytes)))
    return rows


def environment_rows(facts: RunFacts) -> Rows:
    """What the run ran on: device, processor, memory, versions."""
    found, rows = facts.environment, list[tuple[str, str]]()
    if "device" in found:
        rows.append(("device", ", ".join(filter(None, [str(found["device"]), found.get("gpu")]))))
    if found.get("gpu_memory_bytes"):
        rows.append(("memory of the GPU", _bytes(found["gpu_memory_bytes"])))
    if found.get("processor"):
        cores = found.get("usable_cpus") or found.get("cpus")
        rows.append(("processor", f"{found['processor']}, {count_of(cores or 1, 'core')} used"))
    if found.get("memory_bytes"):
        rows.append(("memory of the machine", _bytes(found["memory_bytes"])))
    if found.get("platform"):
        rows.append(("system", str(found["platform"])))
    return [*rows, *_versions(found)]


def _versions(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    packages: Mapping[str, Any] = found.get("packages") or {}
    named = [f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name)]
    if found.get("python"):
        named.insert(0, f"Python {found['python']}")
    if named:
        yield "versions", ", ".join(named)
    commit: Mapping[str, Any] = found.get("git") or {}
    if commit.get("commit"):
        yield "Vitrail's commit", str(commit["commit"]) + (", changed" if commit.get("changed") else "")


def duration(seconds: float) -> str:
    """0.12 -> "0.1 s", 90 -> "1 min 30 s", 7320 -> "2 h 2 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short_count(number: int) -> str:
    """169802 -> "169,802", 86567656 -> "86.6 million"."""
    if number >= 10**9:
        return f"{number / 10**9:.3g} billion"
    return f"{number / 10**6:.3g} million" if number >= 10**7 else f"{number:,}"


def _operations(number: int) -> str:
    """As the field writes them: a thousand million multiply-adds are a GFLOP."""
    return f"{number / 1e9:.3g} GFLOPs" if number >= 1e8 else f"{number / 1e6:.3g} MFLOPs"


def _bytes(number: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number} bytes"


def known_operations(facts: RunFacts) -> int | None:
    """The multiply-adds of one image, where the model is one of the catalogue but for its head and its channels."""
    costs: dict[str, tuple[int, int]] = json.loads(COSTS.read_text(encoding="utf-8"))
    if facts.card is None or facts.card.model_name not in costs:
        return None
    own, listed = facts.card.model, model_config(facts.card.model_name)
    same = own.model_dump(exclude=_CHEAP) == listed.model_dump(exclude=_CHEAP)
    return costs[facts.card.model_name][1] if same else None
