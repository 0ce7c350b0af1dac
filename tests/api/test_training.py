"""The verbs one after another; training, stopped, resumed, repeated."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitrail
from vitrail import session
from vitrail.classifier import Classifier
from vitrail.errors import CheckpointError, ConfigError, DataError, Interrupted, TrainingError
from vitrail.training.loop import Progress, Training

pytestmark = pytest.mark.usefixtures("quick")


def weights(run: vitrail.Run) -> bytes:
    return (run.path / "model.safetensors").read_bytes()


def stop_at(step: int):
    """A report that sends this process SIGINT in that step."""

    def report(progress: Progress) -> None:
        if progress.step == step and progress.evaluation is None:
            signal.raise_signal(signal.SIGINT)

    return report


def test_the_verbs_one_after_another(photos, tiny, digit_images):
    run = vitrail.train("photos", epochs=2, settings=tiny)
    assert run.path == Path("runs/photos-digits-1")
    assert run.result is not None
    assert run.config.training.epochs == 2
    assert run.evaluate()["test"] == run.result["test"] == vitrail.evaluate("last")["test"]
    assert run.evaluate(split="validation")["validation"] == run.result["validation"]

    Image.fromarray(digit_images[0]).save("zero.png")
    classifier = vitrail.load(run.path)
    assert isinstance(classifier, vitrail.Classifier)
    prediction = classifier.predict("zero.png")
    assert isinstance(prediction, vitrail.Prediction)
    assert prediction.label in classifier.classes == ("0", "1", "2")
    assert vitrail.predict("last", "zero.png") == run.predict(["zero.png"]) == [prediction]
    assert run.classifier().predict("zero.png") == prediction
    drawn = {"confusion", "coverage", "curves", "predictions", "reliability", "samples"}
    assert {*run.figures()} - {"mistakes"} == drawn
    assert repr(run) == "Run('runs/photos-digits-1')"
    assert vitrail.Run("last").path == run.path


def test_paths_may_be_path_objects(photos, tiny):
    run = vitrail.train(photos, epochs=1, settings=tiny, out=Path("a run"))
    assert vitrail.evaluate(Path("a run"), photos)["test"] == run.result["test"]
    assert isinstance(run.config, vitrail.RunConfig)


def test_the_test_split_is_predicted_once_and_last(photos, tiny, monkeypatch):
    happened: list[str] = []
    logits, run = Classifier.logits, Training.run

    def noted_logits(classifier: Classifier, images, report=None):
        happened.append(f"{len(images)} predicted")
        return logits(classifier, images, report)

    def noted_run(training: Training, report):
        happened.append("training")
        counters = run(training, report)
        happened.append("trained")
        return counters

    monkeypatch.setattr(Classifier, "logits", noted_logits)
    monkeypatch.setattr(Training, "run", noted_run)
    result = vitrail.train("photos", epochs=1, settings=tiny).result
    validated, tested = (f"{result[split]['images']} predicted" for split in ("validation", "test"))
    assert happened == ["training", "trained", validated, tested]


def test_a_test_file_that_cannot_be_read_costs_no_training(photos, tiny):
    for path in photos.glob("t10k*"):
        path.write_bytes(b"not to be looked at")
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is not an IDX file"):
        vitrail.train("photos", epochs=2, settings=tiny)
    assert not Path("runs").exists()


def test_validation_and_test_take_nothing_from_training(photos, tiny):
    """Drawn splits of one table of images: every image is in one of them."""
    run = vitrail.train("digits", epochs=1, settings=tiny | {"training.batch_size": 512})
    splits = json.loads((run.path / "splits.json").read_text())["splits"]
    indices = {name: set(part["indices"]) for name, part in splits.items()}
    assert {name: len(members) for name, members in indices.items()} == {"train": 1259, "validation": 179, "test": 359}
    assert len(set.union(*indices.values())) == 1797


def test_the_same_call_gives_the_same_weights(photos, tiny):
    first, second, other = (vitrail.train("photos", epochs=1, seed=seed, settings=tiny) for seed in (3, 3, 4))
    assert weights(first) == weights(second) != weights(other)
    splits = [(run.path / "splits.json").read_text() for run in (first, second, other)]
    assert splits[0] == splits[1] == splits[2]


def test_the_callers_random_numbers_do_not_matter(photos, tiny):
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        runs.append(vitrail.train("photos", epochs=1, settings=tiny))
    assert weights(runs[0]) == weights(runs[1])


def test_progress_is_reported(photos, tiny, monkeypatch):
    monkeypatch.setattr("vitrail.training.loop.REPORT_SECONDS", -1.0)
    seen: list[Progress] = []
    run = vitrail.train("photos", epochs=2, settings=tiny, report=seen.append)
    assert [progress.step for progress in seen if progress.evaluation is None] == [0, 1, 2, 3, 4, 5, 6]
    assert [(progress.step, progress.epoch) for progress in seen if progress.evaluation] == [(3, 1), (6, 2)]
    assert {(progress.num_steps, progress.num_epochs) for progress in seen} == {(6, 2)}
    evaluations = [progress.evaluation for progress in seen if progress.evaluation]
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert evaluations == [line for line in lines if "split" in line]
    assert all(progress.loss > 0 and progress.images_per_second > 0 for progress in seen[1:])
    assert seen[-1].seconds_left == 0


def test_a_thread_may_train(photos, tiny):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    during: list[object] = []
    runs: list[vitrail.Run] = []

    def work() -> None:
        note = lambda progress: during.append(signal.getsignal(signal.SIGINT))  # noqa: E731
        runs.append(vitrail.train("photos", epochs=1, settings=tiny, report=note))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert runs[0].result is not None
    assert {*during} == {before[signal.SIGINT]}
    assert {number: signal.getsignal(number) for number in before} == before


def test_signals_are_the_callers_again_afterwards(photos, tiny):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    vitrail.train("photos", epochs=1, settings=tiny)
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_stopped_training_goes_on_from_where_it_was(photos, tiny, monkeypatch):
    undisturbed = vitrail.train("photos", epochs=2, settings=tiny, out="undisturbed")
    monkeypatch.setattr("vitrail.training.loop.REPORT_SECONDS", -1.0)
    for step in (1, 4):
        with pytest.raises(Interrupted, match=f"after step {step} of 6, all saved; continue with: vitrail train --res"):
            vitrail.train("photos", epochs=2, settings=tiny, out="run", resume=step > 1, report=stop_at(step))
    unfinished = vitrail.Run("run")
    assert unfinished.result is None
    assert "<b>run</b> has not finished" in unfinished._repr_html_()
    resumed = vitrail.train(out="run", resume=True)
    assert weights(resumed) == weights(undisturbed)
    assert resumed.result["test"] == undisturbed.result["test"]


def test_a_run_stopped_while_it_is_tested_is_tested_again(photos, tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(session, "metrics_of", lambda *arguments: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted, match="Stopped by SIGINT; continue with: vitrail train --resume --out run"):
            vitrail.train("photos", epochs=1, settings=tiny, out="run")
    assert vitrail.Run("run").result is None
    before = weights(vitrail.Run("run"))
    run = vitrail.train(out="run", resume=True)
    assert run.result is not None
    assert weights(run) == before


def test_the_threads_of_the_start_are_those_of_the_end(photos, tiny, monkeypatch):
    monkeypatch.setattr("vitrail.training.loop.REPORT_SECONDS", -1.0)
    before, during = torch.get_num_threads(), []
    monkeypatch.setattr("vitrail.training.threads.training_threads", lambda config: 2)
    with pytest.raises(Interrupted):
        vitrail.train("photos", epochs=1, settings=tiny, out="run", report=stop_at(1))
    monkeypatch.setattr("vitrail.training.threads.training_threads", lambda config: 1)
    vitrail.train(out="run", resume=True, report=lambda progress: during.append(torch.get_num_threads()))
    assert {*during} == {2}
    assert torch.get_num_threads() == before


def test_our_own_failures_are_not_taken_for_the_users(photos, tiny):
    def fail(progress: Progress) -> None:
        raise RuntimeError("a fault in the report")

    with pytest.raises(RuntimeError, match="a fault in the report"):
        vitrail.train("photos", epochs=1, settings=tiny, report=fail)


def test_a_loss_that_is_not_finite(photos, tiny):
    wild = tiny | {"training.learning_rate": 1e30, "training.optimizer": "sgd", "training.clip_norm": None}
    with pytest.raises(TrainingError, match="not a finite number"):
        vitrail.train("photos", epochs=1, settings=wild, out="run")
    with pytest.raises(CheckpointError, match=r"holds no model\.json"):
        vitrail.load("run")


def test_mistakes_are_our_errors_and_make_no_run(photos):
    with pytest.raises(ConfigError, match=r"'mnst'\. Did you mean 'mnist'"):
        vitrail.train("mnst")
    with pytest.raises(ConfigError, match=r"epochs=0 is not possible"):
        vitrail.train("photos", epochs=0)
    with pytest.raises(ConfigError, match=r"'epochs'. Did you mean 'training\.epochs'"):
        vitrail.train("photos", settings={"epochs": 3})
    with pytest.raises(ConfigError, match="device='gpu' is not known"):
        vitrail.train("photos", device="gpu")
    assert not Path("runs").exists()


def test_the_machine_and_the_data_are_on_record(photos, tiny):
    run = vitrail.train("photos", epochs=1, settings=tiny)
    text = (run.path / "environment.json").read_text()
    environment = json.loads(text)
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0] or "+" in torch.__version__
    card = json.loads((run.path / "model.json").read_text())
    assert environment["data_fingerprint"] == card["provenance"]["data_fingerprint"]
    assert card["provenance"]["seed"] == 0
    for secret in (str(Path.cwd()), str(Path.home()), os.environ.get("USER", "")):
        assert len(secret) < 5 or secret not in text + (run.path / "config.json").read_text()


def events(run: vitrail.Run, name: str) -> list[dict[str, object]]:
    return [event for event in run.directory.journal.events() if event["event"] == name]


def last_weights(run: vitrail.Run) -> bytes:
    return max(run.path.glob("checkpoints/*.safetensors")).read_bytes()


# A time, and doing it again


@pytest.fixture(scope="module")
def trained_for_a_time(tmp_path_factory, write_idx, tiny) -> Path:
    """A folder with ./photos and a run on them that was given three seconds."""
    folder = tmp_path_factory.mktemp("timed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("vitrail.reporting.run_figures.NUM_SHOWN", 3)
        write_idx(Path("photos"))
        vitrail.train("photos", time="3s", settings=tiny)
    return folder


@pytest.fixture
def timed(trained_for_a_time, tmp_path, monkeypatch) -> vitrail.Run:
    """That run, in a current folder of its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_for_a_time, ".", dirs_exist_ok=True)
    return vitrail.Run("runs/photos-digits-1")


@pytest.mark.parametrize(
    "name", ["last", pytest.param("runs/photos-digits-1", marks=pytest.mark.slow), "photos-digits-1"]
)
def test_a_run_with_a_time_is_repeated_to_the_bit(timed, name):
    assert timed.result["stopped"] == "time"
    assert timed.config.training.time_seconds == 3
    assert events(timed, "plan")[0]["step"] == 0
    num_steps = timed.result["images_seen"] // 16
    assert num_steps == events(timed, "plan")[-1]["num_steps"]
    assert timed.result["epochs"] == round(num_steps / 3, 2)
    journal = timed.directory.journal
    lines = [{**line, "threads": 1} if line["event"] == "start" else line for line in journal.events()]
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = vitrail.train(recipe=name)
    assert events(again, "plan") == events(timed, "plan")
    (repeats,) = events(again, "repeats")
    assert {**repeats, "run": ""} == {"event": "repeats", "run": "", "bfloat16": False, "threads": 1}
    assert events(again, "start")[0]["threads"] == 1
    assert weights(again) == weights(timed)
    assert last_weights(again) == last_weights(timed)
    assert again.config == timed.config
    assert again.result["test"] == timed.result["test"]


def test_a_repetition_that_was_stopped_goes_on_as_one(timed, monkeypatch):
    monkeypatch.setattr("vitrail.training.loop.REPORT_SECONDS", -1.0)
    with pytest.raises(Interrupted):
        vitrail.train(recipe=str(timed.path), out="again", report=stop_at(4))
    resumed = vitrail.train(out="again", resume=True)
    assert events(resumed, "plan") == events(timed, "plan")
    assert last_weights(resumed) == last_weights(timed)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"seed": 5}, marks=pytest.mark.slow),
        {"settings": {"training.learning_rate": 0.01}},
        {"data": "others"},
    ],
)
def test_a_run_with_other_settings_or_data_makes_plans_of_its_own(timed, write_idx, options):
    write_idx(Path("others"), seed=1)
    other = vitrail.train(recipe="runs/photos-digits-1", **options)
    assert not events(other, "repeats")
    assert len(events(other, "plan")) >= 1
    assert other.config.recipe == "digits"
    assert other.config.training.time_seconds == 3
    fitted = {"mean": None, "std": None}  # to the data
    assert other.config.model.model_copy(update=fitted) == timed.config.model.model_copy(update=fitted)
    assert weights(other) != weights(timed)


def test_epochs_take_the_place_of_a_time(timed):
    run = vitrail.train(recipe=str(timed.path), epochs=2)
    assert run.config.training.time_seconds is None
    assert (run.result["stopped"], run.result["epochs"]) == ("done", 2)
    assert not events(run, "plan")


def test_data_that_moved_are_repeated_where_they_are_now(timed):
    Path("photos").rename("moved")
    again = vitrail.train("moved", recipe=str(timed.path))
    assert events(again, "repeats")
    assert last_weights(again) == last_weights(timed)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"time": "10m", "epochs": 3}, "^Epochs and a time both say how long to train; leave --epochs or --time out$"),
        ({"time": 60, "settings": {"training.epochs": 3}}, "^Epochs and a time both say how long"),
        ({"epochs": 3, "settings": {"training.time_seconds": "60"}}, "^Epochs and a time both say how long"),
        ({"settings": {"training.time_seconds": "60", "training.epochs": "3"}}, "^Epochs and a time both say how"),
        ({"time": 60, "settings": {"training.time_seconds": 60}}, "^training.time_seconds is given twice, by --time"),
        ({"time": "10"}, "^--time '10' has no unit; add s, m or h, such as 10m$"),
        ({"time": 0}, "^training.time_seconds=0 is not possible; use a number greater than 0$"),
        ({"recipe": "runs/photos-digits-7"}, "^No run at runs/photos-digits-7"),
        ({"recipe": "last"}, "^There is no finished run below runs/ here"),
        ({"recipe": "digts"}, "^No recipe named 'digts'. Did you mean 'digits'?"),
    ],
)
def test_what_cannot_be_meant_of_times_and_runs(photos, options, pattern):
    with pytest.raises(ConfigError, match=pattern):
        vitrail.train("photos", **options)
    assert not Path("runs").exists()
