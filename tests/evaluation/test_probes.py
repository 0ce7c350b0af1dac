import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vitrail.errors import ConfigError, DataError
from vitrail.evaluation import probes, wilson_interval
from vitrail.evaluation.probes import Labelled, knn, linear_probe

CLASSES, WIDTH = 4, 6


def clouds(count: int, seed: int, spread: float = 1.5, num_classes: int = CLASSES) -> Labelled:
    """Points around one centre a class, of values of very different size, as clouds that overlap."""
    numbers = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(num_classes, WIDTH))
    labels = numbers.integers(0, num_classes, count)
    features = (centres[labels] + spread * numbers.normal(size=(count, WIDTH))) * 10.0 ** np.arange(-1, WIDTH - 1)
    return Labelled(features.astype(np.float32), labels)


def parts(**settings) -> tuple[Labelled, Labelled, Labelled]:
    return clouds(150, 1, **settings), clouds(80, 2, **settings), clouds(120, 3, **settings)


def test_the_linear_probe_is_the_pipeline_of_scikit_learn():
    train, validation, test = parts()
    models = {
        strength: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(
            train.features.astype(np.float64), train.labels
        )
        for strength in probes.STRENGTHS
    }
    scores = {strength: model.score(validation.features, validation.labels) for strength, model in models.items()}
    assert len({*scores.values()}) > 2
    found = linear_probe(train, validation, test)
    best = max(scores, key=scores.__getitem__)  # the first of equals, which is regularised most
    assert (found["method"], found["C"]) == ("linear", best)
    assert found["validation"]["accuracy"] == pytest.approx(scores[best])
    assert found["test"]["accuracy"] == pytest.approx(models[best].score(test.features, test.labels))
    assert 0.4 < found["test"]["accuracy"] < 0.99
    hits = round(found["test"]["accuracy"] * 120)
    assert found["test"] == {"images": 120, "accuracy": hits / 120, "accuracy_ci95": list(wilson_interval(hits, 120))}
    assert (found["train"], found["validation"]["images"]) == ({"images": 150}, 80)


@pytest.mark.parametrize("batch", [1, 400, 2**24])
def test_knn_is_that_of_scikit_learn(monkeypatch, batch):
    monkeypatch.setattr(probes, "_BATCH_VALUES", batch)
    train, validation, test = parts()
    chosen = (20, 10, 5, 1, 50, 100)  # of 150 images to learn from there are no 200 nearest
    models = {
        number: KNeighborsClassifier(
            number, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
        ).fit(train.features, train.labels)
        for number in chosen
    }
    scores = {number: model.score(validation.features, validation.labels) for number, model in models.items()}
    assert len({*scores.values()}) > 2
    found = knn(train, validation, test)
    best = max(scores, key=scores.__getitem__)
    assert (found["method"], found["k"], found["temperature"]) == ("knn", best, 0.07)
    assert found["validation"]["accuracy"] == pytest.approx(scores[best])
    assert found["test"]["accuracy"] == pytest.approx(models[best].score(test.features, test.labels))
    for number in chosen:
        alone = knn(train, validation, test, (number,))
        assert alone["test"]["accuracy"] == pytest.approx(models[number].score(test.features, test.labels))


def test_knn_written_as_loops():
    train, validation, test = parts(spread=2.5)
    wrong = 0
    for vector, label in zip(test.features.astype(np.float64), test.labels, strict=True):
        likeness = [float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)) for other in train.features]
        votes = [0.0] * CLASSES
        for place in sorted(range(150), key=lambda place: -likeness[place])[:7]:
            votes[train.labels[place]] += np.exp(likeness[place] / 0.5)
        wrong += votes.index(max(votes)) != label
    assert knn(train, validation, test, (7,), 0.5)["test"]["accuracy"] == pytest.approx(1 - wrong / 120)


def test_the_test_images_choose_nothing():
    train, validation, test = parts()
    other = Labelled(test.features, (test.labels + 1) % CLASSES)
    for probe in (linear_probe, knn):
        one, two = probe(train, validation, test), probe(train, validation, other)
        assert one["test"] != two["test"]
        assert {**one, "test": 0} == {**two, "test": 0}


def test_the_usual_number_of_neighbours_and_the_strongest_regularisation_win_ties():
    train, validation, test = (clouds(150, seed, spread=0.0) for seed in (1, 2, 3))
    assert knn(train, validation, test)["k"] == 20
    assert linear_probe(train, validation, test)["test"]["accuracy"] == 1
    assert linear_probe(train, validation, test, (1.0, 10.0))["C"] == 1.0


def test_few_images_and_tiny_temperatures():
    train, validation, test = clouds(3, 5), clouds(4, 6), clouds(5, 7)
    assert knn(train, validation, test)["k"] in (1, 3)
    assert knn(train, validation, test, (5,))["k"] == 3  # all there are
    assert knn(train, validation, test, (3,), 1e-6)["test"] == knn(train, validation, test, (1,))["test"]


def test_scaling_a_vector_changes_no_neighbour():
    train, validation, test = parts()
    scales = np.random.default_rng(0).uniform(0.1, 10, (120, 1)).astype(np.float32)
    assert knn(train, validation, Labelled(test.features * scales, test.labels)) == knn(train, validation, test)


@pytest.mark.parametrize("probe", [linear_probe, knn])
def test_what_does_not_fit_is_refused(probe):
    train, validation, test = parts()
    narrow = Labelled(test.features[:, :3], test.labels)
    empty = Labelled(test.features[:0], test.labels[:0])
    short = Labelled(test.features, test.labels[1:])
    for wrong in (narrow, empty, short):
        with pytest.raises(DataError, match=r"^Vectors .* and labels .* do not fit; give \(images, width\)"):
            probe(train, validation, wrong)
    with pytest.raises(DataError, match=r"^Some vectors hold values that are not finite"):
        probe(train, validation, Labelled(test.features * np.float32(np.nan), test.labels))
    with pytest.raises(DataError, match=r"^The training images are of one class; a probe needs two or more$"):
        probe(Labelled(train.features, train.labels * 0), validation, test)


@pytest.mark.parametrize(("neighbours", "temperature"), [((), 0.07), ((0, 5), 0.07), ((5,), 0.0), ((5,), float("nan"))])
def test_impossible_neighbours_are_refused(neighbours, temperature):
    with pytest.raises(ConfigError, match=r"must be positive; 20 and 0\.07 are usual$"):
        knn(*parts(), neighbours, temperature)
