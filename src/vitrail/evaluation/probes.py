"""How much a frozen model's vectors say of the classes: a linear classifier on them, and their nearest neighbours.

Both learn from training images, choose their one setting on validation images, and meet the test images once.
"""

# Shapes: N images, D width of a vector
# scikit-learn brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation.intervals import wilson_interval

# Strongest regularisation first; scikit-learn's C, which divides it.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
NEIGHBOURS = (20, 10, 5, 1, 50, 100, 200)  # the usual number first: it wins where others are no better
TEMPERATURE = 0.07
MOST_STEPS = 1000  # of the optimizer; what is not at its end by then is as good as it gets
_BATCH_VALUES = 2**24  # likenesses held at once: 64 MiB


class Labelled(NamedTuple):
    """Vectors (N, D) float, and the label (N,) of each in 0, 1, 2, ..."""

    features: NDArray[Any]
    labels: NDArray[np.int64]


def linear_probe(
    train: Labelled, validation: Labelled, test: Labelled, strengths: Sequence[float] = STRENGTHS
) -> dict[str, Any]:
    """How well a logistic regression on the vectors tells the classes apart.

    Values are standardised by the training vectors; `C` is the first of `strengths` that is best on validation. Gives
    it and, for validation and test, images and accuracy in 0..1 with its 95 % interval. Raises DataError for vectors
    and labels that do not fit, or one class only. Alain and Bengio 2017; Radford et al. 2021 (CLIP), appendix A.3.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    _check(train, validation, test)
    scaler = StandardScaler().fit(train.features.astype(np.float64))
    learned, chosen, tested = (scaler.transform(part.features.astype(np.float64)) for part in (train, validation, test))
    best: Any = None
    fewest_wrong, strength = len(validation.labels) + 1, 0.0
    for candidate in strengths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=candidate, max_iter=MOST_STEPS).fit(learned, train.labels)
        num_wrong = int((model.predict(chosen) != validation.labels).sum())
        if num_wrong < fewest_wrong:
            best, fewest_wrong, strength = model, num_wrong, candidate
    return {
        "method": "linear",
        "C": strength,
        "train": {"images": len(train.labels)},
        "validation": _accuracy(best.predict(chosen), validation.labels),
        "test": _accuracy(best.predict(tested), test.labels),
    }


def knn(
    train: Labelled,
    validation: Labelled,
    test: Labelled,
    neighbours: Sequence[int] = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> dict[str, Any]:
    """How well an image's most similar training images tell its class: nothing is learned.

    Likeness is the cosine of two vectors; each of the `k` nearest votes for its class with the weight
    exp(likeness / temperature), and `k` is the first of `neighbours` that is best on validation. Gives the same as
    `linear_probe` with `k` and `temperature`, and raises the same. Wu et al. 2018, section 3.4; Caron et al. 2021
    (DINO), section 4.1.
    """
    _check(train, validation, test)
    if not neighbours or min(neighbours) < 1 or not temperature > 0:
        raise ConfigError(
            f"neighbours={neighbours} and temperature={temperature} must be positive; 20 and 0.07 are usual"
        )
    possible = [k for k in neighbours if k <= len(train.labels)] or [len(train.labels)]
    voted = _votes(train, validation.features, possible, temperature)
    num_wrong = [int((predictions != validation.labels).sum()) for predictions in voted]
    best = int(np.argmin(num_wrong))
    (tested,) = _votes(train, test.features, possible[best : best + 1], temperature)
    return {
        "method": "knn",
        "k": possible[best],
        "temperature": temperature,
        "train": {"images": len(train.labels)},
        "validation": _accuracy(voted[best], validation.labels),
        "test": _accuracy(tested, test.labels),
    }


def _votes(
    train: Labelled, features: NDArray[Any], neighbours: Sequence[int], temperature: float
) -> list[NDArray[np.int64]]:
    """The class that the nearest training images vote for, for each number of these."""
    num_classes = int(train.labels.max()) + 1
    known = _normalized(train.features)
    found: list[list[NDArray[np.int64]]] = [[] for _ in neighbours]
    for part in _parts(_normalized(features), len(known)):
        likeness = part @ known.T
        most = max(neighbours)
        nearest = np.argpartition(-likeness, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(likeness, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        likeness = np.take_along_axis(likeness, nearest, axis=1).astype(np.float64)
        weights = np.exp((likeness - likeness[:, :1]) / temperature)  # by the nearest one's, which changes no vote
        for place, number in enumerate(neighbours):
            votes = np.zeros((len(part), num_classes))
            rows = np.arange(len(part))[:, None]
            np.add.at(votes, (rows, train.labels[nearest[:, :number]]), weights[:, :number])
            found[place].append(votes.argmax(axis=1))
    return [np.concatenate(parts) for parts in found]


def _normalized(features: NDArray[Any]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(lengths, 1e-12)).astype(np.float32)


def _parts(features: NDArray[np.float32], num_known: int) -> Iterator[NDArray[np.float32]]:
    step = max(1, _BATCH_VALUES // num_known)
    return (features[start : start + step] for start in range(0, len(features), step))


def _accuracy(predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, Any]:
    hits = int((predictions == labels).sum())
    return {
        "images": len(labels),
        "accuracy": hits / len(labels),
        "accuracy_ci95": list(wilson_interval(hits, len(labels))),
    }


def _check(*parts: Labelled) -> None:
    """Raise DataError unless every part has vectors of one width with a label each, and training several classes."""
    widths = {part.features.shape[1:] for part in parts}
    for part in parts:
        if part.features.ndim != 2 or len(part.features) != len(part.labels) or not len(part.labels) or len(widths) > 1:
            raise DataError(
                f"Vectors {part.features.shape} and labels {part.labels.shape} do not fit; give (images, width) of one "
                "width and (images,), at least one image for training, validation and test each"
            )
        if not np.isfinite(part.features).all():
            raise DataError("Some vectors hold values that are not finite; the model that made them is damaged")
    if len(np.unique(parts[0].labels)) < 2:
        raise DataError("The training images are of one class; a probe needs two or more")
