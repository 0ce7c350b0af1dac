import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import multilabel, multilabel_metrics, sigmoid, validated_sigmoid_temperature
from vitrail.evaluation.multilabel import average_precisions, mean_average_precision

CLASSES = ("sea", "sky", "sun", "tree")


def draw(num_images=200, num_classes=4, seed=0, digits=1):
    """Noisy logits and labels; rounded, so that some scores are equal."""
    numbers = np.random.default_rng(seed)
    labels = (numbers.random((num_images, num_classes)) < 0.3).astype(np.int64)
    return np.round(2 * labels - 1 + 1.5 * numbers.normal(size=labels.shape), digits), labels


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [0, 1, 8])
def test_average_precision_is_that_of_scikit_learn(seed, digits):
    scores, labels = draw(seed=seed, digits=digits)
    expected = sklearn_metrics.average_precision_score(labels, scores, average=None)
    np.testing.assert_allclose(average_precisions(scores, labels), expected, rtol=1e-12)
    mean = sklearn_metrics.average_precision_score(labels, scores, average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(mean, rel=1e-12)


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 1)), min_size=1, max_size=30))
def test_average_precision_of_a_few_images_is_that_of_scikit_learn(rows):
    scores, labels = np.array(rows)[:, :1].astype(float), np.array(rows)[:, 1:]
    (found,) = average_precisions(scores, labels)
    if labels.any():
        assert found == pytest.approx(sklearn_metrics.average_precision_score(labels, scores), rel=1e-12)
    else:
        assert np.isnan(found)
        assert mean_average_precision(scores, labels) is None


def test_shares_are_those_of_scikit_learn():
    scores, labels = draw()
    found = multilabel_metrics(scores, labels, CLASSES, bootstrap_samples=10)
    given_ = (scores > 0).astype(int)
    assert found["accuracy"] == sklearn_metrics.accuracy_score(labels, given_)
    assert found["label_accuracy"] == pytest.approx(1 - sklearn_metrics.hamming_loss(labels, given_))
    assert found["micro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, given_, average="micro"))
    assert found["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, given_, average="macro"))
    balanced = [sklearn_metrics.balanced_accuracy_score(labels[:, k], given_[:, k]) for k in range(4)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    probabilities = sigmoid(scores)
    losses = [sklearn_metrics.log_loss(labels[:, k], probabilities[:, k]) for k in range(4)]
    assert found["loss"] == pytest.approx(np.mean(losses))
    for k, row in enumerate(found["per_class"]):
        assert row["precision"] == pytest.approx(sklearn_metrics.precision_score(labels[:, k], given_[:, k]))
        assert row["recall"] == pytest.approx(sklearn_metrics.recall_score(labels[:, k], given_[:, k]))
        assert row["f1"] == pytest.approx(sklearn_metrics.f1_score(labels[:, k], given_[:, k]))
        assert row["images"] == labels[:, k].sum()


def test_the_keys_and_their_order():
    scores, labels = draw()
    found = multilabel_metrics(scores, labels, CLASSES, temperature=2.0, bootstrap_samples=10)
    assert list(found) == [
        *("images", "accuracy", "accuracy_ci95", "accuracy_bootstrap_ci95", "label_accuracy"),
        *("mean_average_precision", "mean_average_precision_ci95", "balanced_accuracy", "micro_f1", "macro_f1"),
        *("loss", "ece"),
        *("loss_uncalibrated", "ece_uncalibrated", "temperature", "smallest_difference", "per_class"),
    ]
    assert [row["class"] for row in found["per_class"]] == list(CLASSES)
    low, high = found["mean_average_precision_ci95"]
    assert low < found["mean_average_precision"] < high


def test_an_image_drawn_several_times_counts_as_often(monkeypatch):
    scores, labels = draw(60, 2)
    drawn = np.random.default_rng(7).integers(0, 60, (400, 60))
    times = np.stack([np.bincount(rows, minlength=60) for rows in drawn])
    monkeypatch.setattr(multilabel, "_draw", lambda *arguments: iter([times[:150], times[150:]]))
    found = multilabel_metrics(scores, labels, CLASSES[:2], bootstrap_samples=400)
    samples = [mean_average_precision(scores[rows], labels[rows]) for rows in drawn]
    expected = np.quantile(samples, [0.025, 0.975])
    np.testing.assert_allclose(found["mean_average_precision_ci95"], expected, rtol=1e-12)


def test_groups_are_drawn_whole():
    scores, labels = draw(40, 2)
    again = [np.repeat(array, 5, axis=0) for array in (scores, labels)]
    found = multilabel_metrics(*again, CLASSES[:2], groups=np.repeat(np.arange(40), 5))
    alone = multilabel_metrics(scores, labels, CLASSES[:2])
    assert (found["images"], found["groups"], found["interval_method"]) == (200, 40, "bootstrap of groups")
    assert found["accuracy_bootstrap_ci95"] == pytest.approx(alone["accuracy_bootstrap_ci95"])
    assert found["mean_average_precision_ci95"] == pytest.approx(alone["mean_average_precision_ci95"], abs=0.02)
    assert found["accuracy_ci95"][0] <= found["accuracy_bootstrap_ci95"][0]
    assert found["accuracy_ci95"][1] >= found["accuracy_bootstrap_ci95"][1]
    single = multilabel_metrics(*again, CLASSES[:2])
    assert np.diff(single["mean_average_precision_ci95"]) < 0.6 * np.diff(found["mean_average_precision_ci95"])


def test_what_nothing_is_known_of_is_none():
    scores, labels = draw(20, 4)
    labels[:, 1] = 0
    scores[:, 1] = -1
    row = multilabel_metrics(scores, labels, CLASSES, bootstrap_samples=10)["per_class"][1]
    nothing = dict.fromkeys(("average_precision", "precision", "recall", "f1", "recall_ci95", "precision_ci95"))
    assert row == {"class": "sky", "images": 0, **nothing}
    empty = multilabel_metrics(-np.ones((3, 2)), np.zeros((3, 2), int), ("a", "b"))
    assert (empty["accuracy"], empty["label_accuracy"]) == (1.0, 1.0)
    for key in ("mean_average_precision", "mean_average_precision_ci95", "balanced_accuracy", "micro_f1", "macro_f1"):
        assert empty[key] is None, key


def test_every_image_with_a_label_leaves_its_recall():
    found = multilabel_metrics([[1.0], [-1.0]], [[1], [1]], ("a",), bootstrap_samples=5)
    assert found["balanced_accuracy"] == 0.5


def test_temperature_mends_what_is_too_sure():
    scores, labels = draw(400)
    temperature = validated_sigmoid_temperature(4 * scores, labels)
    assert temperature == pytest.approx(4 * validated_sigmoid_temperature(scores, labels), rel=0.05)
    found = multilabel_metrics(4 * scores, labels, CLASSES, temperature=temperature, bootstrap_samples=5)
    assert found["loss"] < found["loss_uncalibrated"]
    assert found["ece"] < found["ece_uncalibrated"]
    best = min(np.geomspace(0.5, 20, 2000), key=lambda t: multilabel_loss(4 * scores / t, labels))
    assert temperature == pytest.approx(best, rel=0.01)


def multilabel_loss(scores, labels):
    return np.logaddexp(0, np.where(labels, -scores, scores)).mean()


def test_no_temperature_where_every_decision_is_right_or_images_are_few():
    labels = np.eye(4, dtype=int)[np.arange(40) % 4]
    assert validated_sigmoid_temperature(labels * 2.0 - 1, labels) == 1.0
    scores, labels = draw(8)
    assert validated_sigmoid_temperature(9 * scores, labels) == 1.0


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((3, 4)), np.zeros(3, int), r"Logits \(3, 4\) and labels \(3,\) do not fit 4 classes"),
        (np.zeros((3, 2)), np.zeros((3, 2), int), r"do not fit 4 classes; give \(images, 4\) for both"),
        (np.zeros((0, 4)), np.zeros((0, 4), int), "There are no images to evaluate"),
        (np.zeros((1, 4)), np.full((1, 4), 2), "Some labels are neither 0 nor 1"),
        (np.full((1, 4), np.nan), np.zeros((1, 4), int), "4 of 4 logits are not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(logits, labels, message):
    with pytest.raises(DataError, match=message):
        multilabel_metrics(logits, labels, CLASSES)


def test_settings_that_are_not_possible_are_refused():
    with pytest.raises(ConfigError, match="temperature=0 is not a number above 0"):
        multilabel_metrics(*draw(5), CLASSES, temperature=0, bootstrap_samples=5)
    with pytest.raises(ConfigError, match="num_samples=0 is too few"):
        multilabel_metrics(*draw(5), CLASSES, bootstrap_samples=0)
