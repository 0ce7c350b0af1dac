"""The model card of a run and of a pushed model: its facts, whole and without a path."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from vitrail.checkpoint import ModelCard
from vitrail.data.preprocess import Preprocess
from vitrail.models import model_config
from vitrail.reporting.model_card import model_card
from vitrail.reporting.report_facts import read_facts

CLASS = {"class": "ant", "images": 30, "recall": 0.9, "precision": 0.9, "f1": 0.9, "average_precision": 0.8}
SPLIT = {"images": 30, "accuracy": 0.9, "accuracy_ci95": [0.75, 0.97], "balanced_accuracy": 0.88, "ece": 0.05}
SPLIT |= {"per_class": [CLASS], "loss": 0.3}
RESULT = {
    "parameters": 1234,
    "recipe": "finetune",
    "epochs": 2.0,
    "images_seen": 96,
    "train_seconds": 3.4,
    "validation": SPLIT,
    "test": SPLIT,
}
Written = Callable[..., str]


@pytest.fixture
def text(kept_run: Any) -> Written:
    """`text(result, classes=..., ...)`: the pushed card of a model that is so."""

    def written(result: Mapping[str, Any] = RESULT, **changes: object) -> str:
        known = {
            "model_name": "vit_micro_conv4_8",
            "model": model_config("vit_micro_conv4_8", num_classes=2),
            "classes": ("ant", "bee"),
            "preprocess": Preprocess(image_size=(8, 8), channels=1, fit="pad"),
            "temperature": 1.25,
            "provenance": {"vitrail": "0.1.0", "dataset": "pets", "seed": 3},
        }
        facts = replace(
            read_facts(kept_run.directory),
            card=ModelCard.model_validate(known | changes),
            result=result,
            counts={"train": 48, "validation": 6, "test": None},
        )
        return model_card(facts, "owner/pets")

    return written


def test_it_says_what_the_model_is_and_how_good(text: Written) -> None:
    lines = text().splitlines()
    assert lines[:2] == ["---", "library_name: vitrail"]
    assert lines.count("---") == 2
    assert "# pets" in lines
    assert "vit_micro_conv4_8, 1,234 parameters, sorts images into 2 classes." in lines
    assert "Classes: ant, bee." in lines
    assert "| test | 30 | 0.9000 | 0.7500 to 0.9700 | 0.8800 | 0.0500 |" in lines
    assert "- Data: pets, 48 train, 6 validation images." in lines
    assert "- It began with random weights." in lines
    assert "vitrail predict hf:owner/pets image.jpg" in lines
    assert any("8x8 pixels, grey, padded to that shape" in line and "temperature of 1.25" in line for line in lines)
    assert "not sure" not in text()


def test_without_a_test_it_says_so(text: Written) -> None:
    result = {key: value for key, value in RESULT.items() if key != "test"}
    assert "There were no test images" in text(result)
    assert "There were no test images" not in text()


def test_it_names_the_weights_before_it_with_their_licence(text: Written) -> None:
    init = {"weights": "run", "digest": "0", "init": {"weights": "hf:other/base", "license": "mit", "digest": "1"}}
    said = text(provenance={"vitrail": "0.1.0", "dataset": "pets", "seed": 3, "init": init})
    assert "- It began with the weights run, which began with hf:other/base." in said
    assert "The weights hf:other/base that it began with are under the licence mit." in said
    assert "base_model" not in said
    assert "base_model: other/base" in text(provenance={"init": init["init"]})


def test_a_temperature_of_1_is_not_called_fitted(text: Written) -> None:
    (said,) = (line for line in text(temperature=1.0).splitlines() if "Probabilities are as the model gives" in line)
    assert "no temperature" in said
    assert "calibrated" not in said


def test_a_threshold_and_many_classes_are_said(text: Written) -> None:
    many = tuple(f"class {index}" for index in range(60))
    said = text(classes=many, reject_threshold=0.8)
    assert "class 49, and 10 more." in said
    assert 'Answers at or below a probability of 0.800 say "not sure".' in said


def test_a_model_that_gives_several_labels_says_so(text: Written) -> None:
    split = {**SPLIT, "mean_average_precision": 0.8123, "balanced_accuracy": None}
    written = text({**RESULT, "test": split}, multilabel=True)
    assert "gives an image those of 2 labels whose probability is above a half." in written
    assert "Accuracy counts images with exactly their labels." in written
    assert "Mean average precision, test: 0.8123." in written
    assert "| 0.7500 to 0.9700 | - | 0.0500 |" in written
    assert '.predict("image.jpg").labels' in written
    assert "several" not in text()
    assert '.predict("image.jpg").label\n' in text()


def test_the_card_of_a_run_names_it_and_its_weak_points(kept_run: Any) -> None:
    facts = read_facts(kept_run.directory)
    written = model_card(facts)
    assert "# photos-digits-1" in written.splitlines()
    assert "vitrail predict photos-digits-1 image.jpg" in written
    assert "This model sorts images into 3 classes; it is right for " in written
    assert "- Weakest classes, by share found, with their test images: class " in written
    assert "- Most often taken for another: class " in written
    assert "/home/ann" not in written
    assert str(kept_run.path.parent) not in written


def test_every_kind_of_run_has_a_card(other_run: Callable[..., Any]) -> None:
    several = model_card(read_facts(other_run(multilabel=True).directory))
    assert "- Weakest classes, by average precision, with their test images: class " in several
    assert "There were no test images" in model_card(read_facts(other_run(test=False).directory))
    few = model_card(read_facts(other_run(num_classes=10).directory))
    assert "- Fewer than 10 test images, too few to say much of: class 0, class 1, class 2 and 7 more." in few


def test_names_are_text_in_markdown_and_html(text: Written) -> None:
    hostile = "<img src=x>\n# [a](b) *c* `d` | e_f _g_ & h"
    row = {**CLASS, "class": hostile}
    split = {**SPLIT, "per_class": [row, {**row, "images": 3}]}
    written = text({**RESULT, "test": split}, classes=(hostile, "bee"), provenance={"dataset": hostile, "seed": 3})
    escaped = r"&lt;img src=x&gt; \# \[a\](b) \*c\* \`d\` \| e_f \_g\_ &amp; h"
    assert f"Classes: {escaped}, bee." in written
    assert f"{escaped} 90.0 % (30)" in written
    assert f"too few to say much of: {escaped}." in written
    assert "<img" not in written
    assert "\n# [a]" not in written


def test_commands_and_code_can_be_copied(kept_run: Any) -> None:
    written = model_card(replace(read_facts(kept_run.directory), name='my "run" $1'))
    assert "vitrail predict 'my \"run\" $1' image.jpg" in written
    assert "`vitrail evaluate 'my \"run\" $1' DATA`" in written
    assert 'vitrail.load("my \\"run\\" $1").predict' in written
    assert '# my "run" \\$1' in written.splitlines()
