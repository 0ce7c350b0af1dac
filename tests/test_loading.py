"""A RUN, whatever it stands for."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import vitrail
from vitrail.errors import ConfigError
from vitrail.loading import check_classes, find_source


def test_a_run_and_the_model_taken_out_of_it_answer_alike(digits_run: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.json"):
        shutil.copyfile(digits_run / name, tmp_path / name)
    run, model = find_source(digits_run), find_source(tmp_path)
    assert run.directory is not None
    assert (model.name, model.directory) == (str(tmp_path), None)
    images = np.zeros((1, 8, 8, 1), np.uint8)
    assert np.array_equal(run.classifier("cpu").logits(images), model.classifier("cpu").logits(images))
    assert vitrail.load(tmp_path).card.temperature == vitrail.load(digits_run).card.temperature


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a run: it holds no config\.json"):
        find_source(tmp_path)


def test_classes_are_asked_for(digits_run: Path) -> None:
    classifier = find_source(digits_run).classifier("cpu")
    check_classes(classifier, "run")
    classifier.card = classifier.card.model_copy(update={"classes": ()})
    with pytest.raises(ConfigError, match=r"^run has no classes: it is a feature extractor"):
        check_classes(classifier, "run")


def test_what_is_no_run_is_said(digits_run):
    with pytest.raises(ConfigError, match=r"^A Classifier is no run; give the folder of a run"):
        find_source(vitrail.load(digits_run))
