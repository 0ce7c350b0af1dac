"""How many steps a training takes: its plan, and new plans while a time budget is to be met.

A plan is taken at a step, where training has come to some progress, and says after how many steps it ends. Progress,
which the learning rate follows, goes on from there in a straight line to 1: a new plan never lets it jump, and the
decay is always complete. A plan is journalled before it counts; a resumed or repeated run obeys those of its journal.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from vitrail.config import TrainingConfig
from vitrail.runs import Journal

USED_RATE = 0.98  # part of a budget that is planned with; the rest is for what no plan foresees
LEAST_STEPS = 10  # of any training, however short its budget
CHECK_RATE, CHECK_SECONDS = 0.01, 1.0  # least time between two looks at the clock, as a part of the budget and as such
NUM_CHECKS = 5  # looks at the clock that the speed is a mean over
TOLERANCE = 0.015  # part of the steps left by which a new plan must differ to be worth one
MOST_SHARED = 10.0  # what others on the machine are taken to slow down this process at most
SHORTEST = 1e-6  # seconds of a step, where a clock is too coarse to tell
FORWARD_RATE = 1 / 3  # part of a training step that evaluating as many images takes, until one was timed


@dataclass(frozen=True)
class Timing:
    """What a command does besides training: when it began by `clock`, in seconds, and what it does afterwards."""

    started: float
    test_images: int = 0
    finish_seconds: float = 0.0  # on an idle machine, after training, besides evaluating validation and test images
    clock: Callable[[], float] = time.perf_counter
    processor_clock: Callable[[], float] = time.process_time  # seconds that processors worked for this process


@dataclass(frozen=True)
class Workload:
    """The counts that a training's time follows from."""

    batch_size: int
    num_batches: int  # of an epoch
    num_validation: int  # images
    num_threads: int = 1  # of a step


@dataclass(frozen=True)
class Plan:
    """From `step` on, where training has come to `progress`, it goes on to `num_steps` steps in all."""

    step: int
    progress: float
    num_steps: int

    def progress_at(self, step: float) -> float:
        """The part of training, 0..1, that is done after so many steps."""
        return self.progress + (1 - self.progress) * (step - self.step) / (self.num_steps - self.step)


class Mark(NamedTuple):
    """A look at the clocks, in seconds."""

    step: int
    seconds: float
    steps_seconds: float  # without evaluation and compilation
    processor_seconds: float


class Planner:
    """The plan in force, `plan`: the epochs' or the journal's, or one made to end with the time budget."""

    def __init__(self, journal: Journal, settings: TrainingConfig, work: Workload, timing: Timing) -> None:
        self.journal, self.work, self.timing, self.clock = journal, work, timing, timing.clock
        self.budget = settings.time_seconds
        self.plan = Plan(0, 0.0, work.num_batches * settings.epochs)
        self.interval = max(CHECK_SECONDS, CHECK_RATE * (self.budget or 0.0))
        self.step_seconds = math.nan
        self.evaluations: deque[float] = deque(maxlen=3)  # seconds of the ends of epochs, with all that is saved then
        self.image_seconds = math.inf  # to evaluate one image; inf: not timed yet
        self.marks: deque[Mark] = deque(maxlen=NUM_CHECKS + 1)
        self.apart_seconds = 0.0  # spent on evaluation and compilation, which are no steps
        self.due = -math.inf  # when to look at the clock next
        self.waiting: deque[Plan] = deque()  # plans of the journal for later steps
        self.last_step = -1  # that any plan was made for
        self.obeys = False  # another run's plans, and makes none
        self.earlier_seconds = 0.0  # that earlier commands took

    @property
    def num_epochs(self) -> int:
        """Epochs of the plan in force, the last of which may be a part of one."""
        return math.ceil(self.plan.num_steps / self.work.num_batches)

    def replay(self, step: int, wall_seconds: float) -> None:
        """Read the journal, and take its plan for `step`; earlier commands took `wall_seconds` until then."""
        self.earlier_seconds = wall_seconds
        events = self.journal.events()
        plans = [event for event in events if event.get("event") == "plan"]
        self.waiting = deque(Plan(event["step"], event["progress"], event["num_steps"]) for event in plans)
        self.last_step = self.waiting[-1].step if self.waiting else -1
        self.obeys = any(event.get("event") == "repeats" for event in events)
        self._take_waiting(step)

    def begin(self, step: int, step_seconds: float) -> None:
        """Go on at `step`, of which one takes about `step_seconds`."""
        self.step_seconds = max(step_seconds, SHORTEST)
        self.consider(step)

    def consider(self, step: int) -> None:
        """Take the plan for `step`, the next to be done: one from the journal, or if the time has come a new one.

        Called before every step; nearly always it looks at the clock and returns, which costs less than 1 µs.
        """
        if self.waiting:
            self._take_waiting(step)
        now = self.clock()
        if now < self.due:
            return
        begins = math.isinf(self.due)
        self.due = now + self.interval
        self._measure(step, now)
        if self.budget is not None and not self.obeys and self.last_step < step < self.plan.num_steps:
            self._plan_for(self.budget, step, now, begins)

    def _take_waiting(self, step: int) -> None:
        while self.waiting and self.waiting[0].step <= step:
            self.plan = self.waiting.popleft()

    def _measure(self, step: int, now: float) -> None:
        self.marks.append(Mark(step, now, now - self.apart_seconds, self.timing.processor_clock()))
        first, last = self.marks[0], self.marks[-1]
        if last.step > first.step:
            self.step_seconds = max((last.steps_seconds - first.steps_seconds) / (last.step - first.step), SHORTEST)

    def _plan_for(self, budget: float, step: int, now: float, begins: bool) -> None:
        """A plan that ends with the budget, if that is not what the plan in force does."""
        left = USED_RATE * budget - self.wall_seconds(now) - self._finish_seconds()
        in_epoch = step % self.work.num_batches
        fitting = steps_within(left, in_epoch, self.work.num_batches, self.step_seconds, self._evaluation_seconds())
        # A resumed run whose time is used up still lets the learning rate fall, in what little time that may take.
        falling = min(LEAST_STEPS, int(CHECK_RATE * budget / self.step_seconds)) if begins else 1
        num_steps = max(step + max(fitting, falling, 1), LEAST_STEPS)
        first = self.last_step < 0
        if not first and abs(num_steps - self.plan.num_steps) <= TOLERANCE * (self.plan.num_steps - step):
            return
        plan = Plan(step, self.plan.progress_at(step), num_steps)
        self.journal.write("plan", step=plan.step, progress=plan.progress, num_steps=plan.num_steps)
        self.plan, self.last_step = plan, step

    def count_evaluation(self, seconds: float, whole_seconds: float) -> None:
        """Learn from an epoch's end: `seconds` of evaluation alone, and with all that was saved."""
        self.image_seconds = seconds / self.work.num_validation
        self.evaluations.append(whole_seconds)
        self.apart_seconds += whole_seconds

    def count_compilation(self, seconds: float) -> None:
        """Leave out the time of compiling, and forget the speed before."""
        self.apart_seconds += seconds
        self.marks.clear()

    def wall_seconds(self, now: float | None = None) -> float:
        """Seconds since the command began, those of earlier commands on this run included."""
        return self.earlier_seconds + (self.clock() if now is None else now) - self.timing.started

    def seconds_left(self, step: int) -> float:
        """Seconds to the command's end as things go now; 0 after the last step, nan before a step was timed."""
        if step >= self.plan.num_steps:
            return 0.0
        num_evaluations = self.num_epochs - step // self.work.num_batches
        steps = (self.plan.num_steps - step) * self.step_seconds
        return steps + num_evaluations * self._evaluation_seconds() + self._finish_seconds()

    def epochs_done(self, epoch: int, step: int) -> float:
        """Epochs trained when `epoch` were evaluated, the last at `step`: a whole number unless it is part of one."""
        return epoch if step == epoch * self.work.num_batches else step / self.work.num_batches

    def shortness(self, step: int) -> str | None:
        """What to say of a time budget that ended at `step`, if that is less than one epoch."""
        if self.budget is None or step >= self.work.num_batches:
            return None
        return (
            f"The time was enough for {step / self.work.num_batches:.2g} of one epoch; "
            "for a better model give more --time, a smaller --model, or a smaller model.image_size"
        )

    def _image_seconds(self) -> float:
        """Seconds to evaluate one image; with few images to time, what surrounds them must not count for many."""
        a_step = self.step_seconds / self.work.batch_size
        return FORWARD_RATE * a_step if math.isinf(self.image_seconds) else min(self.image_seconds, a_step)

    def _evaluation_seconds(self) -> float:
        if not self.evaluations:
            return self.work.num_validation * self._image_seconds()
        return sum(self.evaluations) / len(self.evaluations)

    def _finish_seconds(self) -> float:
        """Seconds from the last step's evaluation to the command's end."""
        num_images = self.work.num_validation + self.timing.test_images
        return self.timing.finish_seconds * self._shared() + num_images * self._image_seconds()

    def _shared(self) -> float:
        """How many times slower all is of late because others use the processors too; 1 on an idle machine."""
        if len(self.marks) < 2:
            return 1.0
        first, last = self.marks[0], self.marks[-1]
        worked = max(last.processor_seconds - first.processor_seconds, SHORTEST)
        return min(max(self.work.num_threads * (last.seconds - first.seconds) / worked, 1.0), MOST_SHARED)


def steps_within(
    seconds: float, in_epoch: int, num_batches: int, step_seconds: float, evaluation_seconds: float
) -> int:
    """The most steps that fit into `seconds` together with an evaluation at each epoch's end and after the last step.

    `in_epoch` steps of the epoch under way, which has `num_batches`, are done already.
    """
    num_epochs = math.floor((seconds + in_epoch * step_seconds) / (num_batches * step_seconds + evaluation_seconds))
    whole = num_epochs * num_batches - in_epoch
    with_part = math.floor((seconds - (num_epochs + 1) * evaluation_seconds) / step_seconds)
    return max(whole, with_part, 0)
