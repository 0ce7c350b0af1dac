import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from vitrail.data.dataset import ImageSet
from vitrail.data.loader import to_tensors
from vitrail.data.sources import open_dataset
from vitrail.errors import CheckpointError, TrainingError
from vitrail.models import build_model
from vitrail.preparation import Request, prepare_new
from vitrail.training import loop
from vitrail.training.schedule import learning_rate_scale
from vitrail.training.state import checkpoint_paths

GOLDEN = Path(__file__).parents[1] / "golden" / "digits_losses.json"
SGD = {"training.optimizer": "sgd", "training.momentum": 0.0, "training.weight_decay": 0.0}


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def scripted(monkeypatch, results):
    """Let validation give these pairs of accuracy and loss, one an epoch."""
    waiting = iter(results)
    monkeypatch.setattr(
        loop, "validate", lambda *arguments: dict(zip(("accuracy", "loss"), next(waiting), strict=True))
    )


# One step


@pytest.mark.parametrize(("count", "accumulate"), [(32, 2), (32, 4), (32, 32), (30, 4)])
def test_accumulation_gives_the_gradient_of_the_whole_batch(small, tmp_path, count, accumulate):
    settings = SGD | {
        "training.batch_size": 32,
        "training.epochs": 2,
        "training.learning_rate": 0.5,
        "training.warmup_rate": 0,
        "training.label_smoothing": 0.1,
        "data.augment.flip_rate": 0.5,
    }
    images = small.images(count, 3)
    whole = small.train(settings, images, path=tmp_path / "whole")
    parts = small.train(settings | {"training.accumulate": accumulate}, images, path=tmp_path / "parts")
    for ours, theirs in zip(weights(parts.state.model), weights(whole.state.model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert not all(map(torch.equal, weights(whole.state.model), weights(small.start(tmp_path / "none").state.model)))


@pytest.mark.parametrize(
    "settings",
    [
        SGD | {"training.learning_rate": 0.3, "training.clip_norm": 0.1, "training.label_smoothing": 0.2},
        SGD | {"training.learning_rate": 0.3, "training.clip_norm": "none", "training.schedule": "linear"},
        {"training.optimizer": "adamw", "training.weight_decay": 0.0, "training.ema_decay": 0.7},
    ],
    ids=["clipped and smoothed", "plain", "adamw and running mean"],
)
def test_the_loop_is_this_loop(small, tmp_path, settings):
    training = small.start(tmp_path / "run", {"training.warmup_rate": 0.3, **settings})
    chosen, model = training.settings, copy.deepcopy(training.state.model)
    averaged = copy.deepcopy(model)
    training.run(small.silent)

    if chosen.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters())
    else:
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    for step in range(15):
        images, labels = training.loader.batch(step // 5, step % 5)
        loss = F.cross_entropy(model(images), labels, label_smoothing=chosen.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.sqrt(sum(parameter.grad.square().sum() for parameter in model.parameters()))
        if chosen.clip_norm is not None:
            for parameter in model.parameters():
                parameter.grad *= min(1.0, chosen.clip_norm / (norm.item() + 1e-6))
        scale = learning_rate_scale((step + 0.5) / 15, chosen.warmup_rate, chosen.schedule)
        for group in optimizer.param_groups:
            group["lr"] = chosen.learning_rate * scale
        optimizer.step()
        decay = min(chosen.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, parameter in zip(averaged.parameters(), model.parameters(), strict=True):
                mean.copy_(decay * mean + (1 - decay) * parameter)

    for ours, theirs in zip(weights(training.state.model), weights(model), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    if training.state.averaged is not None:
        for ours, theirs in zip(weights(training.state.averaged), weights(averaged), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert (averaged.head.weight - model.head.weight).abs().max() > 1e-4


def test_the_running_mean_is_what_is_evaluated_and_kept(small):
    training = small.train({"training.ema_decay": 0.9, "training.epochs": 1})
    kept = load_file(training.run_directory.path / "model.safetensors")
    averaged, model = training.state.averaged.state_dict(), training.state.model.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in averaged.items())
    assert not torch.equal(kept["head.weight"], model["head.weight"])


def test_the_running_mean_of_weights_has_the_statistics_of_batch_norm(small):
    training = small.train({"training.ema_decay": 0.9, "training.epochs": 1}, model=small.batch_norm)
    began = build_model(small.batch_norm).state_dict()
    averaged, model = training.state.averaged.state_dict(), training.state.model.state_dict()
    statistics = [name for name in model if "running_" in name or "num_batches" in name]
    assert len(statistics) > 20
    for name in statistics:
        assert torch.equal(averaged[name], model[name]), name
        assert not torch.equal(averaged[name], began[name]), name
    assert model["net.bn1.num_batches_tracked"] == training.state.counters.step
    kept = load_file(training.run_directory.path / "model.safetensors")
    assert all(torch.equal(kept[name], averaged[name]) for name in statistics)


def test_dropout_and_augmentation_depend_on_seed_epoch_and_step_alone(small, tmp_path):
    settings = {
        "model.proj_drop_rate": 0.3,
        "model.drop_path_rate": 0.3,
        "data.augment.mixup_alpha": 0.4,
        "data.augment.shift_pixels": 1,
    }
    undisturbed = small.train(settings, path=tmp_path / "undisturbed")
    training = small.start(tmp_path / "disturbed", settings)

    def disturb(progress):
        torch.rand(progress.step)
        np.random.rand(progress.step)

    training.run(disturb)
    assert small.outcome(training) == small.outcome(undisturbed)
    other = small.train(settings | {"seed": 1}, path=tmp_path / "other")
    assert small.outcome(other)["model"] != small.outcome(undisturbed)["model"]


def test_every_step_has_its_own_dropout(small):
    one = small.images(1, 0)
    equal = ImageSet(np.repeat(one.pixels, 8, axis=0), np.repeat(one.labels, 8), one.names * 8)
    settings = SGD | {
        "model.proj_drop_rate": 0.5,
        "training.batch_size": 4,
        "training.log_steps": 1,
        "training.learning_rate": 1e-30,  # nothing is learned, so only dropout tells steps apart
    }
    training = small.train(settings, equal)
    losses = [line["loss"] for line in small.metrics(training.run_directory.path) if "step" in line]
    assert len(losses) == len({*losses}) == 6


def test_images_are_augmented_for_training_and_not_for_validation(small, tmp_path):
    plain = small.train(SGD | {"training.learning_rate": 1e-30, "training.log_steps": 1}, path=tmp_path / "plain")
    augmented = small.train(
        SGD | {"training.learning_rate": 1e-30, "training.log_steps": 1, "data.augment.erase_rate": 1.0},
        path=tmp_path / "augmented",
    )
    ours, theirs = small.metrics(tmp_path / "plain"), small.metrics(tmp_path / "augmented")
    for line, other in zip(ours, theirs, strict=True):
        assert (line["loss"] == other["loss"]) == ("split" in line)
    assert plain.state.counters.best_loss == augmented.state.counters.best_loss


# Epochs


def test_an_incomplete_last_batch_is_left_out(small):
    training = small.train({"training.log_steps": 1}, small.images(30, 0))
    steps = [line for line in small.metrics(training.run_directory.path) if "step" in line]
    assert [line["step"] for line in steps] == list(range(1, 10))
    assert [line["images_seen"] for line in steps] == list(range(8, 80, 8))
    assert steps[-1]["epoch"] == 3


def test_a_set_smaller_than_a_batch_is_one_batch(small):
    training = small.train({"training.batch_size": 64, "training.log_steps": 1}, small.images(10, 0))
    steps = [line for line in small.metrics(training.run_directory.path) if "step" in line]
    assert [(line["step"], line["epoch"], line["images_seen"]) for line in steps] == [
        (1, 1, 10),
        (2, 2, 20),
        (3, 3, 30),
    ]


def test_thirty_two_images_with_random_labels_are_learned_by_heart(small):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1), dtype=np.uint8)
    images = ImageSet(pixels, np.random.default_rng(1).integers(0, 3, 32), ("noise",) * 32)
    training = small.train({"training.batch_size": 32, "training.epochs": 80, "training.learning_rate": 0.01}, images)
    last = [line for line in small.metrics(training.run_directory.path) if "step" in line][-1]
    assert last["accuracy"] == 1.0
    assert last["loss"] < 0.05


def test_bfloat16_computes_with_less_and_stores_float32(small, tmp_path):
    exact, rounded = (small.train(path=tmp_path / str(autocast), autocast=autocast) for autocast in (False, True))
    losses = [[line["loss"] for line in small.metrics(training.run_directory.path)] for training in (exact, rounded)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
    assert {parameter.dtype for parameter in rounded.state.model.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in load_file(tmp_path / "True" / "model.safetensors").values()} == {torch.float32}


def test_the_best_epoch_is_chosen_on_validation_and_ties_by_loss(small, tmp_path, monkeypatch):
    scripted(monkeypatch, [(0.5, 3.0), (0.7, 2.0), (0.7, 1.0), (0.7, 1.0), (0.6, 0.1)])
    training = small.start(tmp_path / "run", {"training.epochs": 5})
    at_epoch = {}

    def remember(progress):
        if progress.evaluation is not None:
            at_epoch[progress.evaluation["epoch"]] = copy.deepcopy(training.state.model.state_dict())

    counters = training.run(remember)
    assert (counters.best_epoch, counters.best_accuracy, counters.best_loss) == (3, 0.7, 1.0)
    kept = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in at_epoch[3].items())
    assert not torch.equal(kept["head.weight"], at_epoch[2]["head.weight"])


def test_the_first_epoch_is_kept_however_bad(small, monkeypatch):
    scripted(monkeypatch, [(0.0, 9.0), (0.0, 10.0), (0.0, 9.0)])
    training = small.train()
    assert training.state.counters.best_epoch == 1


def test_training_stops_after_epochs_without_a_better_one(small, monkeypatch):
    scripted(monkeypatch, [(0.5, 1.0), (0.6, 1.0), (0.6, 1.1), (0.5, 1.0), (0.9, 0.1)])
    training = small.train({"training.epochs": 10, "training.early_stop_epochs": 2})
    counters = training.state.counters
    assert (counters.epoch, counters.best_epoch, counters.stopped_early) == (4, 2, True)
    event = {"event": "early_stop", "step": 20, "epoch": 4}
    assert training.run_directory.journal.events() == [event]
    assert small.metrics(training.run_directory.path)[-1]["epoch"] == 4


def test_stopping_early_is_journalled_before_it_takes_effect(small, tmp_path, monkeypatch):
    scripted(monkeypatch, [(0.5, 1.0), (0.4, 1.0)])
    training = small.start(tmp_path / "run", {"training.epochs": 10, "training.early_stop_epochs": 1})

    def refuse(event, **facts):
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(training.run_directory.journal, "write", refuse)
    with pytest.raises(CheckpointError, match="the disk is full"):
        training.run(small.silent)
    assert not training.state.counters.stopped_early
    saved = [json.loads(path.read_text())["counters"] for path in checkpoint_paths(tmp_path / "run" / "checkpoints")]
    assert [(counters["epoch"], counters["stopped_early"]) for counters in saved] == [(1, False)]


def test_no_early_stop_after_the_last_epoch(small, monkeypatch):
    scripted(monkeypatch, [(0.5, 1.0), (0.4, 1.0), (0.4, 1.0)])
    training = small.train({"training.early_stop_epochs": 2})
    assert not training.state.counters.stopped_early
    assert training.run_directory.journal.events() == []


# What is logged


def test_metrics_have_these_keys(small, tmp_path):
    logged, evaluated = {"step", "epoch", "images_seen", "loss", "learning_rate", "seconds"}, {"split", "epoch"}
    mixing = ({"data.augment.mixup_alpha": 0.2}, {"data.augment.cutmix_rate": 0.5})
    for settings, more in (({}, {"accuracy"}), *((mixed, set()) for mixed in mixing)):
        training = small.train(settings, path=tmp_path / "".join(["run", *settings]))
        lines = [json.loads(line) for line in training.run_directory.metrics_path.read_text().splitlines()]
        assert [set(line) for line in lines if "step" in line] == [
            logged | more
        ] * 8  # every 2 of 15 steps, and the last
        assert [set(line) for line in lines if "split" in line] == [evaluated | {"accuracy", "loss"}] * 3
        assert [line["epoch"] for line in lines] == sorted(line["epoch"] for line in lines)
        assert [line["seconds"] for line in lines if "step" in line] == sorted(
            line["seconds"] for line in lines if "step" in line
        )


@pytest.mark.parametrize("log_steps", [1, 4])
def test_the_learning_rate_of_a_line_is_the_one_that_its_step_took(small, log_steps):
    settings = {"training.warmup_rate": 0.4, "training.final_rate": 0.1, "training.log_steps": log_steps}
    training = small.train(settings)
    lines = [line for line in small.metrics(training.run_directory.path) if "step" in line]
    expected = [3e-3 * learning_rate_scale((line["step"] - 0.5) / 15, 0.4, "cosine", 0.1) for line in lines]
    assert len(lines) == math.ceil(15 / log_steps)
    assert [line["learning_rate"] for line in lines] == pytest.approx(expected, rel=1e-12)


def test_losses_are_means_over_the_steps_of_a_line(small, tmp_path):
    each, pairs = (
        [
            line
            for line in small.metrics(small.train({"training.log_steps": n}, path=tmp_path / str(n)).run_directory.path)
            if "step" in line
        ]
        for n in (1, 5)
    )
    for key in ("loss", "accuracy"):
        means = np.array([line[key] for line in each]).reshape(3, 5).mean(axis=1)
        np.testing.assert_allclose([line[key] for line in pairs], means, rtol=1e-6)


def test_validation_numbers_are_those_of_the_model(small):
    training = small.train({"training.epochs": 1})
    pixels, labels = to_tensors(training.validation, torch.device("cpu"))
    with torch.no_grad():
        logits = training.state.model.eval()(pixels)
    line = small.metrics(training.run_directory.path)[-1]
    assert line["accuracy"] == (logits.argmax(dim=1) == labels).double().mean().item()
    assert line["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_progress_tells_where_a_training_is(small, tmp_path):
    training, seen = small.start(tmp_path / "run"), []
    training.run(seen.append)
    assert [progress.step for progress in seen if progress.evaluation is None] == list(range(16))
    assert [progress.epoch for progress in seen if progress.evaluation is not None] == [1, 2, 3]
    assert {(progress.num_steps, progress.num_epochs) for progress in seen} == {(15, 3)}
    assert all(math.isfinite(progress.loss) and progress.images_per_second > 0 for progress in seen[1:])
    assert all(0 < progress.seconds_left < math.inf for progress in seen if progress.step < 15)
    assert seen[-1].seconds_left == 0
    assert seen[-1].evaluation == small.metrics(tmp_path / "run")[-1]


def test_the_first_losses_of_the_digits_recipe(small, tmp_path):
    config, data = prepare_new(open_dataset("digits"), Request(settings={"training.log_steps": 1}))
    small_training = small.start(tmp_path / "run")
    training = loop.Training(
        config,
        data.train,
        data.validation,
        small_training.run_directory,
        small_training.card,
        torch.device("cpu"),
        False,
    )
    with pytest.raises(StopIteration):
        training.run(after(20))
    losses = [line["loss"] for line in small.metrics(tmp_path / "run") if "step" in line]
    np.testing.assert_allclose(losses[:20], json.loads(GOLDEN.read_text())["losses"], rtol=0, atol=1e-4)


def after(step):
    """A report that ends training there."""

    def report(progress):
        if progress.step > step:
            raise StopIteration

    return report


# What is not a number


def numbers_on_disk(path: Path) -> bool:
    """Whether all that a run has written is finite numbers."""
    tensors = [load_file(found) for found in path.rglob("*.safetensors")]
    finite = all(bool(tensor.isfinite().all()) for file in tensors for tensor in file.values())
    texts = [found.read_text() for found in [*path.rglob("*.json"), *path.rglob("*.jsonl")]]
    return finite and not any(word in text for text in texts for word in ("NaN", "Infinity"))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("rate", [1e30, 1e38, 1e10])
@pytest.mark.parametrize("steps", ["each logged", "one an epoch"])
def test_what_is_not_a_number_stops_training_and_is_never_written(small, tmp_path, optimizer, rate, steps):
    settings = {
        "training.optimizer": optimizer,
        "training.learning_rate": rate,
        "training.clip_norm": "none",
        "training.log_steps": 1 if steps == "each logged" else 50,
        "training.batch_size": 8 if steps == "each logged" else 40,
    }
    training = small.start(tmp_path / "run", settings)
    with pytest.raises(TrainingError, match=r"^The loss .*not a finite number at step \d+ .*training\.learning_rate"):
        training.run(small.silent)
    assert numbers_on_disk(tmp_path / "run")
    if (tmp_path / "run" / "metrics.jsonl").read_text():
        assert "split" not in small.metrics(tmp_path / "run")[-1] or training.state.counters.epoch > 0


def test_what_was_saved_before_is_kept(small, tmp_path, monkeypatch):
    training = small.start(tmp_path / "run")
    average = training._average_weights

    def spoil():
        average()
        if training.state.counters.step == 7:
            with torch.no_grad():
                training.state.model.head.bias[0] = math.nan

    monkeypatch.setattr(training, "_average_weights", spoil)
    with pytest.raises(TrainingError, match=r"not a finite number at step 8 \(learning rate 0\.00\d+\)"):
        training.run(small.silent)
    assert numbers_on_disk(tmp_path / "run")
    assert training.state.counters.best_epoch == 1
    assert [path.stem for path in checkpoint_paths(tmp_path / "run" / "checkpoints")] == ["step-000000005"]


def test_a_signal_does_not_save_what_is_not_a_number(small, tmp_path, monkeypatch):
    training = small.start(tmp_path / "run", {"training.log_steps": 50})

    def spoil():
        training.loss_sum.fill_(math.nan)

    monkeypatch.setattr(training, "_average_weights", spoil)
    with pytest.raises(TrainingError, match=r"at step 3"):
        training.run(small.stop_after(3))
    assert not checkpoint_paths(tmp_path / "run" / "checkpoints")


# Settings of the process


def test_deterministic_algorithms_are_asked_for_and_put_back(small, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    training, seen = small.start(tmp_path / "run", {"training.deterministic": True}), []
    training.run(lambda progress: seen.append(torch.are_deterministic_algorithms_enabled()))
    assert {*seen} == {True}
    assert not torch.are_deterministic_algorithms_enabled()
