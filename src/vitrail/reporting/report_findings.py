"""What a run's numbers come to, in sentences that need no other knowledge than counting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitrail.data.findings import count_of
from vitrail.data.splits import Splits
from vitrail.errors import some
from vitrail.reporting.report_facts import RunFacts

FEW_IMAGES = 10  # of a class in the test: below, its numbers say little
LARGE_GAP = 0.1  # between training and validation accuracy
GOOD_CALIBRATION, BAD_CALIBRATION = 0.03, 0.08  # mean gap between what is said and what is so
SURE = 0.9
MOST_PAIRS = 8


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused: so many of the `images` of class `label` were taken for class `taken`."""

    label: int
    taken: int
    count: int
    images: int

    @property
    def share(self) -> float:
        """The part of the class's images."""
        return self.count / self.images


def percent(fraction: float, digits: int = 1) -> str:
    """0.987 -> "98.7 %"; a fraction below 1 is never rounded up to 100."""
    text = f"{100 * fraction:.{digits}f}"
    return f"{text if fraction >= 1 or float(text) < 100 else f'{100 - 10**-digits:.{digits}f}'} %"


def below_one(probability: float) -> str:
    """0.25 -> "0.250", 0.99997 -> "0.99997": with as many decimals as keep it from being rounded up to 1."""
    digits = 3
    while probability < 1 and float(f"{probability:.{digits}f}") == 1:
        digits += 1
    return f"{probability:.{digits}f}"


def interval(bounds: Sequence[float] | None) -> str:
    """A 95 % interval: "95.7 to 98.9 %", "-" where there is none."""
    return "-" if bounds is None else f"{percent(bounds[0])[:-2]} to {percent(bounds[1])}"


def headline(facts: RunFacts) -> list[str]:
    """What the model is and how good, in sentences for someone who has never trained one."""
    task = f"This model sorts images into {count_of(len(facts.classes), 'class', 'classes')}"
    if facts.multilabel:
        task = f"This model gives an image any of {count_of(len(facts.classes), 'label')}, or none"
    if not facts.classes:
        task = "This is the report of a model"
    if facts.split is None:
        return [f"{task}.", *_progress(facts)]
    judged = facts.judged
    right = f"for {percent(judged['accuracy'])} of {judged['images']:,} {facts.split} images"
    exactly = "it gives exactly the right labels" if facts.multilabel else "it is right"
    unseen = "" if facts.split == "validation" else ", which played no part in training"
    low, high = (percent(bound) for bound in judged["accuracy_ci95"])
    sentences = [
        f"{task}; {exactly} {right}{unseen}.",
        f"For other images like these, expect between {low} and {high} (95 % interval).",
    ]
    if facts.split == "validation":
        sentences.append(
            "There were no test images: these are the ones that the best epoch was chosen by, so that the result is "
            "probably a little too good."
        )
    if judged.get("mean_average_precision") is not None:
        ranked = sum(row["images"] > 0 for row in judged["per_class"])
        labels = len(judged["per_class"])
        over = f"all {labels:,}" if ranked == labels else f"the {ranked:,} of {labels:,}"
        sentences.append(
            f"Ranked by each label's probability, images with it stand before those without: mean average precision "
            f"{judged['mean_average_precision']:.3f} of 1, over {over} labels that {facts.split} images have."
        )
    elif not facts.multilabel:
        largest = max(judged["per_class"], key=lambda row: row["images"])
        share = percent(largest["images"] / judged["images"])
        sentences.append(f"Always answering {largest['class']!r}, the commonest class, would be right for {share}.")
    return sentences


def _progress(facts: RunFacts) -> list[str]:
    """How far a run has come that has not finished."""
    sentences = ["The run has not finished: nothing is tested yet, and all that follows is as far as it came."]
    if facts.evaluations:
        best = max(facts.evaluations, key=_chosen_by)
        wanted = facts.config.get("training", {})
        of = "" if wanted.get("time_seconds") else f" of {wanted.get('epochs', '?')}"
        sentences.append(
            f"After epoch {facts.evaluations[-1]['epoch']:g}{of} the best so far is epoch {best['epoch']:g}, right for "
            f"{percent(best['accuracy'])} of the validation images."
        )
    return sentences


def _chosen_by(evaluation: Mapping[str, Any]) -> float:
    """What the best epoch is chosen by: accuracy, where no other is in the line."""
    keys = ("mean_average_precision", "balanced_accuracy", "accuracy")
    return next(evaluation[key] for key in keys if key in evaluation)


def confused_pairs(facts: RunFacts, most: int = MOST_PAIRS) -> list[Pair]:
    """The pairs of classes that are confused most, by number of images, then by their part of the class."""
    if "confusion" not in facts.judged:
        return []
    confusion = np.array(facts.judged["confusion"], np.int64)
    images = confusion.sum(axis=1)
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = np.nonzero(wrong)
    pairs = [
        Pair(row, column, int(wrong[row, column]), int(images[row]))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.label, pair.taken))[:most]


def pair_sentence(pair: Pair, classes: Sequence[str]) -> str:
    """What is confused, and how often."""
    share = f"{pair.count:,} of {pair.images:,} images, {percent(pair.share)}"
    return f"{classes[pair.label]} taken for {classes[pair.taken]}: {share}"


def worst_first(facts: RunFacts) -> list[dict[str, Any]]:
    """The rows of per_class, those that are found least first; classes without images last."""
    key = "average_precision" if facts.multilabel else "recall"
    rows = [dict(row) for row in facts.judged.get("per_class", ())]
    return sorted(rows, key=lambda row: (row[key] is None, row[key] or 0.0))


def notable(facts: RunFacts, mistakes: np.ndarray | None = None) -> list[str]:
    """What stands out, most important first; `mistakes` are the probabilities of the wrong answers."""
    if facts.split is None:
        return list(_of_training(facts))
    return [
        *_of_classes(facts),
        *_of_mistakes(facts, mistakes),
        *_of_calibration(facts.judged),
        *_of_training(facts),
        *_of_sample(facts),
    ]


def _of_classes(facts: RunFacts) -> Iterator[str]:
    ranked = [row for row in worst_first(facts) if row["recall"] is not None]
    if not ranked:
        return
    worst = ranked[0]
    if not facts.multilabel and worst["recall"] < facts.judged["accuracy_ci95"][0]:
        images = count_of(worst["images"], "image")
        yield (
            f"{worst['class']!r} is found least: {percent(worst['recall'])} of its {images} (95 % interval "
            f"{interval(worst['recall_ci95'])})"
        )
    if facts.multilabel and round(worst["average_precision"], 3) < 1:
        yield (
            f"{worst['class']!r} is ranked worst, with an average precision of {worst['average_precision']:.3f} over "
            f"{count_of(worst['images'], 'image')} that {'has' if worst['images'] == 1 else 'have'} it"
        )
    for pair in confused_pairs(facts, most=1):
        if pair.count > 1:
            yield (
                f"The commonest mistake is to take {facts.classes[pair.label]!r} for {facts.classes[pair.taken]!r}: "
                f"{pair.count} of {pair.images} images, {percent(pair.share)}"
            )
    never = [str(row["class"]) for row in ranked if row["precision"] is None]
    if never:
        yield f"Never given as an answer: {some(never)}"


def _of_mistakes(facts: RunFacts, mistakes: np.ndarray | None) -> Iterator[str]:
    if mistakes is None or not len(mistakes):
        return
    sure = int((mistakes > SURE).sum())
    if sure:
        of = f"{len(mistakes):,} mistakes" if len(mistakes) > 1 else "1 mistake"
        yield f"{sure:,} of {of} {'was' if sure == 1 else 'were'} made with a probability above {percent(SURE, 0)}"


def _of_calibration(judged: Mapping[str, Any]) -> Iterator[str]:
    points = f"{100 * judged['ece']:.1f} points"
    if judged["ece"] <= GOOD_CALIBRATION:
        yield f"Probabilities can be taken at their word: on average they are off by {points}"
    elif judged["ece"] > BAD_CALIBRATION:
        yield f"Probabilities are not to be taken at their word: on average they are off by {points}"


def _of_training(facts: RunFacts) -> Iterator[str]:
    result, evaluations = facts.result or {}, facts.evaluations
    if result and len(evaluations) > 1 and result.get("best_epoch") == result.get("epochs"):
        yield "The best epoch was the last one, so that longer training may help"
    told = [line["accuracy"] for line in facts.steps[-3:] if isinstance(line.get("accuracy"), float)]
    if told and evaluations:
        gap = float(np.mean(told)) - evaluations[-1]["accuracy"]
        if gap > LARGE_GAP:
            yield (
                f"At the end training images were answered {100 * gap:.0f} points better than validation images: more "
                "images, or more augmentation, may help"
            )
    tested, chosen = result.get("test"), result.get("validation")
    if tested and chosen and _surely_higher(chosen, tested):
        yield (
            "On validation images, which the best epoch was chosen by, accuracy is "
            f"{percent(chosen['accuracy'])}: more than chance lets test images differ by"
        )


def few_and_none(facts: RunFacts) -> tuple[list[str], list[str]]:
    """The classes with some images, but too few to say much of, and those without any, in the split judged by."""
    counts = {str(row["class"]): row["images"] for row in facts.judged["per_class"]}
    few = [name for name, images in counts.items() if 0 < images < FEW_IMAGES]
    return few, [name for name, images in counts.items() if not images]


def _surely_higher(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the 95 % interval of the difference of two accuracies lies above 0: Newcombe 1998, method 10."""
    below = one["accuracy"] - one["accuracy_ci95"][0]
    above = other["accuracy_ci95"][1] - other["accuracy"]
    return one["accuracy"] - other["accuracy"] > math.hypot(below, above)


def _of_sample(facts: RunFacts) -> Iterator[str]:
    one, several = ("label", "labels") if facts.multilabel else ("class", "classes")
    few, none = few_and_none(facts)
    if none:
        without = count_of(len(none), one, several)
        yield f"{without} without any {facts.split} image, so nothing is measured: {some(none)}"
    if few:
        have = f"{one} has" if len(few) == 1 else f"{several} have"
        yield f"{len(few):,} {have} fewer than {FEW_IMAGES} {facts.split} images, too few to say much of: {some(few)}"
    least = facts.judged.get("smallest_difference")
    if least is not None:
        yield (
            f"{facts.judged['images']:,} images cannot tell two models apart that differ by less than about "
            f"{100 * least:.1f} points"
        )


def data_sentences(facts: RunFacts) -> list[str]:
    """What is known of the data: counts, how splits were made, and what the audit found."""
    sentences = [*_splits_sentence(facts.splits)] if facts.splits is not None else []
    if facts.audit is not None:
        found = facts.audit.sentences()
        sentences += found
        if len(found) == 1:
            sentences.append("The audit of the files found nothing wrong")
    elif facts.dataset:
        sentences.append(
            f"Files were not looked through: {facts.dataset} has no folder or table of images of its own"
            if not facts.missing or not any("audit" in sentence for sentence in facts.missing)
            else "What the audit found is not known"
        )
    if facts.config.get("data", {}).get("corrections"):
        sentences.append("Corrections were applied, which the run keeps in corrections.csv")
    return [facts.told(sentence) for sentence in sentences]


def _splits_sentence(splits: Splits) -> Iterator[str]:
    if splits.fold is not None:
        yield f"Fold {splits.fold} is the test, the next is validation; dealt by content with seed {splits.seed}"
        return
    drawn = [f"{percent(rate, 0)} {name}" for name, rate in splits.rates.items()]
    published = [name for name in splits.parts if name not in splits.rates and splits.parts[name].source == name]
    if drawn:
        kept = "equal and nearly equal images stay together"
        yield f"Drawn by content with seed {splits.seed}: {', '.join(drawn)}; {kept}"
    if published:
        yield f"As published: {', '.join(published)}"


def calibration_sentences(facts: RunFacts) -> list[str]:
    """How far probabilities can be trusted, and what the threshold does, for the split that the run is judged by."""
    judged, sentences = facts.judged, list[str]()
    if not judged:
        return sentences
    after = f"{100 * judged['ece']:.1f} points"
    if judged.get("temperature", 1) == 1:
        sentences.append(f"Probabilities are off by {after} on average; {no_temperature(facts)}")
    else:
        sentences.append(
            f"Probabilities are off by {after} on average, after logits are divided by {judged['temperature']:.3g}, "
            f"the temperature that validation images gave; before, by {100 * judged['ece_uncalibrated']:.1f}"
        )
    answered = judged.get("answered")
    threshold = None if facts.card is None else facts.card.reject_threshold
    if answered is not None and threshold is not None:
        said = f"Answers with a probability of {below_one(threshold)} or less say 'not sure'"
        if not answered["images"]:
            sentences.append(f"{said}, which all {facts.split} images do")
        else:
            sentences.append(
                f"{said}: {percent(answered['coverage'])} of the {facts.split} images are answered, and "
                f"{percent(answered['accuracy'])} of these rightly ({interval(answered['accuracy_ci95'])})"
            )
    return sentences


def no_temperature(facts: RunFacts) -> str:
    """Why a model's temperature is 1."""
    if (facts.result or {}).get("validation", {}).get("accuracy") == 1:
        return "no temperature was fitted: every validation image was right"
    return "no temperature proved better in trials on validation images"


def coverage_rows(judged: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Share of images answered, how many of them rightly, and above which probability: some points of the curve."""
    points = judged.get("accuracy_coverage", ())
    kept = [point for point in points if round(20 * point["coverage"]) % 4 == 0 or point["coverage"] >= 0.9]
    return [(percent(point["coverage"]), percent(point["accuracy"]), _above(point["threshold"])) for point in kept]


def _above(threshold: float) -> str:
    """0.25 -> "0.250"; no probability is above 1, so that next to it is "> 0.999"."""
    return "> 0.999" if threshold >= 0.9995 else f"{threshold:.3f}"
