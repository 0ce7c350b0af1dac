import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from filelock import FileLock

import vitrail
from vitrail.checkpoint import load_model, read_card
from vitrail.config import config_to_json
from vitrail.data.augment import augment_batch
from vitrail.data.dataset import Dataset
from vitrail.data.geometry import to_unit
from vitrail.data.named import read_digits
from vitrail.engines.pytorch import TorchEngine
from vitrail.errors import ConfigError
from vitrail.evaluation.calibration import validated_temperature
from vitrail.preparation import Request, prepare_new
from vitrail.reporting.training_report import REPORT_IMAGES, REPORT_SECONDS
from vitrail.runs import RunDirectory
from vitrail.session import say_nothing, train_model, train_prepared
from vitrail.training.plans import Timing

pytestmark = pytest.mark.usefixtures("unrendered")

SMALL = {"model.embed_dim": 16, "model.depth": 1, "evaluation.report": False}


class Stop(Exception):
    """Ends a training from within, as a crash would."""


def crash_after(epoch):
    def report(progress):
        if progress.evaluation is not None and progress.epoch == epoch:
            raise Stop

    return report


@pytest.fixture
def stopped(tmp_path):
    """The directory of a run that crashed after the first of two epochs."""
    with pytest.raises(Stop, match=r"^$"):
        vitrail.train("digits", epochs=2, settings=SMALL, out=tmp_path / "run", report=crash_after(1))
    return tmp_path / "run"


def test_the_caller_keeps_its_random_numbers_and_threads(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads()
    vitrail.train("digits", epochs=1, settings=SMALL, out=tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == before


def test_the_first_batch_is_drawn_where_that_is_asked_for(tmp_path, monkeypatch):
    drawn, trained_on = [], []
    monkeypatch.setattr("vitrail.session.draw_batch_figure", lambda _, pixels, targets, classes: drawn.append(pixels))

    def kept(images, *others):
        changed = augment_batch(images, *others)
        trained_on.append(changed[0])
        return changed

    monkeypatch.setattr("vitrail.training.loop.augment_batch", kept)
    settings = SMALL | {"data.preview": True, "data.augment.policy": "randaugment", "data.augment.crop_scale": (0.5, 1)}
    vitrail.train("digits", epochs=1, settings=settings, out=tmp_path / "run")
    (pixels,) = drawn
    assert pixels.shape[1:] == (8, 8, 1)
    np.testing.assert_allclose(pixels[:, :, :, 0] / 255, to_unit(trained_on[0])[:, 0], atol=0.5 / 255 + 1e-6)


def test_a_run_that_is_being_trained_is_left_alone(stopped):
    with FileLock(stopped / ".lock"), pytest.raises(ConfigError, match="is being trained by another process; wait"):
        vitrail.train(resume=True, out=stopped)
    assert vitrail.train(resume=True, out=stopped).result["epochs"] == 2


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(stopped):
    program = "import os, sys; from filelock import FileLock; FileLock(sys.argv[1]).acquire(); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", program, str(stopped / ".lock")], check=False)
    assert killed.returncode == (-9 if os.name != "nt" else 1)
    assert vitrail.train(resume=True, out=stopped).result["stopped"] == "done"


@pytest.mark.parametrize("change", ["validation", "classes"])
def test_other_images_or_classes_are_refused_when_a_run_goes_on(stopped, change):
    journal = RunDirectory(stopped).journal
    lines = journal.events()
    start = next(line for line in lines if line["event"] == "start")
    assert len(start["data"]) == 2 + 10  # fingerprints of both splits, and the names of the classes
    start["data"][1 if change == "validation" else -1] = "other"
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="began with other images, labels or classes than digits has now"):
        vitrail.train(resume=True, out=stopped)


def test_a_run_goes_on_with_what_it_began_with(stopped):
    journal = RunDirectory(stopped).journal
    began = journal.last("start")
    lines = [{**line, "bfloat16": True} if line["event"] == "start" else line for line in journal.events()]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    vitrail.train(resume=True, out=stopped)
    resumed = journal.last("resume")
    assert resumed["bfloat16"] is True  # as journalled, though a new run on the CPU would have said False
    assert (resumed["device"], resumed["threads"]) == (began["device"], began["threads"])


def test_a_run_goes_on_on_its_own_device(stopped):
    journal = RunDirectory(stopped).journal
    lines = [{**line, "device": "cuda:7"} if line["event"] == "start" else line for line in journal.events()]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="device='cuda:7' is not there"):
        vitrail.train(resume=True, out=stopped)
    assert vitrail.train(resume=True, out=stopped, device="cpu").result["stopped"] == "done"


@pytest.fixture
def without_test():
    """The config and the images of a training on digits from which no test split is drawn."""
    images = read_digits().take(np.arange(400))
    classes = tuple("0123456789")
    dataset = Dataset("arrays", classes, ("all",), lambda split: images, draws_test=False)
    return prepare_new(dataset, Request(epochs=1, settings=SMALL))


def trained(train, directory, prepared):
    """What `train` gives of a run made in `directory`."""
    directory.create(config_to_json(prepared[0]), prepared[1].splits.to_json())
    return train(directory, *prepared, torch.device("cpu"), say_nothing, time.perf_counter())


def test_a_model_alone_is_the_one_of_a_whole_run(tmp_path, without_test):
    alone, whole = RunDirectory(tmp_path / "alone"), RunDirectory(tmp_path / "whole")
    facts = trained(train_model, alone, without_test)
    trained(train_prepared, whole, without_test)
    assert {"run", "epochs", "train_seconds", "stopped"} <= {*facts} <= {*whole.result()}
    assert (alone.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert alone.result() is None
    assert not alone.environment_path.exists()
    assert not [*alone.figures_path.iterdir(), *alone.predictions_path.iterdir()]


def test_without_a_test_split_the_rest_of_a_run_is_there(tmp_path, without_test):
    directory = RunDirectory(tmp_path / "run")
    trained(train_prepared, directory, without_test)
    assert "test" not in directory.result()
    assert directory.result()["validation"]["images"] == 40
    assert sorted(path.name for path in directory.figures_path.iterdir()) == ["curves.png", "samples.png"]


def test_the_temperature_is_that_of_the_validation_images(tmp_path, without_test):
    content, cpu = without_test[1], torch.device("cpu")
    for name, train in (("alone", train_model), ("whole", train_prepared)):
        directory = RunDirectory(tmp_path / name)
        trained(train, directory, without_test)
        model, card = load_model(directory.path)
        logits = TorchEngine(model, cpu).logits(content.validation.pixels)
        assert card.temperature == validated_temperature(logits, content.validation.labels)


def test_enough_validation_images_calibrate(digits_run):
    card = read_card(digits_run)
    metrics = RunDirectory(digits_run).result()["validation"]
    assert card.temperature == metrics["temperature"] != 1
    assert metrics["loss"] < metrics["loss_uncalibrated"]


def test_the_report_comes_after_the_result_and_time_is_left_for_it(tmp_path, monkeypatch):
    told, reserved = [], []

    def report(directory, classifier, result, train, images):
        assert directory.result() == result
        told.append(({*images}, len(train), classifier.card == read_card(directory.path)))

    def planned(*arguments):
        reserved.append(arguments)
        return Timing(*arguments)

    monkeypatch.setattr("vitrail.session.report_training", report)
    monkeypatch.setattr("vitrail.training.plans.Timing", planned)
    for wanted in (True, False):
        settings = SMALL | {"evaluation.report": wanted}
        vitrail.train("digits", epochs=1, settings=settings, out=tmp_path / str(wanted))
    assert told == [({"validation", "test"}, 1259, True)]
    (_, images, seconds), (_, fewer, less) = reserved
    assert (images - fewer, seconds - less) == (REPORT_IMAGES, REPORT_SECONDS)
