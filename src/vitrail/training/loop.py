"""The training loop, in the order things happen.

For each epoch: for each batch plan, draw, augment, forward, backward, clip, step, log, checkpoint; then evaluate, keep
the best, checkpoint. Everything random is a function of (seed, epoch, step), so a resumed run goes on as if never
stopped.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.checkpoint import ModelCard, save_model
from vitrail.config import RunConfig
from vitrail.data.augment import augment_batch, seed_of
from vitrail.data.dataset import ImageSet
from vitrail.errors import Interrupted, TrainingError
from vitrail.models import build_model
from vitrail.runs import RunDirectory
from vitrail.training.batches import open_batches
from vitrail.training.compilation import compile_model, compile_where_it_pays
from vitrail.training.losses import num_right, training_loss
from vitrail.training.metrics_log import MetricsLog
from vitrail.training.optim import create_optimizers
from vitrail.training.plans import Planner, Timing, Workload
from vitrail.training.schedule import learning_rate_scale
from vitrail.training.signals import StopSignals
from vitrail.training.state import Counters, TrainingState, load_newest_checkpoint, save_checkpoint
from vitrail.training.trackers import Tracker
from vitrail.training.validation import best_by, validate

REPORT_SECONDS = 0.25
MEASURED_STEPS = 20  # steps after which a run's speed is known well enough to decide on compiling
TRIED_STEPS, TRIED_SECONDS = 3, 1.0  # tried before the first step, to know the speed: so many, or for so long


@dataclass(frozen=True)
class Progress:
    """Where a training is, for whoever shows it. `evaluation` is set when an epoch has just been evaluated."""

    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    loss: float
    accuracy: float | None
    images_per_second: float
    seconds_left: float
    evaluation: dict[str, Any] | None = None
    message: str | None = None


Report = Callable[[Progress], None]


class Training:
    """One training, fresh or resumed: `run` takes it to its end, or to a signal."""

    def __init__(
        self,
        config: RunConfig,
        images: ImageSet,
        validation: ImageSet,
        run: RunDirectory,
        card: ModelCard,
        device: torch.device,
        autocast: bool,
        timing: Timing | None = None,
    ) -> None:
        self.config, self.settings = config, config.training
        self.run_directory, self.card, self.device, self.autocast = run, card, device, autocast
        torch.manual_seed(seed_of(config.seed))  # the initial weights
        model = build_model(config.model).to(device)
        averaged = copy.deepcopy(model) if self.settings.ema_decay else None
        self.state = TrainingState(model, averaged, create_optimizers(model, self.settings), Counters())
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.state.optimizers]
        self.compute: nn.Module = model  # what the forward pass calls: the model, or its compiled form
        self.loader = open_batches(config, images, device)
        self.loss = training_loss(self.settings, images.labels, config.model.num_classes, device)
        self.validation, self.best_by = validation, best_by(self.settings, images.labels)
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        work = Workload(self.loader.batch_size, self.loader.num_batches, len(validation), threads)
        self.planner = Planner(run.journal, self.settings, work, timing or Timing(time.perf_counter()))
        self.clock = self.planner.clock
        self.loss_sum = torch.zeros((), device=device)
        self.correct_sum = torch.zeros((), device=device)
        self.tracker: Tracker | None = None  # set by a caller who has one
        self.last_means = (math.nan, math.nan)  # loss and accuracy of the last line in metrics.jsonl

    def run(self, report: Report) -> Counters:
        """Train to the end and give the counters; the best epoch's model lies in the run's directory.

        Raises Interrupted after SIGINT or SIGTERM with the state saved, TrainingError for a loss that is not finite,
        CheckpointError if the disk refuses or no checkpoint is whole.
        """
        refused = load_newest_checkpoint(self.run_directory.checkpoints_path, self.state)
        counters = self.state.counters
        self.loss_sum.fill_(counters.loss_sum)
        self.correct_sum.fill_(counters.correct_sum)
        self.first_step, self.first_seconds = counters.step, counters.train_seconds
        self.planner.replay(counters.step, counters.wall_seconds)
        self.reported = self.mark = self.checkpointed = self.clock()
        self.log = MetricsLog(self.run_directory.metrics_path, counters.step, counters.epoch, self.tracker)
        with (
            contextlib.closing(self.log),
            StopSignals() as self.signals,
            _deterministic(self.settings.deterministic),
        ):
            for sentence in refused:
                report(self._progress(message=f"{sentence}; using the one before"))
            self._replay_compilation()
            if self._goes_on():
                self.planner.begin(counters.step, self._try_steps())
                report(self._progress())  # before the work starts, so that its end can be foretold
            while self._goes_on():
                self._train_epoch(report)
                self._finish_epoch(report)
                if self.signals.received is not None:  # during the evaluation
                    self._stop(self.signals.received)
        return counters

    def _goes_on(self) -> bool:
        return self.state.counters.epoch < self.planner.num_epochs and not self.state.counters.stopped_early

    def _try_steps(self) -> float:
        """Seconds that a step takes, by real ones on a copy of the state, which is then thrown away."""
        kept, compute = self.state, self.compute
        sums = self.loss_sum.clone(), self.correct_sum.clone()
        self.state = copy.deepcopy(self.state)
        self.compute, seconds = self.state.model.train(), list[float]()
        while len(seconds) < TRIED_STEPS and sum(seconds) < TRIED_SECONDS:
            started = self.clock()
            self._step(self.state.counters.epoch, 0)
            self._wait_for_device()
            seconds.append(self.clock() - started)
        self.state, self.compute = kept, compute
        self.loss_sum.copy_(sums[0])
        self.correct_sum.copy_(sums[1])
        return min(seconds)

    def _train_epoch(self, report: Report) -> None:
        """The steps of the epoch under way that are not done yet."""
        counters, planner = self.state.counters, self.planner
        first = counters.epoch * self.loader.num_batches
        self.compute.train()
        self.mark = self.clock()
        while counters.step < min(first + self.loader.num_batches, planner.plan.num_steps):
            planner.consider(counters.step)
            self._consider_compilation(report)
            self._step(counters.epoch, counters.step - first)
            counters.step += 1
            now = self.clock()
            if now - self.reported > REPORT_SECONDS:
                self.reported = now
                report(self._progress())
            last = counters.step == planner.plan.num_steps
            if counters.step - counters.logged_step >= self.settings.log_steps or last:
                self._log_training()
            if self.signals.received is not None:
                self._stop(self.signals.received)
            if now - self.checkpointed > self.settings.checkpoint_seconds:
                self._checkpoint()
        self._tick()

    def _step(self, epoch: int, index: int) -> None:
        """One optimizer step on one batch."""
        settings, seed = self.settings, self.config.seed
        images, targets, labels = self.batch(epoch, index)
        torch.manual_seed(seed_of(seed, epoch, index, 2))  # dropout and stochastic depth
        for optimizer in self.state.optimizers:
            optimizer.zero_grad()
        num_micro = settings.accumulate
        micro_batches = zip(images.chunk(num_micro), targets.chunk(num_micro), labels.chunk(num_micro), strict=True)
        for micro_images, micro_targets, micro_labels in micro_batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                logits = self.compute(micro_images)
            loss = self.loss(logits.float(), micro_targets) * (len(micro_images) / len(images))
            loss.backward()
            self.loss_sum += loss.detach()
            self.correct_sum += num_right(logits.detach(), micro_labels)
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.state.model.parameters(), settings.clip_norm)
        self._set_learning_rate()
        for optimizer in self.state.optimizers:
            optimizer.step()
        self._average_weights()

    def batch(self, epoch: int, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The images of a step as they are trained on, their targets, and the labels they had before mixing."""
        images, labels = self.loader.batch(epoch, index)
        generator, model = torch.Generator().manual_seed(seed_of(self.config.seed, epoch, index, 1)), self.config.model
        images, targets = augment_batch(
            images, labels, model.num_classes, self.config.data.augment, generator, model.image_size, model.in_chans
        )
        return images, targets, labels

    def _set_learning_rate(self) -> None:
        settings = self.settings
        progress = self.planner.plan.progress_at(self.state.counters.step + 0.5)  # the middle of the step under way
        scale = learning_rate_scale(progress, settings.warmup_rate, settings.schedule, settings.final_rate)
        for optimizer, rates in zip(self.state.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale

    def _last_learning_rate(self) -> float:
        """The rate that the last step took; every group has the same."""
        return self.state.optimizers[0].param_groups[0]["lr"]

    def _average_weights(self) -> None:
        """Move the running mean of weights; young means follow faster, as in Tarvainen and Valpola 2017."""
        averaged, step = self.state.averaged, self.state.counters.step
        if averaged is None:
            return
        decay = min(self.settings.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for kept, new in zip(averaged.parameters(), self.state.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
            for kept, new in zip(averaged.buffers(), self.state.model.buffers(), strict=True):
                kept.copy_(new)  # batch norm's statistics are running means already

    def _finish_epoch(self, report: Report) -> None:
        """Evaluate, keep the model if it is the best so far, consider stopping, checkpoint."""
        counters = self.state.counters
        self._check_finite()
        started = self.clock()
        evaluated = self.state.model if self.state.averaged is None else self.state.averaged
        found = validate(evaluated, self.validation, self.device, self.best_by)
        self._check_finite(found["loss"])
        seconds = self.clock() - started
        counters.epoch += 1
        counters.evaluation_seconds += seconds
        epochs = self.planner.epochs_done(counters.epoch, counters.step)
        line = {"split": "validation", "epoch": epochs, **found}
        self.log.evaluation(line, counters.step)
        score, loss = found[self.best_by], found["loss"]
        best_loss = math.inf if counters.best_loss is None else counters.best_loss
        if (score, -loss) > (counters.best_accuracy, -best_loss):
            counters.best_accuracy, counters.best_loss, counters.best_epoch = score, loss, counters.epoch
            save_model(self.run_directory.path, evaluated.state_dict(), self.card)
        patience = self.settings.early_stop_epochs
        if patience and counters.epoch - counters.best_epoch >= patience and counters.epoch < self.planner.num_epochs:
            self.run_directory.journal.write("early_stop", step=counters.step, epoch=counters.epoch)
            counters.stopped_early = True
        self._checkpoint()
        self.planner.count_evaluation(seconds, self.clock() - started)
        report(self._progress(evaluation=line, message=self.planner.shortness(counters.step)))

    def _check_finite(self, validation_loss: float = 0.0) -> None:
        """Raise TrainingError rather than log, evaluate or save what is not a number."""
        if math.isfinite(self.loss_sum.item() + validation_loss) and self.state.is_finite():
            return
        step, rate = self.state.counters.step, self._last_learning_rate()
        advice = (
            "training.learning_rate" if self.settings.clip_norm else "training.learning_rate, set training.clip_norm"
        )
        raise TrainingError(
            f"The loss or a weight is not a finite number at step {step} (learning rate {rate:.3g}); lower {advice} "
            "and start a new run. What was saved before is kept"
        )

    def _log_training(self) -> None:
        """One line in metrics.jsonl: means over the steps since the last one."""
        self._check_finite()
        self._tick()
        counters = self.state.counters
        num_steps = counters.step - counters.logged_step
        images_seen = counters.step * self.loader.batch_size
        line = {
            "step": counters.step,
            "epoch": counters.step / self.loader.num_batches,
            "images_seen": images_seen,
            "loss": self.loss_sum.item() / num_steps,
            "accuracy": self.correct_sum.item() / (num_steps * self.loader.batch_size),
            "learning_rate": self._last_learning_rate(),
            "seconds": round(counters.train_seconds, 3),
        }
        self.last_means = (line["loss"], line["accuracy"])
        if self.config.data.augment.mixes:
            del line["accuracy"]  # mixed images have no one right answer
        self.log.training(line)
        counters.logged_step = counters.step
        self.loss_sum.zero_()
        self.correct_sum.zero_()

    def _checkpoint(self) -> None:
        """Save everything, after making sure that it is worth saving."""
        self._check_finite()
        self._tick()
        self.log.sync()
        counters = self.state.counters
        counters.loss_sum, counters.correct_sum = self.loss_sum.item(), self.correct_sum.item()
        counters.wall_seconds = self.planner.wall_seconds()
        save_checkpoint(self.run_directory.checkpoints_path, self.state)
        self.checkpointed = self.mark = self.clock()

    def _stop(self, signal_number: int) -> None:
        self._checkpoint()
        step, name = self.state.counters.step, signal.Signals(signal_number).name
        self.run_directory.journal.write("interrupted", step=step, signal=name)
        raise Interrupted(
            f"Stopped by {name} after step {step} of {self.planner.plan.num_steps}, all saved; "
            f"continue with: {self.run_directory.resume_command()}",
            signal_number,
        )

    def _tick(self) -> None:
        """Count the time since the last mark as training, after waiting for the device."""
        self._wait_for_device()
        now = self.clock()
        self.state.counters.train_seconds += now - self.mark
        self.mark = now

    def _wait_for_device(self) -> None:
        if self.device.type in ("cuda", "mps"):
            torch.accelerator.synchronize(self.device)

    def _progress(self, evaluation: dict[str, Any] | None = None, message: str | None = None) -> Progress:
        counters, planner = self.state.counters, self.planner
        loss, accuracy = self.last_means
        if counters.step > counters.logged_step:
            num_steps = counters.step - counters.logged_step
            loss = self.loss_sum.item() / num_steps
            accuracy = self.correct_sum.item() / (num_steps * self.loader.batch_size)
        done = counters.step - self.first_step
        trained = counters.train_seconds - self.first_seconds + (0 if evaluation else self.clock() - self.mark)
        mixed = self.config.data.augment.mixes
        return Progress(
            step=counters.step,
            num_steps=planner.plan.num_steps,
            epoch=min(counters.epoch + (evaluation is None), planner.num_epochs),
            num_epochs=planner.num_epochs,
            loss=loss,
            accuracy=None if mixed else accuracy,
            images_per_second=self.loader.batch_size * done / trained if done else 0.0,
            seconds_left=planner.seconds_left(counters.step),
            evaluation=evaluation,
            message=message,
        )

    def _consider_compilation(self, report: Report) -> None:
        """Once the speed is known, compile if that shortens what is left of the run; journal it before it counts."""
        wanted, counters = self.settings.compile, self.state.counters
        if counters.step != (0 if wanted == "on" else MEASURED_STEPS) or wanted == "off":
            return
        journal = self.run_directory.journal
        if journal.last("compile") is not None:  # decided before this run was resumed, perhaps from an earlier step
            self._replay_compilation()
            return
        self._tick()
        num_left = self.planner.plan.num_steps - counters.step
        seconds_left = counters.train_seconds / max(counters.step, 1) * num_left
        compiled = compile_where_it_pays(
            self.state.model,
            lambda: self.batch(counters.epoch, 0)[0].chunk(self.settings.accumulate)[0],
            self.autocast,
            is_asked=wanted == "on",
            seconds_left=seconds_left,
            say=lambda message: report(self._progress(message=message)),
        )
        journal.write("compile", step=counters.step, compiled=compiled is not None)
        self.compute = self.state.model if compiled is None else compiled
        seconds = self.clock() - self.mark
        counters.compile_seconds += seconds
        self.planner.count_compilation(seconds)
        self.mark = self.clock()

    def _replay_compilation(self) -> None:
        """Compile as before the run was stopped: compiled arithmetic differs in the last bit."""
        decision = self.run_directory.journal.last("compile")
        due = decision is not None and decision["compiled"] and decision["step"] <= self.state.counters.step
        if due and self.compute is self.state.model:
            self.compute = compile_model(self.state.model)


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Generator[None]:
    """Let torch refuse operations that have no deterministic form, and put its settings back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
