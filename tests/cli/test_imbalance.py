"""Rare classes, from the command line."""

import json
import logging
import signal
from pathlib import Path

import pytest

SETTINGS = ("model.embed_dim=16", "model.depth=1", "training.batch_size=16", "training.log_steps=2")
HOW = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(autouse=True)
def _log_all(caplog) -> None:
    caplog.set_level(logging.INFO, "vitrail")


@pytest.fixture
def rare(write_tree, tmp_path) -> Path:
    return write_tree(tmp_path / "rare", {"ant": 60, "bee": 8})


def config(run: Path) -> dict[str, object]:
    return json.loads((run / "config.json").read_text())["training"]


def test_auto_says_what_is_done_and_keeps_it(vitrail, caplog, rare, tmp_path):
    done = vitrail("train", rare, "--epochs", "2", *HOW, "--out", tmp_path / "run")
    assert done.code == 0
    (said,) = [message for message in caplog.messages if "training.imbalance" in message]
    assert said.startswith("The largest class has ")
    assert said.endswith(": training.imbalance=balanced_sampling, and the best epoch is chosen by balanced accuracy")
    assert config(tmp_path / "run")["imbalance"] == "balanced_sampling"
    assert " of 2 by validation balanced accuracy, " in done.out
    assert "validation balanced accuracy " in done.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert ["split", "epoch", "accuracy", "balanced_accuracy", "loss"] in [list(line) for line in lines]


def test_a_run_is_repeated_with_what_auto_chose(vitrail, rare, tmp_path):
    vitrail("train", rare, "--epochs", "1", *HOW, "--out", tmp_path / "run")
    again = vitrail("train", "--recipe", tmp_path / "run", "--out", tmp_path / "again")
    assert again.code == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "again")]
    assert weights[0] == weights[1]


def test_a_run_goes_on_though_auto_is_asked_for_again(vitrail, rare, tmp_path, interrupted):
    how = [*HOW, "--set", "training.imbalance=auto", "--epochs", "3", "--out", tmp_path / "run"]
    with interrupted(signal.SIGINT):
        assert vitrail("train", rare, *how).code == 130
    assert vitrail("train", rare, *how, "--resume").code == 0
    assert config(tmp_path / "run")["imbalance"] == "balanced_sampling"


@pytest.mark.parametrize("imbalance", ["none", "class_weights", "focal", "logit_adjusted"])
def test_what_is_asked_for_is_done(vitrail, caplog, rare, tmp_path, imbalance):
    how = [*HOW, "--set", f"training.imbalance={imbalance}", "--set", "data.augment.mixup_alpha=0.2"]
    done = vitrail("train", rare, "--epochs", "1", *how, "--out", tmp_path / "run", "--json")
    assert done.json["best_by"] == ("accuracy" if imbalance == "none" else "balanced_accuracy")
    assert config(tmp_path / "run")["imbalance"] == imbalance
    assert not any("training.imbalance" in message for message in caplog.messages)


def test_balanced_classes_are_left_alone(vitrail, caplog, write_tree, tmp_path):
    data = write_tree(tmp_path / "even", {"ant": 20, "bee": 15})
    done = vitrail("train", data, "--epochs", "1", *HOW, "--out", tmp_path / "run", "--json")
    assert done.json["best_by"] == "accuracy"
    assert config(tmp_path / "run")["imbalance"] == "none"
    assert not any("training.imbalance" in message for message in caplog.messages)


def test_an_unknown_kind_is_refused(vitrail, rare):
    done = vitrail("train", rare, "--set", "training.imbalance=oversample")
    assert done.code == 2
    assert "balanced_sampling" in done.error
