from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from vitrail.models import MODELS, model_config
from vitrail.reporting.report_facts import read_facts
from vitrail.reporting.report_tables import (
    class_columns,
    class_rows,
    cost_rows,
    duration,
    environment_rows,
    known_operations,
    short_count,
    split_columns,
    split_rows,
    tiles,
)


def test_numbers_at_the_top(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    told = dict(tiles(facts))
    assert [*told] == [
        "test accuracy", "95 % interval", "balanced accuracy", "classes", "training images", "parameters",
        "training time",
    ]  # fmt: skip
    assert (told["classes"], told["training images"], told["parameters"], told["training time"]) == (
        "3", "30", "1,234", "3.4 s"
    )  # fmt: skip


@pytest.mark.parametrize("multilabel", [False, True])
def test_rows_have_a_cell_under_every_heading(other_run: Callable[..., Any], multilabel: bool) -> None:
    facts = read_facts(other_run(multilabel=multilabel).directory)
    rows = split_rows(facts)
    assert [row[0] for row in rows] == ["test", "validation"]
    assert {len(row) for row in rows} == {len(split_columns(facts))}
    assert {len(row.cells) for row in class_rows(facts)} == {len(class_columns(facts))}


def test_a_class_is_shown_with_its_interval(kept_run: Any) -> None:
    facts = replace(read_facts(kept_run.directory), class_counts=(5, 6, 7))
    rows = class_rows(facts)
    assert sorted(row.width for row in rows) == [row.width for row in rows]
    for row in rows:
        recall = next(found for found in facts.judged["per_class"] if found["class"] == row.name)
        assert row.width == pytest.approx(100 * recall["recall"], abs=0.06)
        assert (row.low, row.high) == pytest.approx([100 * bound for bound in recall["recall_ci95"]], abs=0.06)
        assert row.trained_on == (5, 6, 7)[int(row.name[-1])]


def test_a_class_without_images_has_no_share(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    absent = {"class": "gone", "images": 0} | dict.fromkeys(
        ("precision", "recall", "f1", "recall_ci95", "precision_ci95")
    )
    judged = {**facts.judged, "per_class": [absent, *facts.judged["per_class"]]}
    last = class_rows(replace(facts, result={**facts.result, "test": judged}))[-1]
    assert (last.name, last.interval, last.width, last.cells) == ("gone", "-", 0.0, ("-", "-"))


def test_cost_and_environment(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    told = dict(cost_rows(facts, 1_234_000_000, 683_000))
    assert told["images seen in training"] == "480 in 2 epochs"
    assert told["speed of training"] == "141 images a second"
    assert told["multiply-adds of one image"] == "1.23 GFLOPs"
    assert told["size of the model's file"] == "683 kB"
    assert "compiling" not in told
    there = dict(environment_rows(facts))
    assert there["processor"] == "A processor, 2 cores used"
    assert there["memory of the machine"] == "8 GB"
    assert there["versions"] == "Python 3.11.7, torch 2.15.0"
    assert environment_rows(replace(facts, environment={})) == []


def test_durations_and_counts() -> None:
    assert [duration(seconds) for seconds in (0.12, 59.4, 90, 7320)] == ["0.1 s", "59 s", "1 min 30 s", "2 h 2 min"]
    assert [short_count(number) for number in (1234, 86_567_656, 1_200_000_000)] == [
        "1,234", "86.6 million", "1.2 billion"
    ]  # fmt: skip


def test_operations_are_those_of_the_catalogue_or_not_known(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    assert known_operations(facts) is None  # its width is another
    listed = model_config("vit_base_patch16_224", num_classes=3)
    card = facts.card.model_copy(update={"model_name": "vit_base_patch16_224", "model": listed})
    assert known_operations(replace(facts, card=card)) == 16120582656
    assert "vit_base_patch16_224" in MODELS
    assert known_operations(replace(facts, card=None)) is None
