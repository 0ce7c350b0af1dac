"""How much of the classes each layer of a model knows: a linear classifier on each one's vectors."""

# Shapes: N images, D width of a layer's vectors, L layers
# scikit-learn brings no type annotations.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitrail.errors import DataError
from vitrail.evaluation.intervals import wilson_interval
from vitrail.evaluation.probes import Labelled

# scikit-learn's alpha for standardised values; the best of them on training images that are left out one at a time.
STRENGTHS = (1.0, 10.0, 100.0, 1000.0, 10000.0)


class LayerProbes(NamedTuple):
    """How well a linear classifier on each layer does, ready for `draw_layer_probes`."""

    accuracies: NDArray[np.float64]
    """on the images that it was not trained on, (L,) fractions"""
    intervals: NDArray[np.float64]
    """their 95 % intervals by Wilson's formula, (L, 2)"""
    strengths: tuple[float, ...]
    """of the regularisation that was chosen for each layer"""
    chance: float
    """the accuracy of always naming the commonest class"""
    balanced: NDArray[np.float64]
    """the mean over classes of the share of their images that is right, (L,)"""


def probe_layers(train: Sequence[Labelled], validation: Sequence[Labelled]) -> LayerProbes:
    """The accuracy on `validation` of a ridge classifier on the vectors of each layer, trained on `train`.

    Both have a part for each layer. Values are standardised by the training vectors; the strength is chosen among the
    training images alone, leaving one out at a time, so that validation images are only read. A ridge classifier has a
    closed form: on MNIST it took a thirtieth of the time of `linear_probe` and ranked layers alike. Alain and Bengio
    2017. Raises DataError for training images of one class, or no images to read it on.
    """
    hits = np.array([_hits(*parts) for parts in zip(train, validation, strict=True)])
    number = len(validation[0].labels)
    intervals = np.array([wilson_interval(int(right), number) for right in hits[:, 0]])
    chance = float(np.unique(validation[0].labels, return_counts=True)[1].max() / number)
    return LayerProbes(hits[:, 0] / number, intervals, tuple(hits[:, 1].tolist()), chance, hits[:, 2])


def balanced_accuracy(right: NDArray[np.bool_], labels: NDArray[np.int64]) -> float:
    """The mean over the classes that have images of the share of these that is right."""
    counts = np.bincount(labels)
    return float((np.bincount(labels, weights=right)[counts > 0] / counts[counts > 0]).mean())


def _hits(train: Labelled, validation: Labelled) -> tuple[float, float, float]:
    """How many validation images are right, the strength that was chosen, and the balanced accuracy."""
    from sklearn.linear_model import RidgeClassifierCV

    if len(np.unique(train.labels)) < 2:
        raise DataError("The training images are of one class; a probe needs two or more")
    if not len(validation.labels):
        raise DataError("There are no validation images to read the probes on")
    features = train.features.astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation[deviation < 1e-12 * max(1.0, float(np.abs(mean).max()))] = 1.0  # a value that never changes
    model = RidgeClassifierCV(alphas=STRENGTHS).fit((features - mean) / deviation, train.labels)
    predictions = np.asarray(model.predict((validation.features.astype(np.float64) - mean) / deviation))
    right = np.asarray(predictions == validation.labels, bool)
    return int(right.sum()), float(model.alpha_ or 0.0), balanced_accuracy(right, validation.labels)
