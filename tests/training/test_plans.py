import copy
import itertools
import json
import math
import signal
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitrail.errors import CheckpointError, Interrupted
from vitrail.runs import Journal
from vitrail.training import loop, plans
from vitrail.training.loop import Training
from vitrail.training.plans import Plan, Planner, Timing, Workload, steps_within
from vitrail.training.state import checkpoint_paths

BUDGET = 30.0


class Machine:
    """A clock that nothing but the training's work moves."""

    def __init__(self):
        self.now, self.started = 1000.0, 1000.0
        self.evaluation_seconds = 0.3
        self.step_seconds = lambda passed: 0.1  # by the seconds since the start
        self.shared = 1.0  # what others slow it down

    def __call__(self):
        return self.now

    @property
    def passed(self):
        return self.now - self.started

    def timing(self, **facts):
        """The timing of a command that starts now."""
        self.started = self.now
        return Timing(self.now, clock=self, processor_clock=lambda: self.now / self.shared, **facts)


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    step, evaluate = Training._step, loop.validate

    def timed_step(self, epoch, index):
        step(self, epoch, index)
        machine.now += machine.step_seconds(machine.passed)

    def timed_evaluate(*arguments):
        machine.now += machine.evaluation_seconds
        return evaluate(*arguments)

    monkeypatch.setattr(Training, "_step", timed_step)
    monkeypatch.setattr(loop, "validate", timed_evaluate)
    return machine


@pytest.fixture
def timed(small, machine, tmp_path):
    """`timed("run", 30.0, settings)`: a training with that budget, new or resumed, on the machine's clock."""

    def start(name="run", seconds=BUDGET, settings=None, **facts):
        given = {"training.time_seconds": seconds, "training.log_steps": 1, **(settings or {})}
        return small.start(tmp_path / name, given, timing=machine.timing(**facts))

    return start


def planned(training):
    return [event for event in training.run_directory.journal.events() if event["event"] == "plan"]


def rates(small, training):
    return [line["learning_rate"] for line in small.metrics(training.run_directory.path) if "step" in line]


# A plan


def test_without_a_budget_progress_is_the_part_of_all_steps():
    plan = Plan(0, 0.0, 1170)
    assert all(plan.progress_at(step + 0.5) == (step + 0.5) / 1170 for step in range(1170))  # to the bit


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 300)), max_size=8))
def test_new_plans_neither_let_progress_jump_nor_leave_it_short(changes):
    plan, steps, seen = Plan(0, 0.0, 100), 0, []
    for passed, left in changes:
        if steps + passed >= plan.num_steps:
            break
        seen += [plan.progress_at(steps + done) for done in range(passed)]
        steps += passed
        before = plan.progress_at(steps)
        plan = Plan(steps, before, steps + left)
        assert plan.progress_at(steps) == before
    seen += [plan.progress_at(step) for step in range(steps, plan.num_steps + 1)]
    assert all(earlier < later for earlier, later in itertools.pairwise(seen))
    assert seen[0] == 0.0
    assert seen[-1] == pytest.approx(1.0, abs=1e-12)


@given(st.floats(-5, 60), st.integers(0, 9), st.integers(10, 12), st.floats(0.01, 2), st.floats(0, 3))
def test_steps_within_is_what_trying_finds(seconds, in_epoch, num_batches, step_seconds, evaluation_seconds):
    def cost(steps):
        return steps * step_seconds + math.ceil((in_epoch + steps) / num_batches) * evaluation_seconds

    found = steps_within(seconds, in_epoch, num_batches, step_seconds, evaluation_seconds)
    assert found == 0 or cost(found) <= seconds + 1e-6
    assert cost(found + 1) > seconds - 1e-6


# A budget


@pytest.mark.parametrize(
    ("change", "highest"),
    [
        (lambda passed: 0.1, 1.0),
        (lambda passed: 0.1 if passed < BUDGET / 2 else 0.2, 1.0),
        (lambda passed: 0.1 if passed < BUDGET / 2 else 0.05, 1.0),
        (lambda passed: 0.1 if passed < 0.8 * BUDGET else 0.2, 1.02),
        (lambda passed: 0.05 + 0.03 * math.sin(passed), 1.02),
        (lambda passed: 0.1 if passed % 3 < 2 else 0.3, 1.02),
        (lambda passed: 2.0, 1.05),
    ],
    ids=["steady", "twice as slow", "twice as fast", "slow at the end", "wavering", "by fits", "two seconds a step"],
)
def test_training_ends_with_its_budget(small, machine, timed, change, highest):
    machine.step_seconds = change
    training = timed(test_images=48, finish_seconds=1.5)
    machine.now += 2.0  # reading data and importing torch
    counters = training.run(small.silent)
    total = machine.passed + 1.5 + machine.evaluation_seconds * (24 + 48) / 24
    assert 0.92 * BUDGET < total <= highest * BUDGET
    assert counters.step == planned(training)[-1]["num_steps"]
    assert counters.epoch == math.ceil(counters.step / 5)
    expected = loop.learning_rate_scale(1 - 0.5 / counters.step, 0.05, "cosine")
    assert rates(small, training)[-1] <= 3e-3 * max(40 * expected, 0.01)  # the decay has come to its end


def test_the_first_plan_stands_before_the_first_step(small, timed):
    training, seen = timed(), []

    def report(progress):
        if not seen:
            seen.extend([planned(training), progress])
            raise StopIteration

    with pytest.raises(StopIteration):
        training.run(report)
    events, progress = seen
    assert events == [{"event": "plan", "step": 0, "progress": 0.0, "num_steps": progress.num_steps}]
    assert progress.step == 0
    assert progress.seconds_left == pytest.approx(0.98 * BUDGET - 0.3, abs=0.5)  # three steps of 0.1 s were tried


def test_on_a_steady_machine_one_plan_is_nearly_enough(small, timed):
    training = timed()
    training.run(small.silent)
    assert 1 <= len(planned(training)) <= 4


def test_the_learning_rate_goes_on_without_a_jump(small, machine, timed):
    machine.step_seconds = lambda passed: 0.1 if passed < BUDGET / 2 else 0.2
    training = timed(settings={"training.schedule": "linear", "training.warmup_rate": 0})
    training.run(small.silent)
    steps = [later - earlier for earlier, later in itertools.pairwise(rates(small, training))]
    assert max(steps) < 0
    assert min(steps) > 4 * max(steps)
    assert rates(small, training)[-1] == pytest.approx(-steps[-1] / 2, rel=0.2)  # the middle of the last step


def test_a_wall_clock_that_jumps_changes_nothing(small, machine, timed, monkeypatch):
    expected = small.outcome_of(timed("undisturbed"))
    machine.now = 1000.0
    jumps = itertools.cycle([0.0, 4e9, 1.0, 2e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    assert small.outcome_of(timed("run")) == expected


@pytest.mark.parametrize("seconds", [0.001, 1.0])
def test_too_short_a_budget_still_gives_a_model(small, timed, tmp_path, seconds):
    training, messages = timed(seconds=seconds, settings={"training.batch_size": 2}), []
    counters = training.run(lambda progress: messages.append(progress.message))
    assert (counters.step, counters.epoch, counters.best_epoch) == (10, 1, 1)  # of 20 in an epoch
    assert [message for message in messages if message] == [
        "The time was enough for 0.5 of one epoch; "
        "for a better model give more --time, a smaller --model, or a smaller model.image_size"
    ]
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert small.metrics(tmp_path / "run")[-1]["epoch"] == 0.5


def test_a_machine_that_others_use_too_takes_longer_to_finish(small, machine, timed):
    machine.shared = 3.0
    training = timed(finish_seconds=2.0)
    training.run(small.silent)
    assert 0.92 * BUDGET < machine.passed + 3 * 2.0 < BUDGET


def test_an_epoch_may_be_evaluated_in_part(small, timed):
    training, seen = timed(seconds=4.5), []
    training.run(lambda progress: seen.append(progress.evaluation))
    num_steps = training.state.counters.step
    assert num_steps % 5
    evaluated = [line["epoch"] for line in seen if line]
    assert evaluated == [*range(1, num_steps // 5 + 1), num_steps / 5]
    assert training.planner.epochs_done(training.state.counters.epoch, num_steps) == num_steps / 5


def test_a_plan_is_journalled_before_it_counts(small, timed, monkeypatch):
    training = timed()

    def refuse(event, **facts):
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(training.run_directory.journal, "write", refuse)
    with pytest.raises(CheckpointError, match="the disk is full"):
        training.run(small.silent)
    assert training.planner.plan == Plan(0, 0.0, 15)
    assert training.state.counters.step == 0


def test_without_a_budget_nothing_is_journalled(small, machine, tmp_path):
    training = small.start(tmp_path / "run", timing=machine.timing())
    training.run(small.silent)
    assert training.run_directory.journal.events() == []
    assert training.planner.plan == Plan(0, 0.0, 15)


def test_nearly_every_look_at_the_plan_is_a_look_at_the_clock(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(Planner, "_measure", lambda self, step, now: looked.append(step))
    machine = Machine()
    settings = loop.RunConfig(recipe="", model_name="").training.model_copy(update={"time_seconds": 1000.0})
    planner = Planner(Journal(tmp_path / "journal"), settings, Workload(8, 100, 10), machine.timing())
    planner.replay(0, 0.0)
    planner.begin(0, 1 / 64)
    for step in range(1500):
        planner.consider(step)
        machine.now += 1 / 64
    assert looked == [0, 640, 1280]  # every ten seconds, which is a hundredth of the budget


# Trying steps


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_steps_that_were_tried_leave_no_trace(small, tmp_path, optimizer):
    settings = {"training.optimizer": optimizer, "training.ema_decay": 0.9, "model.drop_path_rate": 0.2}
    training = small.start(tmp_path / "run", settings)
    with pytest.raises(Interrupted):
        training.run(small.stop_after(3))
    state = training.state
    before = {name: tensor.clone() for name, tensor in state.named_tensors()}
    counters, sums = copy.copy(state.counters), (training.loss_sum.item(), training.correct_sum.item())
    assert training._try_steps() > 0
    assert training.state is state
    assert training.compute is state.model
    assert state.counters == counters
    assert (training.loss_sum.item(), training.correct_sum.item()) == sums
    after = dict(state.named_tensors())
    assert {*after} == {*before}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_few_steps_are_tried_where_they_are_slow(machine, timed):
    steps = []
    machine.step_seconds = lambda passed: steps.append(passed) or 0.6
    assert timed()._try_steps() == pytest.approx(0.6)
    assert len(steps) == 2


# Going on, and doing it again


@pytest.fixture
def uneven(machine):
    """A machine whose speed changes all the time, so that plans do."""
    machine.step_seconds = lambda passed: 0.1 + 0.08 * math.sin(passed / 2)
    return machine


def repeat_of(training, path, small, machine, settings=None):
    """A training in `path` that obeys the journal of another, on a machine of another speed."""
    again = small.start(path, {**SETTINGS, **(settings or {})}, timing=machine.timing())
    for event in planned(training):
        again.run_directory.journal.write(**event)
    again.run_directory.journal.write("repeats", run="run")
    machine.step_seconds = lambda passed: 0.5
    again.run(small.silent)
    return again


SETTINGS = {"training.time_seconds": BUDGET, "training.log_steps": 1, "training.ema_decay": 0.9}


def test_a_repetition_obeys_the_plans_and_makes_none(small, uneven, timed, tmp_path):
    first = timed(settings=SETTINGS)
    first.run(small.silent)
    assert len(planned(first)) > 5
    again = repeat_of(first, tmp_path / "again", small, uneven)
    assert small.outcome(again) == small.outcome(first)
    assert planned(again) == planned(first)
    assert uneven.passed > 2 * BUDGET


@pytest.mark.parametrize(
    "steps",
    [
        (1,),
        pytest.param((37,), marks=pytest.mark.slow),
        (100, 101),
        pytest.param((50, 100, 150), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_run_that_was_stopped_equals_a_repetition_of_its_journal(small, uneven, timed, tmp_path, steps):
    for step in steps:
        with pytest.raises(Interrupted, match=f"after step {step} of "):
            timed(settings=SETTINGS).run(small.stop_after(step, signal.SIGTERM))
        uneven.now += 1000  # a night, which does not count
    resumed = timed(settings=SETTINGS)
    resumed.run(small.silent)
    assert uneven.passed < BUDGET
    assert 0.93 * BUDGET < resumed.planner.wall_seconds() < BUDGET
    assert small.outcome(repeat_of(resumed, tmp_path / "again", small, uneven)) == small.outcome(resumed)


class Crash(Exception):
    """Stands for a process that ends without another word."""


def test_plans_from_beyond_the_last_checkpoint_are_obeyed(small, uneven, timed, tmp_path):
    settings = SETTINGS | {"training.batch_size": 1, "training.checkpoint_seconds": 1000}  # a checkpoint every 40 steps

    def crash(progress):
        if progress.step > 80 and planned(first)[-1]["step"] > progress.step // 40 * 40 + 1:
            raise Crash

    first = timed(settings=settings)
    with pytest.raises(Crash):
        first.run(crash)
    before = planned(first)
    saved = int(checkpoint_paths(tmp_path / "run" / "checkpoints")[-1].stem[-9:])
    beyond = [event for event in before if event["step"] > saved]
    assert beyond
    resumed = timed(settings=settings)
    resumed.run(small.silent)
    assert planned(resumed)[: len(before)] == before
    assert all(event["step"] > beyond[-1]["step"] for event in planned(resumed)[len(before) :])
    assert small.outcome(repeat_of(resumed, tmp_path / "again", small, uneven, settings)) == small.outcome(resumed)


def test_a_run_whose_time_is_used_up_ends_soon(small, machine, timed, tmp_path):
    settings = {"training.schedule": "linear", "training.warmup_rate": 0}
    with pytest.raises(Interrupted):
        timed(settings=settings).run(small.stop_after(40))
    path = checkpoint_paths(tmp_path / "run" / "checkpoints")[-1]
    spent = json.loads(path.read_text())["counters"]["wall_seconds"]
    assert spent == pytest.approx((3 + 40) * 0.1 + 7 * 0.3)  # steps tried and done, evaluations
    training = timed(settings=settings)
    training.planner.timing = Timing(machine.now - 2 * BUDGET, clock=machine)  # it began long ago
    training.run(small.silent)
    assert 41 <= training.state.counters.step <= 50
    assert rates(small, training)[-1] < 0.6 * rates(small, training)[39]
    assert planned(training)[-1]["step"] == 40


def test_the_tolerance_and_the_part_used_are_what_the_documentation_says():
    assert (plans.USED_RATE, plans.CHECK_RATE, plans.LEAST_STEPS) == (0.98, 0.01, 10)
