"""The README.md of a run and of a pushed model: what it is, how good it was on which images, its use, its limits."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from vitrail.checkpoint import ModelCard
from vitrail.errors import some
from vitrail.reporting.report_facts import RunFacts
from vitrail.reporting.report_findings import (
    FEW_IMAGES,
    below_one,
    confused_pairs,
    data_sentences,
    few_and_none,
    headline,
    no_temperature,
    percent,
    worst_first,
)
from vitrail.reporting.report_paths import shown_source

MOST_CLASSES = 50  # named one by one
_MOST_WEAK = 5


def model_card(facts: RunFacts, repository: str | None = None) -> str:
    """The model card of a finished run, in Markdown under the metadata that the hub reads.

    With a `repository`, owner/name, it says how the model is used from there. The facts must have the card of the model
    and a result. No path of this machine and no name of an image is in it.
    """
    facts = facts.nameless()  # a card goes further than a report
    card, result = facts.card, facts.result
    assert card is not None
    assert result is not None
    provenance = card.provenance
    source = facts.name if repository is None else f"hf:{repository}"
    lines = [
        *_metadata(provenance.get("init")),
        f"# {_escaped(facts.name if repository is None else repository.rpartition('/')[2])}",
        "",
        f"{_escaped(card.model_name)}, {result['parameters']:,} parameters, {_task(card)}.",
        "",
        *_classes(card.classes),
        "## Results",
        "",
        *headline(facts)[:2],
        "",
        *_results(result),
        "",
        *_weak(facts),
        "## Training",
        "",
        *_training(facts, card, result),
        "",
        "## Use",
        "",
        "```",
        "pip install vitrail",
        f"vitrail predict {shlex.quote(source)} image.jpg",
        "```",
        "",
        "```python",
        "import vitrail",
        f"vitrail.load({json.dumps(source, ensure_ascii=False)})"
        f'.predict("image.jpg").{"labels" if card.multilabel else "label"}',
        "```",
        "",
        f"{_preparation(card)} {_temperature(facts, card)}",
        f"On {facts.split} images they are off by {100 * facts.judged['ece']:.1f} points on average.",
        *_threshold(card),
        "",
        "## Limits",
        "",
        "- It knows these classes alone: an image of anything else "
        + ("may get some of them too." if card.multilabel else "gets one of them too."),
        "- The results are of images like those it was trained on; on others, measure them: "
        f"`vitrail evaluate {shlex.quote(source)} DATA`.",
        *_few(facts),
        *_license(provenance.get("init")),
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """The text on one line, as Markdown, and the HTML in it, show it: names may hold anything."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]#|~$]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def _weak(facts: RunFacts) -> list[str]:
    """The classes that are found least, and the commonest confusions, where there are mistakes at all."""
    lines: list[str] = []
    key, what = ("average_precision", "average precision") if facts.multilabel else ("recall", "share found")
    rows = [row for row in worst_first(facts) if row[key] is not None and row[key] < 1][:_MOST_WEAK]
    if rows:
        told = ", ".join(f"{row['class']} {percent(row[key])} ({row['images']:,})" for row in rows)
        lines.append(f"- Weakest classes, by {what}, with their {facts.split} images: {_escaped(told)}.")
    pairs = confused_pairs(facts, most=3)
    if pairs:
        told = ", ".join(
            f"{facts.classes[pair.label]} for {facts.classes[pair.taken]} ({pair.count:,} of {pair.images:,})"
            for pair in pairs
        )
        lines.append(f"- Most often taken for another: {_escaped(told)}.")
    return [*lines, ""] if lines else []


def _few(facts: RunFacts) -> list[str]:
    few, none = few_and_none(facts)
    lines = [f"- No {facts.split} image, so nothing is measured: {_escaped(some(none))}."] if none else []
    if few:
        lines.append(f"- Fewer than {FEW_IMAGES} {facts.split} images, too few to say much of: {_escaped(some(few))}.")
    return lines


def _temperature(facts: RunFacts, card: ModelCard) -> str:
    if card.temperature == 1:
        return f"Probabilities are as the model gives them; {no_temperature(facts)}."
    return f"Probabilities are calibrated by a temperature of {card.temperature:.3g}, fitted on validation images."


def _task(card: ModelCard) -> str:
    if card.multilabel:
        return f"gives an image those of {len(card.classes)} labels whose probability is above a half"
    return f"sorts images into {len(card.classes)} classes"


def _metadata(init: Mapping[str, Any] | None) -> list[str]:
    """What the hub reads, with the model of the hub that this one began with."""
    name = "" if init is None else str(init["weights"])
    base = [f"base_model: {name.removeprefix('hf:')}"] if name.startswith("hf:") else []
    tags = ["tags:", "- image-classification", "- vision", "- vitrail"]
    return ["---", "library_name: vitrail", "pipeline_tag: image-classification", *tags, *base, "---", ""]


def _classes(classes: tuple[str, ...]) -> list[str]:
    named = ", ".join(classes[:MOST_CLASSES])
    more = f", and {len(classes) - MOST_CLASSES:,} more" if len(classes) > MOST_CLASSES else ""
    return [f"Classes: {_escaped(named)}{more}.", ""]


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
    by = f" by {result['best_by'].replace('_', ' ')}" if result.get("best_by") else ""
    rows += ["", f"The best epoch was chosen{by}, and probabilities were calibrated, on the validation images."]
    if "test" not in result:
        rows.append(
            "There were no test images, so nothing here was measured on images that played no part in training."
        )
    return rows


def _training(facts: RunFacts, card: ModelCard, result: Mapping[str, Any]) -> list[str]:
    known = [f"{count:,} {split}" for split, count in facts.counts.items() if count is not None]
    lines = [
        f"- Data: {card.provenance.get('dataset', 'not stated')}, {', '.join(known)} images.",
        *(f"- {sentence}." for sentence in data_sentences(facts)),
        f"- Recipe: {result['recipe']}, {result['epochs']:g} epochs, {result['images_seen']:,} images seen, "
        f"{result['train_seconds']:.0f} s of training.",
    ]
    init = card.provenance.get("init")
    if init is not None:
        lines.append(f"- It began with the weights {shown_source(init['weights'])}{_of_whom(init)}.")
    else:
        lines.append("- It began with random weights.")
    version = card.provenance.get("vitrail")
    lines.append(f"- Made with Vitrail {version}, seed {json.dumps(card.provenance.get('seed'))}.")
    return [_escaped(facts.told(line)) for line in lines]


def _of_whom(init: Mapping[str, Any]) -> str:
    """The weights before these, back to the first."""
    before = init.get("init")
    return "" if before is None else f", which began with {shown_source(before['weights'])}{_of_whom(before)}"


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
    return [f'Answers at or below a probability of {below_one(card.reject_threshold)} say "not sure".']


def _license(init: Mapping[str, Any] | None) -> list[str]:
    """What is known of licences; that of the model itself is for its owner to state."""
    lines = ["- No licence is stated here for this model; its owner may add one."]
    while init is not None:
        if init.get("license"):
            said = f"- The weights {shown_source(init['weights'])} that it began with are under the licence "
            lines.append(_escaped(f"{said}{init['license']}."))
        init = init.get("init")
    return lines
