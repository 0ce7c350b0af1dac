"""Evaluating and predicting through the verbs."""

from __future__ import annotations

import json

import pytest
from PIL import Image

import vitrail
from vitrail.errors import ConfigError


def test_evaluate_gives_what_train_gave(digits_run):
    run = vitrail.Run(digits_run)
    assert run.evaluate()["test"] == run.result["test"]
    assert run.evaluate("digits", "validation")["validation"] == run.result["validation"]
    assert run.result["test"]["accuracy"] > 0.8


def test_evaluate_reports_how_far_it_is(digits_run):
    heard: list[tuple[int, int]] = []
    metrics = vitrail.evaluate(digits_run, report=lambda done, total: heard.append((done, total)))["test"]
    assert heard[-1] == (metrics["images"], metrics["images"])


def test_predict_writes_what_it_gives(digits_run, tmp_path, digit_images):
    for index in range(3):
        Image.fromarray(digit_images[index]).save(tmp_path / f"{index}.png")
    (tmp_path / "x.png").touch()
    output = tmp_path / "out.jsonl"
    predictions = vitrail.predict(digits_run, tmp_path, output=output)
    assert [prediction.label is None for prediction in predictions] == [False, False, False, True]
    assert [json.loads(line) for line in output.read_text().splitlines()] == [
        prediction.to_dict() for prediction in predictions
    ]
    with pytest.raises(ConfigError, match="does not exist; name an image file, a folder or a pattern"):
        vitrail.predict(digits_run, [tmp_path / "0.png", tmp_path / "nothing.png"])
    with pytest.raises(ConfigError, match="No image given"):
        vitrail.predict(digits_run, [])


def test_predict_sorts_and_suggests(digits_run, tmp_path, digit_images):
    for index in range(4):
        Image.fromarray(digit_images[index]).save(tmp_path / f"{index}.png")
    heard: list[tuple[int, int]] = []
    found = vitrail.predict(
        digits_run,
        tmp_path,
        sort=tmp_path / "sorted",
        suggest=2,
        report=lambda done, total: heard.append((done, total)),
    )
    assert len(found) == found.sorted.copied == 4
    assert len(found.suggestions) == 2
    assert heard == 2 * [(done, 4) for done in (1, 2, 3, 4)]
    assert vitrail.predict(digits_run, tmp_path, sort=str(tmp_path / "sorted")).sorted.present == 4
