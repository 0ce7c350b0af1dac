import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vitrail.errors import DataError
from vitrail.evaluation import label_issues
from vitrail.evaluation.label_issues import confident_joint, find_label_issues, out_of_fold

# Figure 1 of Northcutt et al. 2021: images labelled dog, fox, cow (rows), counted for each class (columns).
PAPER_COUNTS = np.array([[100, 40, 20], [56, 60, 0], [32, 12, 80]])
PAPER_JOINT = np.array([[0.25, 0.1, 0.05], [0.14, 0.15, 0], [0.08, 0.03, 0.2]])


def sure_of(classes: np.ndarray, num_classes: int = 3) -> np.ndarray:
    """Probabilities that are all for one class."""
    return np.eye(num_classes)[classes]


def of_counts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the classes that predictors are sure of, of images so many."""
    labels, classes = np.nonzero(counts)
    return np.repeat(labels, counts[labels, classes]), np.repeat(classes, counts[labels, classes])


def test_the_papers_worked_example():
    labels, classes = of_counts(PAPER_COUNTS)
    joint = confident_joint(sure_of(classes), labels)
    np.testing.assert_allclose(joint, PAPER_COUNTS, atol=1e-9)
    np.testing.assert_allclose(joint / joint.sum(), PAPER_JOINT, atol=0.005)


def test_rows_of_the_joint_are_scaled_to_the_images_of_each_label():
    labels, classes = of_counts(PAPER_COUNTS)
    probabilities = sure_of(classes)
    unsure = np.full((160, 3), 1 / 3)  # of dogs; below the threshold of every class, so counted for none
    joint = confident_joint(np.concatenate([probabilities, unsure]), np.concatenate([labels, np.zeros(160, np.int64)]))
    np.testing.assert_allclose(joint.sum(axis=1), [320, 116, 124])
    np.testing.assert_allclose(joint[0], 2 * PAPER_COUNTS[0])


def test_the_threshold_of_a_class_is_the_mean_of_those_labelled_so():
    # Thresholds 0.7 and 0.8. The last image reaches both and counts for the more probable; the third reaches none.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    labels = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(confident_joint(probabilities, labels), [[3, 0], [0, 1]])


def test_a_class_without_images_gets_none():
    joint = confident_joint(sure_of(np.array([0, 1, 2, 2])), np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(joint, [[2, 0, 0], [0, 2, 0], [0, 0, 0]])


def noisy(rng: np.random.Generator, wrong: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities of a good predictor of classes that the labels are not, where they are wrong."""
    classes = np.where(wrong, (labels + 1) % 3, labels)
    probabilities = rng.dirichlet(np.ones(3), len(labels)) * 0.04
    probabilities[np.arange(len(labels)), classes] += 0.96
    return probabilities


def test_planted_faults_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    wrong = rng.random(300) < 0.08
    issues = find_label_issues(noisy(rng, wrong, labels), labels)
    assert {issue.image for issue in issues} == {*np.flatnonzero(wrong).tolist()}
    assert all(issue.label == labels[issue.image] for issue in issues)
    assert all(issue.suggested == (labels[issue.image] + 1) % 3 for issue in issues)
    ratios = [issue.ratio for issue in issues]
    assert ratios == sorted(ratios, reverse=True)
    assert min(ratios) >= label_issues.LEAST_RATIO


def test_nothing_is_found_where_predictions_agree():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    assert find_label_issues(noisy(rng, np.zeros(200, bool), labels), labels) == []
    assert find_label_issues(np.zeros((0, 3)), np.zeros(0, np.int64)) == []


def test_only_what_is_much_more_probable_is_told():
    labels = np.array([0] * 6 + [1] * 6)
    probabilities = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    probabilities[0] = [0.05, 0.95]
    assert find_label_issues(probabilities, labels) == []
    (issue,) = find_label_issues(probabilities, labels, least_ratio=10)
    assert (issue.image, issue.suggested) == (0, 1)
    assert issue.ratio == pytest.approx(19)


@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_names_of_classes_and_the_order_of_images_change_nothing(seed, classes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 60)
    probabilities = rng.dirichlet(np.full(3, 0.3), 60)
    order = rng.permutation(60)
    found = find_label_issues(probabilities, labels, 1.0)
    renamed = np.empty_like(probabilities)
    renamed[:, classes] = probabilities
    other = find_label_issues(renamed[order], np.array(classes)[labels][order], 1.0)
    assert {issue.image for issue in found} == {int(order[issue.image]) for issue in other}


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(150) % 3
    vectors = 3.0 * np.eye(3)[labels] @ rng.normal(size=(3, 5)) + rng.normal(size=(150, 5))
    return vectors * [1, 10, 100, 1, 1] + 7, labels, rng.permutation(np.arange(150) % 5)


def test_each_image_is_answered_by_those_of_other_folds(monkeypatch):
    monkeypatch.setattr(label_issues, "STRENGTHS", (0.1,))
    vectors, labels, folds = blobs()
    heard = []
    found = out_of_fold(vectors, labels, folds, lambda done, total: heard.append((done, total)))
    values = StandardScaler().fit_transform(vectors).astype(np.float32)
    for fold in range(5):
        model = LogisticRegression(C=0.1, max_iter=1000).fit(values[folds != fold], labels[folds != fold])
        expected = model.predict_proba(values[folds == fold])
        np.testing.assert_allclose(found[folds == fold], expected, atol=2e-3)
    assert heard == [(30, 150), (60, 150), (90, 150), (120, 150), (150, 150)]


def test_an_images_own_label_does_not_change_its_answer():
    vectors, labels, folds = blobs()
    before = out_of_fold(vectors, labels, folds)
    changed = labels.copy()
    members = np.flatnonzero(folds == 4)  # the strength is chosen on the first
    changed[members[0]] = (changed[members[0]] + 1) % 3
    after = out_of_fold(vectors, changed, folds)
    np.testing.assert_array_equal(before[members], after[members])


def test_labels_of_vectors_are_checked():
    vectors, labels, folds = blobs()
    wrong = labels.copy()
    wrong[[3, 40, 77]] = (labels[[3, 40, 77]] + 1) % 3
    issues = find_label_issues(out_of_fold(vectors, wrong, folds), wrong)
    assert {3, 40, 77} >= {issue.image for issue in issues}
    assert len(issues) >= 2


def test_what_does_not_fit_is_refused():
    vectors, labels, folds = blobs()
    with pytest.raises(DataError, match=r"^Vectors \(149, 5\), labels \(150,\) and folds \(150,\) do not fit"):
        out_of_fold(vectors[1:], labels, folds)
    with pytest.raises(DataError, match=r"^A class is in one fold alone"):
        out_of_fold(vectors, labels, np.where(labels == 2, 0, folds % 2))
    with pytest.raises(DataError, match=r"not finite; the model that made them is damaged$"):
        out_of_fold(np.where(vectors > 90, np.nan, vectors), labels, folds)
    with pytest.raises(DataError, match=r"^Probabilities \(4, 3\) and labels \(5,\) do not fit"):
        find_label_issues(np.zeros((4, 3)), np.zeros(5, np.int64))
    with pytest.raises(DataError, match=r"^Labels from 0 to 3 do not fit 3 classes$"):
        find_label_issues(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(DataError, match=r"^Some probabilities are not finite"):
        find_label_issues(np.full((2, 3), np.nan), np.array([0, 1]))
