"""Two models on the same images."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binom, bootstrap
from statsmodels.stats.contingency_tables import mcnemar

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import mcnemar_exact, paired_bootstrap, paired_comparison, smallest_detectable_difference


def _answers(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


@pytest.mark.parametrize("table", [(80, 12, 3, 5), (0, 1, 0, 0), (50, 20, 20, 10), (900, 40, 61, 10), (3, 0, 6, 1)])
def test_mcnemar_equals_statsmodels(table: tuple[int, int, int, int]) -> None:
    both, only_a, only_b, neither = table
    expected = mcnemar([[both, only_a], [only_b, neither]], exact=True)
    assert mcnemar_exact(*_answers(*table)) == pytest.approx((only_a, only_b, expected.pvalue))


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(*_answers(10, 6, 0, 10)).p_value == pytest.approx(2 / 2**6)
    assert mcnemar_exact(*_answers(10, 5, 0, 10)).p_value > 0.05
    assert mcnemar_exact(*_answers(10, 0, 0, 10)) == (0, 0, 1)


def test_paired_bootstrap_equals_scipy() -> None:
    a, b = _answers(200, 40, 20, 40)
    difference, low, high = paired_bootstrap(a, b, num_samples=20_000, seed=1)
    theirs = bootstrap(
        (a, b),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert difference == pytest.approx(20 / 300)
    # One image is 1/300; at 20,000 samples an end moves by about a quarter of that.
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1.01 / 300)


def test_paired_bootstrap_is_seeded_and_turns_with_its_models() -> None:
    a, b = _answers(200, 40, 20, 40)
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert len({paired_bootstrap(a, b, num_samples=100, seed=seed) for seed in range(9)}) > 1
    difference, low, high = paired_bootstrap(b, a, seed=3)
    there = paired_bootstrap(a, b, seed=3)
    assert (-difference, -high, -low) == pytest.approx(there, abs=0.02)


def test_models_that_answer_alike_do_not_differ() -> None:
    a, _ = _answers(20, 0, 0, 10)
    assert paired_bootstrap(a, a) == (0, 0, 0)


def test_groups_that_agree_widen_the_interval() -> None:
    a, b = (np.repeat(answers, 10) for answers in _answers(20, 6, 3, 5))
    _, low, high = paired_bootstrap(a, b)
    difference, low_by_group, high_by_group = paired_bootstrap(a, b, groups=np.repeat(np.arange(34), 10))
    assert difference == pytest.approx(3 / 34)
    # Ten images that agree are worth one: the interval is wider by the root of ten.
    assert high_by_group - low_by_group == pytest.approx(math.sqrt(10) * (high - low), rel=0.1)


def test_a_group_per_image_equals_no_groups() -> None:
    a, b = _answers(20, 6, 3, 5)
    names = [f"object {index}" for index in range(34)]
    assert paired_bootstrap(a, b, groups=names) == paired_bootstrap(a, b)


def _connor(num_images: int, discordant: float, power_z: float = 0.8416212335729143, z: float = 1.959963984540054):
    """The difference at which the formula of Connor 1987 asks for `num_images`, by halving."""
    low, high = 0.0, discordant
    for _ in range(60):
        middle = (low + high) / 2
        needed = ((z * math.sqrt(discordant) + power_z * math.sqrt(discordant - middle**2)) / middle) ** 2
        low, high = (low, middle) if needed < num_images else (middle, high)
    return high


@pytest.mark.parametrize(("num_images", "accuracy"), [(10_000, 0.8), (10_000, 0.95), (2_000, 0.7), (100_000, 0.99)])
def test_smallest_difference_comes_near_the_formula_of_connor(num_images: int, accuracy: float) -> None:
    expected = _connor(num_images, 2 * accuracy * (1 - accuracy))
    found = smallest_detectable_difference(num_images, accuracy)
    assert found == pytest.approx(expected, rel=0.04)
    assert found is not None
    assert found > expected  # the exact test is the more careful one


@pytest.mark.parametrize(("num_images", "accuracy"), [(40, 0.9), (100, 0.99), (372, 0.8), (10_000, 0.95)])
def test_the_test_shows_the_smallest_difference_four_times_of_five(num_images: int, accuracy: float) -> None:
    difference = smallest_detectable_difference(num_images, accuracy)
    assert difference is not None
    discordant = max(2 * accuracy * (1 - accuracy), difference)
    shares = [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant]
    drawn = np.random.default_rng(0).multinomial(num_images, shares, size=4000)
    only_a, only_b = drawn[:, 0], drawn[:, 1]
    p_values = 2 * binom.cdf(np.minimum(only_a, only_b), only_a + only_b, 0.5)
    # The standard error of 4,000 repeats is 0.006.
    assert (p_values < 0.05).mean() == pytest.approx(0.8, abs=0.025)


def test_smallest_difference_falls_with_images_and_rises_with_power() -> None:
    by_images = [smallest_detectable_difference(number, 0.9) for number in (6, 7, 20, 100, 1000, 50_000)]
    assert by_images == sorted(by_images, reverse=True)
    by_power = [smallest_detectable_difference(500, 0.9, power) for power in (0.1, 0.5, 0.8, 0.9, 0.99)]
    assert by_power == sorted(by_power)
    assert smallest_detectable_difference(500, 0.9, confidence=0.99) > smallest_detectable_difference(500, 0.9)
    assert smallest_detectable_difference(500, 0.9) == pytest.approx(smallest_detectable_difference(500, 0.1))


@pytest.mark.parametrize("num_images", [6, 10, 100, 1000])
@pytest.mark.parametrize("accuracy", [0.5, 0.95, 1.0])
def test_smallest_difference_is_one_that_the_exact_test_can_show(num_images: int, accuracy: float) -> None:
    for power in (0.06, 0.8):
        difference = smallest_detectable_difference(num_images, accuracy, power)
        assert difference is not None
        assert 6 / num_images <= difference <= 1


def test_too_few_images_show_nothing() -> None:
    assert smallest_detectable_difference(5, 0.9) is None
    assert smallest_detectable_difference(6, 0.9, confidence=0.99) is None
    assert paired_comparison(*_answers(5, 0, 0, 0))["smallest_difference"] is None


def test_paired_comparison_is_all_of_it_in_json() -> None:
    a, b = _answers(300, 12, 30, 30)
    result = paired_comparison(a, b, num_samples=500, seed=5)
    assert list(result) == [
        "images", "accuracy_a", "accuracy_b", "difference", "difference_ci95", "mcnemar_p", "only_a", "only_b",
        "smallest_difference",
    ]  # fmt: skip
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["images"], result["only_a"], result["only_b"]) == (372, 12, 30)
    assert (result["accuracy_a"], result["accuracy_b"]) == (312 / 372, 330 / 372)
    assert (result["difference"], *result["difference_ci95"]) == paired_bootstrap(a, b, 500, 5)
    assert result["difference"] == pytest.approx(-18 / 372)
    assert result["mcnemar_p"] == mcnemar_exact(a, b).p_value


def test_models_that_err_alike_show_smaller_differences() -> None:
    apart = paired_comparison(*_answers(240, 57, 57, 18))["smallest_difference"]
    alike = paired_comparison(*_answers(290, 7, 7, 68))["smallest_difference"]
    accuracy = 297 / 372
    assert alike < 0.6 * apart
    # Models that err independently disagree on 2p(1-p) of the images.
    assert apart == pytest.approx(smallest_detectable_difference(372, accuracy), rel=0.05)


def test_paired_comparison_by_groups() -> None:
    a, b = (np.repeat(answers, 10) for answers in _answers(20, 6, 3, 5))
    groups = np.repeat(np.arange(34), 10)
    result = paired_comparison(a, b, groups=groups)
    assert tuple(result["difference_ci95"]) == paired_bootstrap(a, b, groups=groups)[1:]


@pytest.mark.parametrize("compare", [mcnemar_exact, paired_bootstrap, paired_comparison])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([True, False], [True], "do not fit"),
        ([], [], "do not fit"),
        ([[True]], [[True]], "do not fit"),
        ([0, 1], [True, False], "int64 and bool"),
    ],
)
def test_refuses_answers_that_do_not_fit(compare, a: list, b: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(a, b)


def test_refuses_groups_and_samples_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="do not fit 2 images"):
        paired_bootstrap([True, False], [True, True], groups=[1])
    with pytest.raises(ConfigError, match="num_samples=0"):
        paired_bootstrap([True, False], [True, True], num_samples=0)


@pytest.mark.parametrize(
    ("num_images", "settings", "message"),
    [
        (0, {"accuracy": 0.5}, "num_images=0"),
        (10, {"accuracy": 1.5}, "accuracy=1.5"),
        (10, {"accuracy": math.nan}, "accuracy=nan"),
        (10, {"accuracy": 0.5, "power": 1.0}, "power=1.0"),
        (10, {"accuracy": 0.5, "power": 0.05}, "power=0.05"),
        (10, {"accuracy": 0.5, "confidence": 95.0}, "confidence=95"),
    ],
)
def test_refuses_impossible_settings(num_images: int, settings: dict[str, float], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        smallest_detectable_difference(num_images, **settings)
