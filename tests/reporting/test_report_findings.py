from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vitrail.data.splits import Splits
from vitrail.evaluation import classification_metrics
from vitrail.evaluation.intervals import wilson_interval
from vitrail.reporting.report_facts import RunFacts, read_facts
from vitrail.reporting.report_findings import (
    Pair,
    below_one,
    calibration_sentences,
    confused_pairs,
    coverage_rows,
    data_sentences,
    headline,
    interval,
    notable,
    percent,
    worst_first,
)

CLASSES = ("ant", "bee", "cat")


def facts_of(kept_run: Any, confusion: list[list[int]], **changes: Any) -> RunFacts:
    """Facts of a run with this confusion matrix on its test, every answer of a probability of 0.9."""
    counts = np.array(confusion)
    labels = np.repeat(np.arange(3), counts.sum(axis=1))
    given = np.concatenate([np.repeat(np.arange(3), row) for row in counts])
    logits = np.where(given[:, None] == np.arange(3), np.log(18), 0.0)
    facts = read_facts(kept_run.directory)
    result = {**facts.result, "test": classification_metrics(logits, labels, CLASSES, bootstrap_samples=10)}
    card = facts.card.model_copy(update={"classes": CLASSES})
    return replace(facts, result=result, card=card, **changes)


def test_shares_are_never_rounded_up_to_all() -> None:
    assert [percent(0.987), percent(0.9999), percent(1.0), percent(0.5, 0)] == ["98.7 %", "99.9 %", "100.0 %", "50 %"]
    assert interval((0.957, 0.989)) == "95.7 to 98.9 %"
    assert interval(None) == "-"


def test_the_headline_is_for_everyone(kept_run: Any) -> None:
    facts = facts_of(kept_run, [[9, 1, 0], [0, 5, 0], [0, 0, 5]])
    low, high = facts.judged["accuracy_ci95"]
    assert headline(facts) == [
        "This model sorts images into 3 classes; it is right for 95.0 % of 20 test images, which played no part in "
        "training.",
        f"For other images like these, expect between {percent(low)} and {percent(high)} (95 % interval).",
        "Always answering 'ant', the commonest class, would be right for 50.0 %.",
    ]


def test_the_headline_of_other_runs(other_run: Callable[..., Any]) -> None:
    without = headline(read_facts(other_run(test=False).directory))
    assert "validation images." in without[0]
    assert "probably a little too good" in without[2]
    several = headline(read_facts(other_run(multilabel=True).directory))
    assert several[0].startswith(
        "This model gives an image any of 3 labels, or none; it gives exactly the right labels"
    )
    assert "mean average precision 0." in several[2]
    assert several[2].endswith(" of 1, over all 3 labels that test images have.")
    unfinished = headline(read_facts(other_run(finished=False).directory))
    assert unfinished[0] == "This model sorts images into 3 classes."
    assert "has not finished" in unfinished[1]
    assert unfinished[2] == (
        "After epoch 2 of 60 the best so far is epoch 2, right for 60.0 % of the validation images."
    )


def test_pairs_are_ranked_by_count_then_by_share(kept_run: Any) -> None:
    facts = facts_of(kept_run, [[6, 2, 0], [0, 8, 2], [0, 2, 2]])
    assert confused_pairs(facts) == [Pair(2, 1, 2, 4), Pair(0, 1, 2, 8), Pair(1, 2, 2, 10)]
    assert confused_pairs(facts, most=1)[0].share == 0.5


def test_the_weakest_class_comes_first_and_one_without_images_last(kept_run: Any) -> None:
    facts = facts_of(kept_run, [[3, 1, 0], [2, 2, 0], [0, 0, 0]])
    assert [row["class"] for row in worst_first(facts)] == ["bee", "ant", "cat"]


def test_what_stands_out(kept_run: Any) -> None:
    facts = facts_of(kept_run, [[40, 0, 0], [4, 16, 0], [2, 0, 2]])
    said = notable(facts, np.array([0.95, 0.91, 0.6, 0.6, 0.6, 0.6]))
    assert said[0].startswith("'cat' is found least: 50.0 % of its 4 images (95 % interval ")
    assert said[1] == "The commonest mistake is to take 'bee' for 'ant': 4 of 20 images, 20.0 %"
    assert said[2] == "2 of 6 mistakes were made with a probability above 90 %"
    assert said[3] == "Probabilities can be taken at their word: on average they are off by 0.6 points"
    assert said[4] == "1 class has fewer than 10 test images, too few to say much of: cat"
    assert said[5].startswith("64 images cannot tell two models apart that differ by less than about ")


def test_what_stands_out_of_the_training(kept_run: Any) -> None:
    facts = facts_of(kept_run, [[10, 0, 0], [0, 10, 0], [0, 0, 10]])
    steps = ({"step": 1, "loss": 0.1, "accuracy": 0.99},)
    result = {**facts.result, "best_epoch": 2.0, "epochs": 2.0}
    assert notable(facts)[0].startswith(
        "Probabilities are not to be taken at their word: on average they are off by 10"
    )
    said = notable(replace(facts, steps=steps, result=result))
    assert "The best epoch was the last one, so that longer training may help" in said
    assert any(sentence.startswith("At the end training images were answered 39 points better") for sentence in said)


def test_validation_may_be_too_good(kept_run: Any) -> None:
    facts = facts_of(kept_run, [[30, 30, 0], [0, 30, 30], [0, 0, 60]])
    for correct, images, told in ((95, 100, True), (19, 20, True), (9, 10, False), (13, 15, False)):
        bounds = wilson_interval(correct, images)
        validation = {**facts.result["validation"], "accuracy": correct / images, "accuracy_ci95": bounds}
        assert (correct / images > facts.judged["accuracy_ci95"][1]) or not told
        said = notable(replace(facts, result={**facts.result, "validation": validation}))
        sentence = f"accuracy is {percent(correct / images)}: more than chance lets test images differ by"
        assert any(sentence in found for found in said) == told


def test_data_of_every_origin(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    assert data_sentences(facts)[0].startswith("Drawn by content with seed 0: 10 % validation, 20 % test;")
    assert isinstance(facts.splits, Splits)
    published = replace(
        facts.splits, rates={}, parts={name: replace(part, source=name) for name, part in facts.splits.parts.items()}
    )
    assert data_sentences(replace(facts, splits=published))[0] == "As published: train, validation, test"
    assert data_sentences(replace(facts, splits=replace(facts.splits, fold="2/5")))[0].startswith(
        "Fold 2/5 is the test"
    )


def test_calibration_and_coverage(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    (sentence,) = calibration_sentences(facts)
    assert "after logits are divided by 1.5, the temperature that validation images gave" in sentence
    card = facts.card.model_copy(update={"reject_threshold": 0.6})
    answered = {"images": 10, "coverage": 1 / 3, "accuracy": 0.9, "accuracy_ci95": [0.6, 0.98]}
    rejecting = replace(facts, card=card, result={**facts.result, "test": {**facts.judged, "answered": answered}})
    assert calibration_sentences(rejecting)[1] == (
        "Answers with a probability of 0.600 or less say 'not sure': 33.3 % of the test images are answered, and "
        "90.0 % of these rightly (60.0 to 98.0 %)"
    )
    points = [{"coverage": share, "accuracy": 0.5, "threshold": 0.25} for share in (1.0, 0.95, 0.85, 0.8, 0.2)]
    told = coverage_rows({"accuracy_coverage": points})
    assert [row[0] for row in told] == ["100.0 %", "95.0 %", "80.0 %", "20.0 %"]
    assert told[0][1:] == ("50.0 %", "0.250")
    (sure,) = coverage_rows({"accuracy_coverage": [{"coverage": 1.0, "accuracy": 0.5, "threshold": 0.99997}]})
    assert sure[2] == "> 0.999"
    assert [below_one(value) for value in (0.25, 0.9994, 0.99997, 1.0)] == ["0.250", "0.999", "0.99997", "1.000"]


def test_a_temperature_of_1_has_its_reason(kept_run: Any) -> None:
    facts = facts_of(kept_run, [[9, 1, 0], [0, 5, 0], [0, 0, 5]])
    for accuracy, reason in (
        (1.0, "no temperature was fitted: every validation image was right"),
        (0.9, "no temperature proved better in trials on validation images"),
    ):
        validation = {**facts.result["validation"], "accuracy": accuracy}
        (sentence,) = calibration_sentences(replace(facts, result={**facts.result, "validation": validation}))
        assert sentence.endswith(f" points on average; {reason}")


def test_labels_without_images_are_told_apart_from_those_of_few(other_run: Callable[..., Any]) -> None:
    facts = read_facts(other_run(multilabel=True).directory)
    rows = [
        {**row, "images": images, "average_precision": precision, "recall": precision}
        for row, images, precision in zip(facts.judged["per_class"], (0, 5, 20), (None, 1.0, 1.0), strict=True)
    ]
    changed = replace(facts, result={**facts.result, "test": {**facts.judged, "per_class": rows}})
    nothing, few = rows[0]["class"], rows[1]["class"]
    assert "over the 2 of 3 labels that test images have" in headline(changed)[2]
    said = notable(changed)
    assert f"1 label without any test image, so nothing is measured: {nothing}" in said
    assert f"1 label has fewer than 10 test images, too few to say much of: {few}" in said
    assert not any("ranked worst" in sentence for sentence in said)


@pytest.mark.parametrize("kind", [{"multilabel": True}, {"test": False}, {"finished": False}, {"num_classes": 40}])
def test_every_kind_of_run_has_its_sentences(other_run: Callable[..., Any], kind: dict[str, Any]) -> None:
    facts = read_facts(other_run(**kind).directory)
    for sentence in [*notable(facts, np.array([0.99])), *data_sentences(facts), *calibration_sentences(facts)]:
        assert sentence[0].isupper() or sentence[0] in "'0123456789"
        assert not sentence.endswith(".")
