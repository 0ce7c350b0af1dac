import base64
import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.classifier import Classifier
from vitrail.engines.pytorch import TorchEngine
from vitrail.interpretation.methods import METHODS, default_method
from vitrail.interpretation.subjects import Subject
from vitrail.reporting.multilabel_figures import NO_LABEL
from vitrail.reporting.report_answers import Answers, answers_of, read_answers
from vitrail.reporting.report_examples import NUM_SHOWN, chosen_groups, make_examples, pair_places
from vitrail.reporting.report_facts import read_facts
from vitrail.reporting.report_findings import Pair, confused_pairs

CLASSES = ("ant", "bee", "cat")


def answers() -> Answers:
    """Six images: the first three right, the surest two of one class."""
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.7, 0.3, 0.0], [0.0, 0.49, 0.51], [0.95, 0.05, 0.0]]
    )
    labels = np.array([0, 0, 1, 1, 1, 2])
    return answers_of("test", [f"{place}.png" for place in range(6)], labels, probabilities)


def decoded(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_which_images_are_shown() -> None:
    groups = {kind: places.tolist() for kind, places in chosen_groups(answers()).items()}
    assert groups["best"] == [0, 2, 1]  # of each class in turn
    assert groups["worst"] == [5, 3, 4]
    assert groups["closest"][0] == 4
    assert [len(places) for places in chosen_groups(answers(), count=2).values()] == [2, 2, 2]


def test_images_of_a_pair_begin_with_the_surest_mistake() -> None:
    given = replace(answers(), given=np.array([0, 0, 1, 0, 0, 0]))
    assert pair_places(given, Pair(1, 0, 2, 3)).tolist() == [3, 4]


def test_every_image_stands_beside_its_evidence(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    found = read_answers(kept_run.directory.predictions_path / "test.parquet", facts.classes)
    images = kept_run.images["test"]
    pairs = confused_pairs(facts)
    examples = make_examples(found, pairs, facts.classes, images, kept_run.classifier)
    assert [group.title for group in examples.groups] == ["Best", "Worst", "Least certain"]
    assert examples.missing == ()
    assert examples.shown
    method = default_method(Subject.of(kept_run.classifier.engine, kept_run.classifier.card.model))
    assert examples.reading == f"{method.capitalize()}: {METHODS[method].reading}"
    for group in examples.groups:
        assert 0 < len(group.examples) <= NUM_SHOWN
        for example in group.examples:
            place = images.names.index(example.name)
            np.testing.assert_array_equal(decoded(example.picture), images.pixels[place][..., 0])
            assert decoded(example.overlay).shape[2] == 3
            assert example.evidence == example.given
            assert example.label == facts.classes[images.labels[place]]
    assert len(examples.confusions) == len(pairs)
    assert examples.confusions[0].sentence.startswith(f"class {pairs[0].label} taken for class {pairs[0].taken}: ")
    sentences = [example.sentence for group in examples.groups for example in group.examples]
    assert any(", found with a probability of " in sentence for sentence in sentences)
    assert any(", taken for class " in sentence for sentence in sentences)


class Counting(torch.nn.Module):
    """A model that counts the images it gets, which no other method than occlusion can explain."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config, self.images = model, model.config, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return self.model(images)


@pytest.mark.parametrize("passes", [math.inf, 1200, 700, 320])
def test_explaining_takes_no_more_passes_than_there_is_time_for(kept_run: Any, passes: float) -> None:
    classes, engine = kept_run.classifier.classes, kept_run.classifier.engine
    found = read_answers(kept_run.directory.predictions_path / "test.parquet", classes)
    counted = Counting(engine.model)
    classifier = Classifier(TorchEngine(counted, engine.device), kept_run.classifier.card)
    examples = make_examples(found, [], classes, kept_run.images["test"], classifier, passes)
    assert 0 < counted.images <= passes
    assert examples.reading.startswith("Occlusion: ")
    assert all(sum(bool(example.overlay) for example in group.examples) >= 2 for group in examples.groups)


def test_where_the_default_is_too_slow_the_fastest_method_is_taken_and_named(kept_run: Any) -> None:
    classes = kept_run.classifier.classes
    found = read_answers(kept_run.directory.predictions_path / "test.parquet", classes)
    for passes, shown in ((100, NUM_SHOWN), (40, 2), (16, 1)):
        examples = make_examples(found, [], classes, kept_run.images["test"], kept_run.classifier, passes)
        assert examples.reading.startswith("Relevance: ")
        assert examples.reading.endswith("; occlusion, otherwise used for such images, would have taken too long")
        assert sum(bool(example.overlay) for example in examples.groups[0].examples) >= shown
    examples = make_examples(found, [], classes, kept_run.images["test"], kept_run.classifier, 1)
    assert (examples.reading, examples.shown) == ("", True)
    assert examples.missing[0].startswith("Answers are not explained: this would take too long")


def test_without_images_there_are_names_and_a_sentence(kept_run: Any) -> None:
    examples = make_examples(answers(), [], CLASSES, None, kept_run.classifier)
    assert not examples.shown
    assert examples.missing == ("The test images are not here, so that none is shown",)
    assert examples.groups[0].examples[0].name == "0.png"


def test_images_are_found_by_name_when_others_are_gone(kept_run: Any) -> None:
    classes = kept_run.classifier.classes
    found = read_answers(kept_run.directory.predictions_path / "test.parquet", classes)
    images = kept_run.images["test"].take(np.arange(29, 14, -1))
    examples = make_examples(found, [], classes, images, None)
    shown = [example for group in examples.groups for example in group.examples]
    assert {bool(example.picture) for example in shown} == {False, True}
    for example in shown:
        assert bool(example.picture) == (example.name in images.names)


def test_several_labels_have_mistakes_by_label(other_run: Callable[..., Any]) -> None:
    run = other_run(multilabel=True)
    classes = run.classifier.classes
    found = read_answers(run.directory.predictions_path / "test.parquet", classes)
    examples = make_examples(found, [], classes, run.images["test"], run.classifier)
    missed = (found.labels & ~found.given).sum(axis=0)
    added = (found.given & ~found.labels).sum(axis=0)
    counts = sorted([*missed.tolist(), *added.tolist()], reverse=True)
    assert [f": {count} of " in found.sentence for count, found in zip(counts, examples.confusions, strict=False)]
    assert any(" not given to images that have it: " in confusion.sentence for confusion in examples.confusions)
    assert all(confusion.examples for confusion in examples.confusions)
    assert all(example.overlay for example in examples.groups[0].examples)
    for example in (example for group in examples.groups for example in group.examples):
        assert example.evidence in classes
        assert example.given == NO_LABEL or example.given.startswith(example.evidence)  # of several, the first one


@pytest.mark.parametrize("side", [8, 168])
def test_pictures_are_small(other_run: Callable[..., Any], side: int) -> None:
    run = other_run(num_images=9, side=side, channels=3)
    classes = run.classifier.classes
    found = read_answers(run.directory.predictions_path / "test.parquet", classes)
    examples = make_examples(found, [], classes, run.images["test"], run.classifier)
    example = examples.groups[0].examples[0]
    assert max(decoded(example.picture).shape) == min(side, 160)
    assert example.small == (side == 8)
