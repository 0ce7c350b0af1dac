"""Labels that are probably wrong: confident learning on predictions for images that the predictor has not learned from.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70.
"""

# Shapes: N images, K classes, D width of a vector
# scikit-learn brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import DataError

# How many times as probable as the label another class must be. The paper has no such number, and takes a weak
# predictor's mistakes for those of the labels; 20 was measured to be right two to four times as often there, at half
# to three quarters of what is found (clothing and CIFAR-10).
LEAST_RATIO = 20.0
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # strongest regularisation first; scikit-learn's C, which divides it
MOST_STEPS = 60  # of the optimizer: later ones change no ranking
MOST_CHOSEN_ON = 5000  # images that the strength is chosen on
_LEAST = 1e-6  # a probability below is not known any better


class LabelIssue(NamedTuple):
    """A label that is probably wrong: the image's index, its label, the class it seems to be, and why.

    `label_probability` and `probability` are those of the two classes, in 0..1.
    """

    image: int
    label: int
    suggested: int
    label_probability: float
    probability: float

    @property
    def ratio(self) -> float:
        """How many times as probable the suggested class is."""
        return max(self.probability, _LEAST) / max(self.label_probability, _LEAST)


def confident_joint(probabilities: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many images of each label (rows) are of each class (columns), estimated: (K, K), rows sum to the labels'.

    probabilities (N, K) are of predictors that have not seen the image. An image counts for the most probable of the
    classes whose threshold it reaches, which is the mean probability of a class among the images labelled so. The rows
    are scaled to the number of images of each label. Equations 1 and 2 of the paper.
    """
    reached, confident = _confident_classes(probabilities, labels)
    num_classes = probabilities.shape[1]
    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (labels[reached], confident[reached]), 1)
    totals = np.bincount(labels, minlength=num_classes)
    nobody = counts.sum(axis=1) == 0
    counts[nobody, nobody] = 1  # a class that nothing is confident of keeps its images
    return counts / counts.sum(axis=1, keepdims=True) * totals[:, None]


def find_label_issues(
    probabilities: NDArray[Any], labels: NDArray[np.int64], least_ratio: float = LEAST_RATIO
) -> list[LabelIssue]:
    """The images whose labels are probably wrong, the surest first.

    probabilities (N, K) are of predictors that have not seen the image. As many images are taken as the confident joint
    says are wrong: of each label those least probable for it, and of each pair of classes those most on the side of the
    other; both must agree ("C+NR" of the paper, section 4). Besides, the class that is most probable must be so
    `least_ratio` times as much as the label. Raises DataError for arrays that do not fit.
    """
    _check(probabilities, labels)
    if not len(labels):
        return []
    joint = confident_joint(probabilities, labels)
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    by_class, by_pair = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for label in range(len(joint)):
        members = np.flatnonzero(labels == label)
        wrong = joint[label].copy()
        wrong[label] = 0
        by_class[_lowest(members, own[members], wrong.sum())] = True
        for other in np.flatnonzero(wrong).tolist():
            by_pair[_lowest(members, own[members] - probabilities[members, other], wrong[other])] = True
    best = probabilities.argmax(axis=1)
    issues = [
        LabelIssue(index, int(labels[index]), int(best[index]), float(own[index]), float(probabilities[index].max()))
        for index in np.flatnonzero(by_class & by_pair & (best != labels)).tolist()
    ]
    return sorted((issue for issue in issues if issue.ratio >= least_ratio), key=lambda issue: -issue.ratio)


def out_of_fold(
    vectors: NDArray[Any],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    report: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Probabilities (N, K) of logistic regressions on vectors (N, D), each image's by one that learned without it.

    folds (N,) say which part of the images each is in; every part is answered by the others. Values are standardised;
    the strength of the regularisation is that of the lowest loss on the first part. `report` hears how many images are
    answered. Raises DataError for arrays that do not fit, or where a class is in one fold alone.
    """
    if len(vectors) != len(labels) or len(folds) != len(labels) or vectors.ndim != 2:
        raise DataError(
            f"Vectors {vectors.shape}, labels {labels.shape} and folds {folds.shape} do not fit; give (N, D), (N,) "
            "and (N,)"
        )
    if not np.isfinite(vectors).all():
        raise DataError("Some vectors hold values that are not finite; the model that made them is damaged")
    num_classes = int(labels.max(initial=0)) + 1
    parts = np.unique(folds).tolist()
    for part in parts:
        if len(np.unique(labels[folds != part])) < num_classes or num_classes < 2:
            raise DataError("A class is in one fold alone, or there is one class; give each class to several folds")
    values = np.asarray(vectors, np.float32)
    values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-6)
    strength = _best_strength(values, labels, folds == parts[0])
    probabilities = np.zeros((len(labels), num_classes))
    done = 0
    for part in parts:
        held = folds == part
        probabilities[held] = _answers(values[~held], labels[~held], values[held], strength)
        done += int(held.sum())
        if report is not None:
            report(done, len(labels))
    return probabilities


def _confident_classes(
    probabilities: NDArray[Any], labels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each image reaches the threshold of any class, and the most probable of the classes that it does."""
    num_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    totals = np.bincount(labels, minlength=num_classes)
    thresholds = np.bincount(labels, own, minlength=num_classes) / np.maximum(totals, 1)
    thresholds[totals == 0] = np.inf  # nothing is of a class that no image is labelled as
    # A mean of equal values may come out a last bit above them.
    above = np.where(probabilities >= thresholds * (1 - 1e-12), probabilities, -1.0)
    return above.max(axis=1) >= 0, above.argmax(axis=1)


def _lowest(members: NDArray[np.int64], scores: NDArray[Any], number: float) -> NDArray[np.int64]:
    """The members of the lowest scores, so many of them, rounded."""
    return members[np.argsort(scores, kind="stable")[: round(number)]]


def _best_strength(values: NDArray[Any], labels: NDArray[np.int64], held: NDArray[np.bool_]) -> float:
    """The strength of the lowest loss on the held images, looked for from the middle one on, both ways."""
    learned, asked = np.flatnonzero(~held), np.flatnonzero(held)
    if len(learned) > MOST_CHOSEN_ON:
        learned = np.random.default_rng(0).permutation(learned)[:MOST_CHOSEN_ON]
    asked = asked[np.isin(labels[asked], labels[learned])][:MOST_CHOSEN_ON]
    classes, own = np.unique(labels[learned], return_inverse=True)
    truth = np.searchsorted(classes, labels[asked])

    def loss(place: int) -> float:
        if not 0 <= place < len(STRENGTHS):
            return np.inf
        found = _answers(values[learned], own, values[asked], STRENGTHS[place])
        return -float(np.log(np.maximum(found[np.arange(len(asked)), truth], _LEAST)).mean())

    place = len(STRENGTHS) // 2
    least = loss(place)
    for step in (-1, 1):
        moved = False
        while (found := loss(place + step)) < least:
            place, least, moved = place + step, found, True
        if moved:  # the loss has one valley
            break
    return STRENGTHS[place]


def _answers(
    values: NDArray[Any], labels: NDArray[np.int64], asked: NDArray[Any], strength: float
) -> NDArray[np.float64]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MOST_STEPS).fit(values, labels).predict_proba(asked)


def _check(probabilities: NDArray[Any], labels: NDArray[np.int64]) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise DataError(
            f"Probabilities {probabilities.shape} and labels {labels.shape} do not fit; give (images, classes) and "
            "(images,)"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < probabilities.shape[1]:
        raise DataError(f"Labels from {labels.min()} to {labels.max()} do not fit {probabilities.shape[1]} classes")
    if not np.isfinite(probabilities).all():
        raise DataError("Some probabilities are not finite; the model that made them is damaged")
