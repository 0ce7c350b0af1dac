"""The README.md of a pushed model: what it is, how good it was on which images, how it is used, its limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vitrail.checkpoint import ModelCard

MOST_CLASSES = 50  # named one by one


def model_card(card: ModelCard, repository: str, result: Mapping[str, Any], counts: Mapping[str, int | None]) -> str:
    """The model card, in Markdown under the metadata that the hub reads.

    `result` is what `vitrail train --json` printed, `counts` are the images of each split, None where not known. No
    path of this machine is in it.
    """
    provenance = card.provenance
    lines = [
        "---",
        "library_name: vitrail",
        "pipeline_tag: image-classification",
        "tags:",
        "- image-classification",
        "- vision",
        "- vitrail",
        *_base_model(provenance.get("init")),
        "---",
        "",
        f"# {repository.rpartition('/')[2]}",
        "",
        f"{card.model_name}, {result['parameters']:,} parameters, {_task(card)}.",
        "",
        *_classes(card.classes),
        "## Results",
        "",
        *_results(result),
        "",
        "## Training",
        "",
        *_training(card, result, counts),
        "",
        "## Use",
        "",
        "```",
        "pip install vitrail",
        f"vitrail predict hf:{repository} image.jpg",
        "```",
        "",
        "```python",
        "import vitrail",
        f'vitrail.load("hf:{repository}").predict("image.jpg").{"labels" if card.multilabel else "label"}',
        "```",
        "",
        f"{_preparation(card)} Probabilities are calibrated by a temperature of {card.temperature:.3g}, fitted on"
        " validation images.",
        *_threshold(card),
        "",
        "## Limits",
        "",
        "- It knows these classes alone: an image of anything else "
        + ("may get some of them too." if card.multilabel else "gets one of them too."),
        "- The results are of images like those it was trained on; on others, measure them: "
        f"`vitrail evaluate hf:{repository} DATA`.",
        *_license(provenance.get("init")),
    ]
    return "\n".join(lines) + "\n"


def _task(card: ModelCard) -> str:
    if card.multilabel:
        return f"gives an image those of {len(card.classes)} labels whose probability is above a half"
    return f"sorts images into {len(card.classes)} classes"


def _base_model(init: Mapping[str, Any] | None) -> list[str]:
    name = "" if init is None else str(init["weights"])
    return [f"base_model: {name.removeprefix('hf:')}"] if name.startswith("hf:") else []


def _classes(classes: tuple[str, ...]) -> list[str]:
    named = ", ".join(classes[:MOST_CLASSES])
    more = f", and {len(classes) - MOST_CLASSES:,} more" if len(classes) > MOST_CLASSES else ""
    return [f"Classes: {named}{more}.", ""]


def _results(result: Mapping[str, Any]) -> list[str]:
    """A table of the splits that were measured, with 95 % intervals."""
    averages: list[str] = []
    rows = [
        "| split | images | accuracy | 95 % interval | balanced accuracy | calibration error |",
        "|---|" + "---:|" * 5,
    ]
    for split in ("test", "validation"):
        if split in result:
            of = result[split]
            low, high = of["accuracy_ci95"]
            balanced = "-" if of["balanced_accuracy"] is None else f"{of['balanced_accuracy']:.4f}"
            rows.append(
                f"| {split} | {of['images']:,} | {of['accuracy']:.4f} | {low:.4f} to {high:.4f} "
                f"| {balanced} | {of['ece']:.4f} |"
            )
            if of.get("mean_average_precision") is not None:
                averages.append(f"Mean average precision, {split}: {of['mean_average_precision']:.4f}.")
    if averages:
        rows += ["", "Accuracy counts images with exactly their labels.", *averages]
    rows += ["", "The best epoch was chosen, and probabilities were calibrated, on the validation images."]
    if "test" not in result:
        rows.append(
            "There were no test images, so nothing here was measured on images that played no part in training."
        )
    return rows


def _training(card: ModelCard, result: Mapping[str, Any], counts: Mapping[str, int | None]) -> list[str]:
    known = [f"{count:,} {split}" for split, count in counts.items() if count is not None]
    lines = [
        f"- Data: {card.provenance.get('dataset', 'not stated')}, {', '.join(known)} images.",
        f"- Recipe: {result['recipe']}, {result['epochs']:g} epochs, {result['images_seen']:,} images seen, "
        f"{result['train_seconds']:.0f} s of training.",
    ]
    init = card.provenance.get("init")
    if init is not None:
        lines.append(f"- It began with the weights {init['weights']}{_of_whom(init)}.")
    else:
        lines.append("- It began with random weights.")
    version = card.provenance.get("vitrail")
    return [*lines, f"- Made with Vitrail {version}, seed {json.dumps(card.provenance.get('seed'))}."]


def _of_whom(init: Mapping[str, Any]) -> str:
    """The weights before these, back to the first."""
    before = init.get("init")
    return "" if before is None else f", which began with {before['weights']}{_of_whom(before)}"


def _preparation(card: ModelCard) -> str:
    rows, columns = card.preprocess.image_size
    colours = "grey" if card.preprocess.channels == 1 else "RGB"
    fits = {
        "pad": "padded to that shape",
        "crop": "filled, what sticks out is cut off evenly",
        "squash": "stretched to that shape",
        "native": "padded to that shape, the padding left out of attention",
    }
    rate = card.preprocess.crop_rate
    kept = "" if rate == 1 else f", from a size of which the middle {rate:.1%} of each side are kept"
    return f"Images become {rows}x{columns} pixels, {colours}, {fits[card.preprocess.fit]}{kept}."


def _threshold(card: ModelCard) -> list[str]:
    if card.reject_threshold is None:
        return []
    return [f'Answers at or below a probability of {card.reject_threshold:.3f} say "not sure".']


def _license(init: Mapping[str, Any] | None) -> list[str]:
    """What is known of licences; that of the model itself is for its owner to state."""
    lines = ["- No licence is stated here for this model; its owner may add one."]
    while init is not None:
        if init.get("license"):
            lines.append(f"- The weights {init['weights']} that it began with are under the licence {init['license']}.")
        init = init.get("init")
    return lines
