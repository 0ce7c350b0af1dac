import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from vitrail.errors import DataError
from vitrail.evaluation.intervals import wilson_interval
from vitrail.evaluation.probes import Labelled
from vitrail.interpretation.layer_probes import probe_layers


def layers(number: int, seed: int) -> list[Labelled]:
    """Vectors of three layers, of which each knows more of three classes than the one before."""
    numbers = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    centres = np.random.default_rng(9).normal(size=(3, 6))
    return [
        Labelled((known * centres[labels] + numbers.normal(size=(number, 6))).astype(np.float32), labels)
        for known in (0.0, 0.7, 4.0)
    ]


def test_later_layers_know_more():
    found = probe_layers(layers(150, 0), layers(90, 1))
    assert (np.diff(found.accuracies) > 0.1).all()
    assert found.accuracies[0] < 0.5
    assert found.accuracies[2] > 0.95
    assert found.chance == pytest.approx(1 / 3)
    for accuracy, interval in zip(found.accuracies, found.intervals, strict=True):
        assert interval.tolist() == [*wilson_interval(round(accuracy * 90), 90)]


def test_accuracies_are_scikit_learns():
    train, validation = layers(150, 0), layers(90, 1)
    found = probe_layers(train, validation)
    for place, strength in enumerate(found.strengths):
        mean, deviation = train[place].features.mean(axis=0), train[place].features.std(axis=0)
        model = RidgeClassifier(alpha=strength).fit((train[place].features - mean) / deviation, train[place].labels)
        expected = model.score((validation[place].features - mean) / deviation, validation[place].labels)
        assert found.accuracies[place] == pytest.approx(expected)


def test_units_and_values_that_never_change_do_not_matter():
    train, validation = layers(60, 0), layers(30, 1)

    def changed(parts):
        return [
            Labelled(np.hstack([1e3 * part.features, np.full((len(part.labels), 1), 5.0)]), part.labels)
            for part in parts
        ]

    np.testing.assert_allclose(
        probe_layers(changed(train), changed(validation)).accuracies, probe_layers(train, validation).accuracies
    )


def test_too_little_to_learn_from():
    train, validation = layers(60, 0), layers(30, 1)
    alone = [part._replace(labels=0 * part.labels) for part in train]
    with pytest.raises(DataError, match="The training images are of one class"):
        probe_layers(alone, validation)
    nothing = [Labelled(part.features[:0], part.labels[:0]) for part in validation]
    with pytest.raises(DataError, match="There are no validation images to read the probes on"):
        probe_layers(train, nothing)
