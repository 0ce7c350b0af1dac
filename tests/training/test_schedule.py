import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vitrail.training.schedule import learning_rate_scale

SCHEDULES = ["cosine", "linear", "constant"]
rates = st.floats(0, 0.99)
progresses = st.floats(0, 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_from_zero_in_a_straight_line(schedule):
    scales = [learning_rate_scale(progress, 0.2, schedule, 0.1) for progress in (0.0, 0.05, 0.1, 0.2)]
    assert scales == [0.0, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_highest_rate_comes_first(schedule):
    assert learning_rate_scale(0.0, 0.0, schedule) == 1.0


@pytest.mark.parametrize(
    ("schedule", "progress", "final_rate", "expected"),
    [
        ("cosine", 0.6, 0.0, 0.5),  # halfway between the end of warm-up and the end
        ("cosine", 0.4, 0.0, (1 + math.cos(math.pi / 4)) / 2),
        ("cosine", 0.6, 0.2, 0.6),
        ("cosine", 1.0, 0.0, 0.0),
        ("cosine", 1.0, 0.2, 0.2),
        ("linear", 0.4, 0.0, 0.75),
        ("linear", 0.6, 0.2, 0.6),
        ("linear", 1.0, 0.0, 0.0),
        ("linear", 1.0, 0.2, 0.2),
        ("constant", 0.3, 0.0, 1.0),
        ("constant", 1.0, 0.2, 1.0),
        ("cosine", 1.3, 0.2, 0.2),  # beyond the end it stays
    ],
)
def test_the_fall_after_warm_up(schedule, progress, final_rate, expected):
    assert learning_rate_scale(progress, 0.2, schedule, final_rate) == pytest.approx(expected, abs=1e-12)


@given(progresses, rates, st.sampled_from(SCHEDULES), st.floats(0, 1))
def test_the_factor_is_bounded(progress, warmup_rate, schedule, final_rate):
    scale = learning_rate_scale(progress, warmup_rate, schedule, final_rate)
    lowest = 0 if progress < warmup_rate else final_rate
    assert lowest - 1e-12 <= scale <= 1 + 1e-12


@given(progresses, progresses, rates, st.sampled_from(SCHEDULES), st.floats(0, 1))
def test_the_factor_rises_and_then_never_again(first, second, warmup_rate, schedule, final_rate):
    earlier, later = sorted([first, second])
    before, after = (learning_rate_scale(at, warmup_rate, schedule, final_rate) for at in (earlier, later))
    if later <= warmup_rate:
        assert before <= after + 1e-12
    elif earlier >= warmup_rate:
        assert before >= after - 1e-12


@given(progresses, st.floats(0.01, 0.99), st.sampled_from(SCHEDULES), st.floats(0, 1))
def test_small_steps_of_progress_are_small_steps_of_the_factor(progress, warmup_rate, schedule, final_rate):
    step = 1e-7
    assume(progress + step <= 1)
    steepest = max(1 / warmup_rate, math.pi / 2 / (1 - warmup_rate))
    scales = [learning_rate_scale(at, warmup_rate, schedule, final_rate) for at in (progress, progress + step)]
    assert abs(scales[1] - scales[0]) <= 1.01 * step * steepest + 1e-12
