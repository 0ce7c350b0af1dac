"""Metrics of a split, held equal to scikit-learn's."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics as sklearn_metrics

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import (
    accuracy_coverage_curve,
    classification_metrics,
    expected_calibration_error,
    reject_threshold,
    smallest_detectable_difference,
    softmax,
    wilson_interval,
)


def _case(num_images: int, num_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logits that are right about half the time; every class has images."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, num_images - num_classes)])
    logits = rng.normal(size=(num_images, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    return logits.astype(np.float32), labels.astype(np.int64), [f"class {index}" for index in range(num_classes)]


@pytest.mark.parametrize("num_classes", [2, 5, 6, 20])
def test_equals_scikit_learn(num_classes: int) -> None:
    logits, labels, classes = _case(200, num_classes)
    result = classification_metrics(logits, labels, classes)
    predictions, all_labels = logits.argmax(axis=1), range(num_classes)
    precision, recall, f1, images = sklearn_metrics.precision_recall_fscore_support(
        labels, predictions, labels=list(all_labels), zero_division=0
    )
    assert result["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions))
    assert result["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, predictions))
    log_loss = sklearn_metrics.log_loss(labels, softmax(logits), labels=list(all_labels))
    assert result["loss"] == pytest.approx(log_loss, rel=1e-9)
    assert result["confusion"] == sklearn_metrics.confusion_matrix(labels, predictions).tolist()
    assert [row["precision"] or 0 for row in result["per_class"]] == pytest.approx(precision)
    assert [row["recall"] for row in result["per_class"]] == pytest.approx(recall)
    assert [row["f1"] for row in result["per_class"]] == pytest.approx(f1)
    assert [row["images"] for row in result["per_class"]] == images.tolist()
    if num_classes > 5:
        top5 = sklearn_metrics.top_k_accuracy_score(labels, logits, k=5, labels=list(all_labels))
        assert result["top5_accuracy"] == pytest.approx(top5)


def test_by_hand() -> None:
    # Predictions 0 0 1 1 1 for labels 0 1 1 1 2.
    logits = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], dtype=np.float32)
    result = classification_metrics(logits, np.array([0, 1, 1, 1, 2]), ["a", "b", "c"])
    assert result["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 1, 0]]
    assert result["accuracy"] == 0.6
    assert result["balanced_accuracy"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert result["loss"] == pytest.approx(np.log(np.e + 2) - 3 / 5)
    first, second, third = result["per_class"]
    assert (first["precision"], first["recall"], first["f1"]) == pytest.approx((1 / 2, 1, 2 / 3))
    assert (second["precision"], second["recall"], second["f1"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (third["precision"], third["recall"], third["f1"]) == (None, 0, 0)


KEYS = [
    "images", "accuracy", "accuracy_ci95", "accuracy_bootstrap_ci95", "balanced_accuracy", "balanced_accuracy_ci95",
    "macro_precision", "macro_precision_ci95", "macro_f1", "macro_f1_ci95", "loss", "ece", "temperature",
    "smallest_difference", "accuracy_coverage", "per_class", "confusion",
]  # fmt: skip


def test_keys_and_their_order() -> None:
    few = classification_metrics(*_case(20, 5))
    assert list(few) == KEYS
    assert list(few["per_class"][0]) == [
        "class", "images", "precision", "recall", "f1", "recall_ci95", "precision_ci95"
    ]  # fmt: skip
    many = classification_metrics(*_case(20, 6), temperature=2.0, reject_threshold=0.5)
    uncalibrated, top5 = ["loss_uncalibrated", "ece_uncalibrated"], ["top5_accuracy"]
    assert list(many) == [*KEYS[:12], *uncalibrated, KEYS[12], *top5, KEYS[13], "answered", *KEYS[14:]]
    assert list(many["answered"]) == ["images", "coverage", "accuracy", "accuracy_ci95"]
    assert list(many["accuracy_coverage"][0]) == ["coverage", "accuracy", "threshold"]


@pytest.mark.parametrize("num_classes", [2, 5, 20])
def test_means_over_classes_equal_scikit_learn(num_classes: int) -> None:
    logits, labels, classes = _case(60, num_classes)
    logits[:, 0] -= 20  # never predicted
    keep = labels != num_classes - 1  # predicted without any image of its own
    logits, labels = logits[keep], labels[keep]
    result = classification_metrics(logits, labels, classes)
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        labels, logits.argmax(axis=1), labels=np.unique(labels), average="macro", zero_division=0
    )
    assert result["macro_precision"] == pytest.approx(precision)
    assert result["balanced_accuracy"] == pytest.approx(recall)
    assert result["macro_f1"] == pytest.approx(f1)


def test_bootstrap_intervals_equal_scipy() -> None:
    logits, labels, classes = _case(100, 3)
    result = classification_metrics(logits, labels, classes, bootstrap_samples=20_000)

    def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
        pairs = [(labels == label, predictions == label) for label in np.unique(labels)]
        return float(np.mean([2 * (own & taken).sum() / (own.sum() + taken.sum()) for own, taken in pairs]))

    theirs = bootstrap(
        (labels, logits.argmax(axis=1)),
        macro_f1,
        paired=True,
        vectorized=False,
        n_resamples=1500,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    interval = theirs.confidence_interval
    # An end of theirs has a standard error of about a fifteenth of the deviation.
    assert result["macro_f1_ci95"] == pytest.approx((interval.low, interval.high), abs=0.25 * theirs.standard_error)
    for key in ("balanced_accuracy", "macro_precision", "macro_f1"):
        low, high = result[f"{key}_ci95"]
        assert low < result[key] < high
    assert result["accuracy_bootstrap_ci95"] == pytest.approx(result["accuracy_ci95"], abs=0.02)


def test_groups_widen_the_intervals_that_can_tell_and_no_other() -> None:
    logits, labels, classes = _case(40, 3)
    many, many_labels, groups = np.repeat(logits, 10, axis=0), np.repeat(labels, 10), np.repeat(np.arange(40), 10)
    alone = classification_metrics(many, many_labels, classes)
    together = classification_metrics(many, many_labels, classes, groups=groups)
    for key in alone:
        if key.endswith("_ci95"):
            assert np.diff(together[key]) > 2 * np.diff(alone[key])
        else:
            assert together[key] == alone[key]
    assert [*together][:3] == ["images", "groups", "interval_method"]
    assert (together["groups"], together["interval_method"]) == (40, "bootstrap of groups")
    assert {*together} - {*alone} == {"groups", "interval_method"}


def test_groups_that_are_all_right_do_not_make_an_interval_of_nothing() -> None:
    labels = np.repeat([0, 1], 20)
    result = classification_metrics(np.eye(2)[labels], labels, "ab", groups=np.repeat(np.arange(8), 5))
    assert result["accuracy_bootstrap_ci95"] == [1, 1]
    assert result["accuracy_ci95"] == list(wilson_interval(40, 40))


def test_bootstrap_follows_its_seed() -> None:
    case = _case(40, 3)
    first, same, other = (classification_metrics(*case, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first["macro_f1_ci95"] != other["macro_f1_ci95"]


def test_temperature_changes_probabilities_and_nothing_else() -> None:
    logits, labels, classes = _case(80, 6)
    before = classification_metrics(logits, labels, classes)
    after = classification_metrics(logits, labels, classes, temperature=3)
    assert (before["temperature"], after["temperature"]) == (1, 3)
    assert (after["loss_uncalibrated"], after["ece_uncalibrated"]) == (before["loss"], before["ece"])
    divided = classification_metrics(logits.astype(np.float64) / 3, labels, classes)
    changed = {"loss", "ece", "accuracy_coverage"}
    assert after["loss"] == pytest.approx(divided["loss"], rel=1e-12)
    assert after["ece"] == pytest.approx(divided["ece"], rel=1e-9)
    assert {key for key in before if before[key] != after[key]} == changed | {"temperature"}


def test_answers_above_the_threshold_are_counted() -> None:
    logits, labels, classes = _case(80, 4)
    probabilities = softmax(logits / np.float32(2))
    threshold, coverage = reject_threshold(probabilities, labels, 0.9)
    assert 0 < coverage < 1
    result = classification_metrics(logits, labels, classes, temperature=2, reject_threshold=threshold)
    assert result["answered"]["coverage"] == coverage
    assert result["answered"]["accuracy"] >= 0.9
    curve = accuracy_coverage_curve(probabilities, labels)
    points = {round(float(share), 9): float(accuracy) for share, accuracy in zip(*curve[:2], strict=True)}
    assert 1 < len(result["accuracy_coverage"]) <= 20
    assert all(points[round(point["coverage"], 9)] == point["accuracy"] for point in result["accuracy_coverage"])


def test_smallest_difference_is_that_of_the_package() -> None:
    result = classification_metrics(*_case(80, 4))
    assert result["smallest_difference"] == smallest_detectable_difference(80, result["accuracy"])
    assert classification_metrics(*_case(4, 4))["smallest_difference"] is None


def test_parts_of_many_images_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    case = _case(50, 7)
    whole = classification_metrics(*case)
    monkeypatch.setattr("vitrail.evaluation.probabilities._CHUNK_LOGITS", 30)
    assert classification_metrics(*case) == whole


def test_is_strict_json() -> None:
    logits, labels, classes = _case(30, 7)
    result = classification_metrics(logits, np.where(labels == 6, 0, labels), classes)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_intervals_and_calibration_are_those_of_the_package() -> None:
    logits, labels, classes = _case(60, 4)
    result = classification_metrics(logits, labels, classes)
    num_right = int((logits.argmax(axis=1) == labels).sum())
    assert result["accuracy_ci95"] == list(wilson_interval(num_right, 60))
    assert result["ece"] == expected_calibration_error(softmax(logits), labels)
    for index, row in enumerate(result["per_class"]):
        hits, predicted = result["confusion"][index][index], sum(line[index] for line in result["confusion"])
        assert row["recall_ci95"] == list(wilson_interval(hits, row["images"]))
        assert row["precision_ci95"] == list(wilson_interval(hits, predicted))


def test_class_without_images_is_left_out() -> None:
    logits, labels, _ = _case(40, 3)
    padded = np.concatenate([logits, np.full((40, 2), -50, dtype=np.float32)], axis=1)
    padded[0] = [0, 0, 0, 0, 9]  # predicted once, without any image of its own
    result = classification_metrics(padded, labels, ["a", "b", "c", "never seen", "only predicted"])
    never, predicted = result["per_class"][3:]
    assert never == {
        "class": "never seen", "images": 0, "precision": None, "recall": None, "f1": None, "recall_ci95": None,
        "precision_ci95": None,
    }  # fmt: skip
    assert (predicted["precision"], predicted["recall"], predicted["f1"]) == (0, None, 0)
    recalls = [row["recall"] for row in result["per_class"][:3]]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_balanced_accuracy_weighs_classes_alike() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    always_first = np.tile(np.array([[1, 0]], dtype=np.float32), (100, 1))
    result = classification_metrics(always_first, labels, ["common", "rare"])
    assert (result["accuracy"], result["balanced_accuracy"]) == (0.9, 0.5)


def test_ties_do_not_flatter() -> None:
    result = classification_metrics(np.zeros((10, 10), dtype=np.float32), np.arange(10), list("abcdefghij"))
    assert (result["accuracy"], result["top5_accuracy"]) == (0.1, 0.5)
    assert result["loss"] == pytest.approx(np.log(10))


def test_does_not_depend_on_the_order_of_images() -> None:
    logits, labels, classes = _case(50, 6)
    order = np.random.default_rng(1).permutation(50)
    first = classification_metrics(logits, labels, classes)
    second = classification_metrics(logits[order], labels[order], classes)
    assert second["confusion"] == first["confusion"]
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-12)
    assert second["ece"] == pytest.approx(first["ece"], rel=1e-9)


def test_one_class_and_one_image() -> None:
    result = classification_metrics([[3.0]], [0], ["only"])
    assert (result["images"], result["accuracy"], result["loss"], result["ece"]) == (1, 1, 0, 0)
    assert str(result["loss"]) == "0.0"


def test_huge_logits_are_safe() -> None:
    logits = np.array([[3e38, -3e38], [1e4, 0]], dtype=np.float32)
    assert classification_metrics(logits, [0, 1], ["a", "b"])["loss"] == pytest.approx(5000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_logits_that_are_not_finite(bad: float) -> None:
    logits, labels, classes = _case(10, 3)
    logits[2, 1] = bad
    with pytest.raises(DataError, match="1 of 30 logits are not finite"):
        classification_metrics(logits, labels, classes)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=np.int64), "no images"),
        (np.zeros((2, 3)), np.zeros(2, dtype=np.int64), "do not fit 2 classes"),
        (np.zeros((2, 2)), np.zeros(3, dtype=np.int64), "do not fit 2 classes"),
        (np.zeros(2), np.zeros(2, dtype=np.int64), "do not fit 2 classes"),
        (np.zeros((2, 2)), np.array([0.0, 1.0]), "float64"),
        (np.zeros((2, 2)), np.array([0, 2]), "Label 2"),
        (np.zeros((2, 2)), np.array([0, -1]), "Label -1"),
    ],
)
def test_refuses_what_does_not_fit(logits: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification_metrics(logits, labels, ["a", "b"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature=0"),
        ({"reject_threshold": 1.5}, "reject_threshold=1.5"),
        ({"bootstrap_samples": 0}, "num_samples=0"),
    ],
)
def test_refuses_impossible_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        classification_metrics(*_case(10, 3), **settings)  # pyright: ignore[reportArgumentType]


def test_refuses_groups_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="do not fit 10 images"):
        classification_metrics(*_case(10, 3), groups=["a"])


def test_importing_the_package_stays_light() -> None:
    code = "import sys, vitrail.evaluation; print([m for m in ('scipy', 'sklearn', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
