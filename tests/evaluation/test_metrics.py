"""Metrics of a split, held equal to scikit-learn's."""

import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from vitrail.errors import DataError
from vitrail.evaluation import classification_metrics, expected_calibration_error, softmax, wilson_interval


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


def test_keys_and_their_order() -> None:
    few = classification_metrics(*_case(20, 5))
    many = classification_metrics(*_case(20, 6))
    keys = ["images", "accuracy", "accuracy_ci95", "balanced_accuracy", "loss", "ece", "per_class", "confusion"]
    assert list(few) == keys
    assert list(many) == [*keys[:6], "top5_accuracy", *keys[6:]]
    assert list(few["per_class"][0]) == ["class", "images", "precision", "recall", "f1", "recall_ci95"]


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
        assert row["recall_ci95"] == list(wilson_interval(result["confusion"][index][index], row["images"]))


def test_class_without_images_is_left_out() -> None:
    logits, labels, _ = _case(40, 3)
    padded = np.concatenate([logits, np.full((40, 2), -50, dtype=np.float32)], axis=1)
    padded[0] = [0, 0, 0, 0, 9]  # predicted once, without any image of its own
    result = classification_metrics(padded, labels, ["a", "b", "c", "never seen", "only predicted"])
    never, predicted = result["per_class"][3:]
    assert never == {
        "class": "never seen", "images": 0, "precision": None, "recall": None, "f1": None, "recall_ci95": None
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
    assert softmax(logits).tolist() == [[1, 0], [1, 0]]
    assert classification_metrics(logits, [0, 1], ["a", "b"])["loss"] == pytest.approx(5000)


def test_softmax_is_float64_and_sums_to_one() -> None:
    probabilities = softmax(np.random.default_rng(0).normal(0, 30, size=(2, 5, 9)).astype(np.float32))
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-14)
    assert softmax([0.0, np.log(3)]) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_logits_that_are_not_finite(bad: float) -> None:
    logits, labels, classes = _case(10, 3)
    logits[2, 1] = bad
    with pytest.raises(DataError, match="1 of 30 logits are not finite"):
        classification_metrics(logits, labels, classes)
    with pytest.raises(DataError, match="1 of 30 logits are not finite"):
        softmax(logits)


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


def test_importing_the_package_stays_light() -> None:
    code = "import sys, vitrail.evaluation; print([m for m in ('scipy', 'sklearn', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
