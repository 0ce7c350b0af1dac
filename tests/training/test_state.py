import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

from vitrail.errors import CheckpointError, Interrupted
from vitrail.runs import RunDirectory
from vitrail.training import loop
from vitrail.training.state import (
    Counters,
    TrainingState,
    checkpoint_paths,
    load_newest_checkpoint,
    save_checkpoint,
)

# Everything that training draws by chance or keeps from step to step.
SETTINGS = {
    "adamw": {
        "training.ema_decay": 0.9,
        "model.proj_drop_rate": 0.2,
        "model.attn_drop_rate": 0.2,
        "model.drop_path_rate": 0.2,
        "data.augment.mixup_alpha": 0.3,
        "data.augment.rotate_degrees": 10,
    },
    "muon": {"training.optimizer": "muon", "training.accumulate": 2, "data.augment.erase_rate": 0.5},
    "sgd": {"training.optimizer": "sgd", "training.momentum": 0.9, "training.early_stop_epochs": 1},
}


class Crash(Exception):
    """Stands for a process that ends without another word."""


def crash_after(step):
    def report(progress):
        if progress.step == step and progress.evaluation is None:
            raise Crash

    return report


@pytest.fixture
def undisturbed(small, tmp_path):
    """What a run with these settings gives when nothing stops it."""

    def run(settings, **options):
        return small.outcome(small.train(settings, path=tmp_path / "undisturbed", **options))

    return run


# A run that was stopped gives to the bit what a run gives that was not


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    "stops", [(1,), (5,), (7,), (15,), (2, 5, 6, 10, 14)], ids=lambda stops: "-".join(map(str, stops))
)
def test_a_run_stopped_by_signals_goes_on_exactly(small, tmp_path, undisturbed, settings, stops):
    expected = undisturbed(settings)
    for index, step in enumerate(stops):
        training = small.start(tmp_path / "run", settings)
        number = (signal.SIGINT, signal.SIGTERM)[index % 2]
        with pytest.raises(
            Interrupted, match=rf"^Stopped by {signal.Signals(number).name} after step {step} of 15, "
        ) as stopped:
            training.run(small.stop_after(step, number))
        assert stopped.value.exit_code == 128 + number
        assert training.state.counters.step == step
        assert training.run_directory.journal.last("interrupted")["step"] == step
    training = small.train(settings)
    assert small.outcome(training) == expected


def test_bfloat16_goes_on_exactly(small, tmp_path, undisturbed):
    expected = undisturbed(SETTINGS["muon"], autocast=True)
    with pytest.raises(Interrupted):
        small.start(tmp_path / "run", SETTINGS["muon"], autocast=True).run(small.stop_after(8))
    assert small.outcome(small.train(SETTINGS["muon"], autocast=True)) == expected


def test_statistics_of_batch_norm_go_on_exactly(small, tmp_path, undisturbed):
    settings = {"training.ema_decay": 0.9, "training.optimizer": "muon", "training.epochs": 2}
    expected = undisturbed(settings, model=small.batch_norm)
    assert sum("running_var" in name for name in expected["state"]) > 20
    for step in (3, 5):
        with pytest.raises(Interrupted):
            small.start(tmp_path / "run", settings, model=small.batch_norm).run(small.stop_after(step))
    assert small.outcome(small.train(settings, model=small.batch_norm)) == expected


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("step", [4, 11, 15])
def test_a_run_that_crashed_goes_on_exactly(small, tmp_path, undisturbed, settings, step):
    settings = settings | {"training.checkpoint_seconds": 1e-9}  # after every step
    expected = undisturbed(settings)
    with pytest.raises(Crash):
        small.start(tmp_path / "run", settings).run(crash_after(step))
    saved = [int(path.stem.partition("-")[2]) for path in checkpoint_paths(tmp_path / "run" / "checkpoints")]
    assert saved == [step - 2, step - 1]
    assert small.outcome(small.train(settings)) == expected


def test_a_run_that_crashed_before_its_first_checkpoint_begins_again(small, tmp_path, undisturbed):
    with pytest.raises(Crash):
        small.start(tmp_path / "run").run(crash_after(4))
    assert small.outcome(small.train()) == undisturbed({})


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_signal_during_evaluation_stops_the_run_after_it(small, tmp_path, undisturbed, monkeypatch, epoch):
    expected = undisturbed({})
    training = small.start(tmp_path / "run")
    evaluate = loop.validate

    def evaluate_and_signal(*arguments):
        if training.state.counters.step == 5 * epoch:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments)

    monkeypatch.setattr(loop, "validate", evaluate_and_signal)
    with pytest.raises(Interrupted, match=rf"after step {5 * epoch} of 15") as stopped:
        training.run(small.silent)
    assert stopped.value.exit_code == 143
    assert training.state.counters.epoch == epoch
    monkeypatch.setattr(loop, "validate", evaluate)
    assert small.outcome(small.train()) == expected


def test_a_finished_training_is_only_read(small, tmp_path):
    first = small.outcome(small.train())
    model = tmp_path / "run" / "model.safetensors"
    written = model.stat().st_mtime_ns
    training = small.start(tmp_path / "run")
    seen = []
    training.run(seen.append)
    assert seen == []
    assert small.outcome(training) == first
    assert model.stat().st_mtime_ns == written


def test_early_stop_is_not_forgotten(small, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "validate", lambda *arguments: {"accuracy": 0.5, "loss": 1.0})
    settings = {"training.early_stop_epochs": 1, "training.epochs": 9}
    assert small.train(settings).state.counters.epoch == 2
    again = small.train(settings)
    assert (again.state.counters.epoch, again.state.counters.stopped_early) == (2, True)
    assert len(again.run_directory.journal.events()) == 1


def test_events_are_those_of_a_run_that_was_not_stopped(small, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small.train(path=tmp_path / "undisturbed")
    with pytest.raises(Crash):  # its events go beyond the last checkpoint
        small.start(tmp_path / "run").run(crash_after(9))
    small.train()
    found = [EventAccumulator(str(tmp_path / name)).Reload() for name in ("undisturbed", "run")]
    for tag in ("loss", "accuracy", "learning_rate", "validation_loss", "validation_accuracy"):
        expected, ours = ([(event.step, event.value) for event in scalars.Scalars(tag)] for scalars in found)
        assert ours == expected


# Checkpoints that are torn or corrupt


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def count_on(path):
    facts = json.loads(path.read_text())
    facts["counters"]["step"] += 1
    path.write_text(json.dumps(facts))


def forget_a_counter(path):
    facts = json.loads(path.read_text())
    del facts["counters"]["best_loss"]
    path.write_text(json.dumps(facts))


DAMAGE = [
    (".safetensors", cut),
    (".safetensors", empty),
    (".safetensors", flip),
    (".safetensors", lambda path: path.unlink()),
    (".json", cut),
    (".json", empty),
    (".json", lambda path: path.write_text("[1, 2]")),
    (".json", lambda path: path.write_bytes(b"\xff\xfe")),
    (".json", count_on),
    (".json", forget_a_counter),
]
DAMAGE_IDS = ["tensors cut", "tensors empty", "tensors flipped", "tensors gone", "json cut", "json empty", "json other",
              "json binary", "json changed", "json of another version"]  # fmt: skip


@pytest.mark.parametrize(("suffix", "damage"), DAMAGE, ids=DAMAGE_IDS)
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_used(small, tmp_path, undisturbed, suffix, damage):
    settings = SETTINGS["adamw"] | {"training.checkpoint_seconds": 1e-9}
    expected = undisturbed(settings)
    with pytest.raises(Crash):
        small.start(tmp_path / "run", settings).run(crash_after(9))
    folder = tmp_path / "run" / "checkpoints"
    damage(folder / f"step-000000008{suffix}")
    training, messages, steps = small.start(tmp_path / "run", settings), [], []

    def report(progress):
        steps.append(progress.step)
        if progress.message:
            messages.append(progress.message)

    training.run(report)
    (message,) = messages
    assert f"{folder / 'step-000000008'}." in message
    assert message.endswith("; using the one before")
    assert steps[:3] == [7, 7, 8]  # it went on after step 7
    assert small.outcome(training) == expected
    assert [path.stem[-2:] for path in checkpoint_paths(folder)] == ["14", "15"]


@pytest.mark.parametrize(("suffix", "damage"), DAMAGE, ids=DAMAGE_IDS)
def test_without_a_whole_checkpoint_nothing_goes_on(small, tmp_path, suffix, damage):
    settings = {"training.checkpoint_seconds": 1e-9}
    with pytest.raises(Crash):
        small.start(tmp_path / "run", settings).run(crash_after(4))
    folder = tmp_path / "run" / "checkpoints"
    for step in (2, 3):
        damage(folder / f"step-{step:09d}{suffix}")
    metrics = small.metrics(tmp_path / "run")
    with pytest.raises(
        CheckpointError, match=rf"^No checkpoint in {re.escape(str(folder))} is whole: .*-000000003\..*; .*-000000002\."
    ):
        small.train(settings)
    assert small.metrics(tmp_path / "run") == metrics


def test_no_changed_byte_of_the_json_goes_unnoticed(small, tmp_path):
    training = small.train({"training.epochs": 1})
    folder, counters = tmp_path / "run" / "checkpoints", asdict(training.state.counters)
    (path,) = checkpoint_paths(folder)
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 7)]) + content[place + 1 :])
        try:
            load_newest_checkpoint(folder, training.state)
        except CheckpointError:
            refused += 1
        assert asdict(training.state.counters) == counters  # white space may change, numbers may not
    assert refused > 0.5 * len(content)


def test_a_refused_checkpoint_does_not_take_the_place_of_a_good_one(tmp_path):
    state = TrainingState(torch.nn.Linear(2, 2), None, [], Counters())
    for step in (10, 20):
        state.counters.step = step
        save_checkpoint(tmp_path, state)
    cut(tmp_path / "step-000000020.json")
    (refused,) = load_newest_checkpoint(tmp_path, state)
    assert "step-000000020.json is torn" in refused
    assert state.counters.step == 10
    state.counters.step = 15
    save_checkpoint(tmp_path, state)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"step-0000000{step}.{suffix}" for step in (10, 15) for suffix in ("json", "safetensors")
    ]


def test_what_a_killed_write_left_is_removed(small, tmp_path):
    with pytest.raises(Interrupted):
        small.start(tmp_path / "run").run(small.stop_after(3))
    leftover = tmp_path / "run" / "checkpoints" / ".step-000000004.safetensors.123.tmp"
    leftover.write_bytes(b"half a checkp")
    small.train()
    assert not leftover.exists()


# What a checkpoint holds


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_checkpoint_holds_weights_running_mean_optimizers_and_counters(small, tmp_path, settings):
    with pytest.raises(Interrupted):
        (training := small.start(tmp_path / "run", settings)).run(small.stop_after(3))
    folder = tmp_path / "run" / "checkpoints"
    tensors = load_file(folder / "step-000000003.safetensors")
    prefixes = {name.partition(".")[0] for name in tensors}
    assert prefixes == {"model", "optimizers"} | ({"averaged"} if "training.ema_decay" in settings else set())
    fresh = small.start(tmp_path / "run", settings).state
    assert load_newest_checkpoint(folder, fresh) == []
    assert fresh.counters == training.state.counters
    ours, theirs = dict(fresh.named_tensors()), dict(training.state.named_tensors())
    assert set(ours) == set(theirs) == set(tensors)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    for optimizer, other in zip(fresh.optimizers, training.state.optimizers, strict=True):
        assert [*map(len, optimizer.state.values())] == [*map(len, other.state.values())]


def test_a_checkpoint_of_another_model_is_refused(small, tmp_path):
    with pytest.raises(Interrupted):
        small.start(tmp_path / "run").run(small.stop_after(3))
    other = small.start(tmp_path / "other", {"model.depth": 1}).state
    with pytest.raises(CheckpointError, match=r"^The checkpoint is of another model: .*blocks\.1\.[^\n]*$"):
        load_newest_checkpoint(tmp_path / "run" / "checkpoints", other)


def test_without_a_checkpoint_the_state_stays(small, tmp_path):
    state = small.start(tmp_path / "run").state
    before = {name: tensor.clone() for name, tensor in state.named_tensors()}
    assert load_newest_checkpoint(tmp_path / "run" / "checkpoints", state) == []
    assert state.counters == Counters()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.named_tensors())


def test_weights_that_are_no_numbers_are_noticed():
    state = TrainingState(torch.nn.Linear(2, 2), None, [], Counters())
    assert state.is_finite()
    for value in (float("nan"), float("inf")):
        torch.nn.init.constant_(state.model.bias, value)
        assert not state.is_finite()


def test_statistics_that_are_no_numbers_are_noticed():
    state = TrainingState(torch.nn.BatchNorm2d(2), None, [], Counters())
    assert state.is_finite()
    state.model.running_var[1] = float("inf")
    assert not state.is_finite()


def test_the_last_two_are_kept(tmp_path):
    state = TrainingState(torch.nn.Linear(2, 2), None, [], Counters())
    (tmp_path / "notes.json").write_text("{}")
    for step in (3, 20, 100, 1000):
        state.counters.step = step
        save_checkpoint(tmp_path, state)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.json",
        *(f"step-{step:09d}.{suffix}" for step in (100, 1000) for suffix in ("json", "safetensors")),
    ]


# A full disk


@pytest.mark.parametrize("step", [7, 10])
def test_a_full_disk_leaves_the_checkpoints_there_are(small, tmp_path, undisturbed, step, files_of_at_most):
    expected = undisturbed(SETTINGS["adamw"])
    with pytest.raises(Interrupted):
        small.start(tmp_path / "run", SETTINGS["adamw"]).run(small.stop_after(step))
    folder = tmp_path / "run" / "checkpoints"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    smallest = min(len(content) for name, content in before.items() if name.endswith("safetensors"))
    training = small.start(tmp_path / "run", SETTINGS["adamw"])
    stopping = small.stop_after(12)
    with (
        files_of_at_most(smallest // 2),
        pytest.raises(CheckpointError, match=r"step-\d+\.safetensors could not be written: File too large$"),
    ):
        training.run(stopping)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not [*(tmp_path / "run").rglob("*.tmp")]
    assert small.outcome(small.train(SETTINGS["adamw"])) == expected


# A process that is killed

COMMAND = ["train", "digits", "--seed", "3", "--epochs", "24", "--set", "model.embed_dim=16", "--set", "model.depth=1",
           "--set", "training.checkpoint_seconds=0.05", "--set", "training.log_steps=5"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_a_run_killed_at_any_moment_goes_on_exactly(small, tmp_path):
    def command(*arguments):
        code = "from vitrail.cli import main; main()"
        return [sys.executable, "-c", code, *arguments]

    def start(*arguments):
        return subprocess.Popen(command(*arguments), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    undisturbed = start(*COMMAND, "--out", "undisturbed")
    _, errors = undisturbed.communicate()
    assert undisturbed.returncode == 0, errors.decode()
    moments, num_killed = random.Random(0), 0
    folder = tmp_path / "killed"
    for _ in range(4):
        resume = ["--resume"] if RunDirectory(folder).exists() else []
        process = start(*COMMAND, "--out", "killed", *resume)
        reached = newest_step(folder)
        while process.poll() is None and newest_step(folder) == reached:  # until it has got further
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, 0.5))
        process.kill()
        _, errors = process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), errors.decode()
        if process.returncode == 0:  # a fast machine was done before
            break
        num_killed += 1
    assert num_killed >= 2
    if RunDirectory(folder).result() is None:
        resume_to_the_end(start("train", "--resume", "--out", "killed", "--json"))
    for name in ("model.safetensors", "config.json", "splits.json"):
        assert (folder / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert small.metrics(folder) == small.metrics(tmp_path / "undisturbed")
    results = [RunDirectory(tmp_path / name).result() for name in ("undisturbed", "killed")]
    for key in ("best_epoch", "epochs", "images_seen", "validation", "test"):
        assert results[0][key] == results[1][key]


def resume_to_the_end(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert json.loads(output)["stopped"] == "done"


def newest_step(folder):
    return max((path.stem for path in checkpoint_paths(folder / "checkpoints")), default="")
