import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.drawing import GROUP, draw_folds, draw_splits, draw_stable_splits, parse_fold
from vitrail.errors import ConfigError, DataError

RATES = {"validation": 0.1, "test": 0.2}
DRAWS = (draw_splits, draw_stable_splits)


def hashes_of(count, first=0):
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, first + count)]


def test_every_image_is_in_one_split_and_classes_keep_their_share():
    labels = np.arange(1000) % 5
    drawn = draw_splits(labels, hashes_of(1000), RATES, seed=0)
    assert list(drawn) == ["train", "validation", "test"]
    assert sorted(np.concatenate(list(drawn.values())).tolist()) == list(range(1000))
    for name, per_class in (("train", 140), ("validation", 20), ("test", 40)):
        assert drawn[name].dtype == np.int64
        assert (np.diff(drawn[name]) > 0).all()
        assert np.bincount(labels[drawn[name]]).tolist() == [per_class] * 5


def test_the_seed_decides_and_nothing_else():
    labels, hashes = np.arange(200) % 2, hashes_of(200)
    first, again, other = (draw_splits(labels, hashes, RATES, seed)["test"].tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_splits_are_these_on_every_machine():
    hashes = [hashlib.sha256(bytes([index])).hexdigest() for index in range(20)]
    drawn = draw_splits(np.zeros(20, np.int64), hashes, RATES, seed=3)
    assert {name: drawn[name].tolist() for name in RATES} == {"validation": [6, 18], "test": [7, 11, 12, 13]}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_membership_does_not_depend_on_the_order_and_equal_images_stay_together(data):
    contents = data.draw(st.lists(st.integers(0, 30), min_size=12, max_size=60))
    # Three images of each class that no other equals, so that every class can be dealt out.
    contents = [*range(100, 109), *contents]
    labels = np.array([index % 3 for index in range(len(contents))], np.int64)
    order = np.array(data.draw(st.permutations(range(len(contents)))))
    hashes = [hashlib.sha256(str(content).encode()).hexdigest() for content in contents]
    drawn = draw_splits(labels, hashes, RATES, seed=7)
    permuted = draw_splits(labels[order], [hashes[index] for index in order], RATES, seed=7)
    for name, indices in drawn.items():
        assert sorted(order[permuted[name]].tolist()) == indices.tolist()
        assert set(labels[indices].tolist()) == {0, 1, 2}
    members = [{contents[index] for index in indices} for indices in drawn.values()]
    assert sum(map(len, members)) == len(set(contents))


def test_many_equal_images_do_not_overfill_a_split():
    contents = [*range(30), *[99] * 70]
    hashes = [str(content) for content in contents]
    for seed in range(5):
        drawn = draw_splits(np.zeros(100, np.int64), hashes, RATES, seed)
        assert [len(drawn[name]) for name in ("train", "validation", "test")] == [79 - 9, 10, 20]
        assert set(range(30, 100)) <= set(drawn["train"].tolist())


def test_the_smallest_classes_get_one_image_in_each_split():
    labels = np.array([0] * 50 + [1] * 3, np.int64)
    hashes = [str(index) for index in range(53)]
    drawn = draw_splits(labels, hashes, {"validation": 0.01, "test": 0.9}, seed=0)
    assert [np.bincount(labels[indices]).tolist()[1] for indices in drawn.values()] == [1, 1, 1]
    assert all(len(indices) >= 2 for indices in drawn.values())


def test_classes_with_too_few_images_are_named():
    labels = np.array([0] * 10 + [1] * 2, np.int64)
    hashes = [str(index) for index in range(12)]
    message = r"^Class 'bee' has 2 different images; 3 are needed, one for each of train, validation, test$"
    with pytest.raises(DataError, match=message):
        draw_splits(labels, hashes, RATES, 0, ["ant", "bee"])
    with pytest.raises(
        DataError, match=r"^Class 1 has 1 different image; 2 are needed, one for each of train, validation$"
    ):
        draw_splits(labels, [*hashes[:10], "same", "same"], {"validation": 0.1}, 0)


@pytest.mark.parametrize("rates", [{"test": 0.0}, {"test": 1.0}, {"test": -0.1}, {"validation": 0.5, "test": 0.5}])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(ConfigError, match=rf"test_rate={rates['test']} is not possible; rates lie between 0 and 1"):
        draw_splits(np.zeros(9, np.int64), list("abcdefghi"), rates, 0)


# Splits of a set that may grow


def test_added_images_move_no_other():
    before = hashes_of(500)
    labels = np.arange(500) % 5
    first = draw_stable_splits(labels, before, RATES, seed=3)
    after = hashes_of(400, first=10_000) + before
    new_labels = np.concatenate([np.arange(400) % 7, labels])
    order = np.random.default_rng(0).permutation(900)
    second = draw_stable_splits(new_labels[order], [after[index] for index in order], RATES, seed=3)
    place = {after[order[index]]: split for split, indices in second.items() for index in indices.tolist()}
    for split, indices in first.items():
        assert {place[before[index]] for index in indices.tolist()} == {split}


def test_stable_splits_have_about_the_shares_asked_for():
    drawn = draw_stable_splits(np.zeros(20_000, np.int64), hashes_of(20_000), RATES, seed=0)
    assert len(drawn["test"]) == pytest.approx(4000, abs=200)
    assert len(drawn["validation"]) == pytest.approx(2000, abs=150)
    other = draw_stable_splits(np.zeros(20_000, np.int64), hashes_of(20_000), RATES, seed=1)
    assert len({*drawn["test"].tolist()} & {*other["test"].tolist()}) == pytest.approx(800, abs=120)


@settings(max_examples=60)
@given(st.integers(3, 9), st.integers(0, 1000))
def test_every_class_is_in_every_stable_split(size, seed):
    hashes = hashes_of(3 * size, first=seed * 100)
    labels = np.arange(3 * size) % 3
    drawn = draw_stable_splits(labels, hashes, RATES, seed)
    assert sorted(np.concatenate(list(drawn.values())).tolist()) == list(range(3 * size))
    for indices in drawn.values():
        assert {*labels[indices].tolist()} == {0, 1, 2}


def test_copies_stay_together_in_stable_splits():
    hashes = [f"{number % 30}" for number in range(90)]
    drawn = draw_stable_splits(np.zeros(90, np.int64), hashes, RATES, seed=0)
    contents = [{hashes[index] for index in indices.tolist()} for indices in drawn.values()]
    assert sum(map(len, contents)) == 30


def test_stable_splits_refuse_small_classes():
    with pytest.raises(DataError, match=r"^Class 'bee' has 1 different image; 3 are needed, one for each of train, v"):
        draw_stable_splits(np.array([0] * 9 + [1]), hashes_of(10), RATES, 0, ["ant", "bee"])


# Units of several images and classes


@st.composite
def grouped_images(draw, multilabel=False):
    """Labels and units of up to some 90 images: units of any size and classes, and four of each class alone."""
    units = draw(st.lists(st.integers(0, 12), min_size=5, max_size=60))
    rows = st.lists(st.integers(0, 1), min_size=3, max_size=3) if multilabel else st.integers(0, 2)
    labels = draw(st.lists(rows, min_size=len(units), max_size=len(units)))
    own = [[int(label == one) for one in range(3)] if multilabel else label for label in range(3)]
    labels = np.array([*labels, *own * 4], np.int64)
    return labels, [*(f"{GROUP}{unit}" for unit in units), *hashes_of(12)]


def classes_of(labels, indices):
    """The classes that some images have."""
    return {*np.flatnonzero(labels[indices].any(axis=0))} if labels.ndim == 2 else {*labels[indices].tolist()}


@settings(max_examples=60)
@given(case=st.booleans().flatmap(grouped_images), stable=st.booleans(), data=st.data())
def test_units_stay_whole_every_class_is_everywhere_and_the_order_does_not_matter(case, stable, data):
    labels, units = case
    draw = DRAWS[stable]
    drawn = draw(labels, units, RATES, seed=1)
    assert sorted(np.concatenate([*drawn.values()]).tolist()) == list(range(len(units)))
    homes = [{units[index] for index in indices.tolist()} for indices in drawn.values()]
    assert sum(map(len, homes)) == len({*units})
    assert all(classes_of(labels, indices) == {0, 1, 2} for indices in drawn.values())
    order = np.array(data.draw(st.permutations(range(len(units)))))
    again = draw(labels[order], [units[index] for index in order], RATES, seed=1)
    for name, indices in drawn.items():
        assert sorted(order[again[name]].tolist()) == indices.tolist()


@settings(max_examples=60)
@given(case=st.booleans().flatmap(grouped_images), num_folds=st.integers(2, 4), data=st.data())
def test_folds_keep_units_whole_and_classes_everywhere(case, num_folds, data):
    labels, units = case
    folds = draw_folds(labels, units, num_folds, seed=1)
    assert len({*zip(units, folds.tolist(), strict=True)}) == len({*units})
    for fold in range(num_folds):
        assert classes_of(labels, np.flatnonzero(folds == fold)) == {0, 1, 2}
    order = np.array(data.draw(st.permutations(range(len(units)))))
    assert draw_folds(labels[order], [units[i] for i in order], num_folds, 1).tolist() == folds[order].tolist()


def patients(count, num_classes, seed=0, size=20):
    """Images of so many patients, about `size` of each, of classes that differ from one patient to the next."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(size // 2, size * 3 // 2, count)
    labels = [rng.choice(num_classes, number, p=rng.dirichlet(np.ones(num_classes))) for number in sizes]
    units = np.repeat(np.arange(count), sizes)
    return np.concatenate(labels).astype(np.int64), [f"{GROUP}p{unit}" for unit in units]


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_about_right_for_units_of_several_classes(seed):
    labels, units = patients(100, 4)
    drawn = draw_splits(labels, units, RATES, seed)
    totals = np.bincount(labels)
    for name, rate in RATES.items():
        assert len(drawn[name]) == pytest.approx(rate * len(labels), rel=0.15)
        np.testing.assert_allclose(np.bincount(labels[drawn[name]], minlength=4) / totals, rate, atol=0.05)


def test_shares_of_labels_are_about_right_where_an_image_has_several():
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 5)) < [0.5, 0.3, 0.1, 0.02, 0.005]).astype(np.int64)
    drawn = draw_splits(labels, hashes_of(2000), RATES, seed=0)
    for name, rate in RATES.items():
        counts = labels[drawn[name]].sum(axis=0)
        assert (np.abs(counts - rate * labels.sum(axis=0)) <= 1).all()
        assert len(drawn[name]) == pytest.approx(rate * 2000, rel=0.02)


def test_rare_labels_go_to_training_first():
    labels = np.zeros((40, 3), np.int64)
    labels[:20, 0] = 1
    labels[5, 1] = labels[25, 2] = labels[30, 2] = 1
    for draw in DRAWS:
        drawn = draw(labels, hashes_of(40), RATES, seed=0)
        assert labels[drawn["train"]].any(axis=0).all()
        assert labels[drawn["train"], 2].sum() == labels[drawn["validation"], 2].sum() == 1


def test_added_units_move_no_other_and_added_images_stay_with_their_unit():
    labels, units = patients(60, 3)
    before = draw_stable_splits(labels, units, RATES, seed=0)
    more, others = patients(80, 3, seed=1)
    others = [unit.replace("p", "q", 1) if int(unit[7:]) > 20 else unit for unit in others]
    after = draw_stable_splits(np.concatenate([more, labels]), [*others, *units], RATES, seed=0)
    homes = {unit: name for name, indices in after.items() for unit in (np.array([*others, *units])[indices]).tolist()}
    for name, indices in before.items():
        assert {homes[units[index]] for index in indices.tolist()} == {name}


def test_classes_of_too_few_groups_are_named_with_them():
    labels = np.array([0] * 9 + [1] * 9, np.int64)
    units = [*hashes_of(9), *[f"{GROUP}p7"] * 5, *[f"{GROUP}p2"] * 4]
    message = (
        r"^Class 'bee' has images of 2 groups \(p2, p7\); 3 are needed, one for each of train, validation, test, so "
        r"take smaller groups or leave data\.group out$"
    )
    for draw in DRAWS:
        with pytest.raises(DataError, match=message):
            draw(labels, units, RATES, 0, ["ant", "bee"])


def test_groups_that_cannot_be_dealt_out_are_refused():
    # Three classes, each of three units, any two of which are in one of the classes: no two can go apart from the rest.
    sides = [(0, 1), (1, 2), (0, 2)]
    labels = np.array([one for side in sides for one in side], np.int64)
    units = [f"{GROUP}{number}" for number in range(3) for _ in range(2)]
    with pytest.raises(
        DataError, match=r"^Class 'b' has no image in validation that another class can do without, as they "
    ):
        draw_splits(labels, units, {"validation": 0.5}, 0, ["a", "b", "c"])


# Folds


def test_folds_are_equal_parts_of_every_class():
    labels = np.repeat(np.arange(4), [7, 20, 33, 40])
    folds = draw_folds(labels, hashes_of(100), 5, seed=0)
    assert np.bincount(folds).tolist() == [20] * 5
    for label in range(4):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert draw_folds(labels, hashes_of(100), 5, seed=1).tolist() != folds.tolist()


def test_folds_are_these_on_every_machine():
    folds = draw_folds(np.arange(10) % 2, hashes_of(10), 3, seed=3)
    assert folds.tolist() == [2, 0, 0, 1, 2, 1, 0, 2, 1, 0]


def test_folds_of_large_units_are_about_equal():
    labels, units = patients(40, 3)
    counts = np.bincount(draw_folds(labels, units, 5, seed=0))
    assert counts.max() <= 1.1 * counts.min()


def test_folds_refuse_small_classes():
    with pytest.raises(
        DataError, match=r"^Class 'bee' has 2 different images; 4 are needed, one for each of the folds "
    ):
        draw_folds(np.array([0] * 9 + [1] * 2), hashes_of(11), 4, 0, ["ant", "bee"])


def test_folds_are_read():
    assert parse_fold("2/5") == (2, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/5", "data.fold=0/5 is none of 5 folds; use 1/5 to 5/5"),
        ("6/5", "data.fold=6/5 is none of 5 folds; use 1/5 to 5/5"),
        ("1/1", "data.fold=1/1 is no fold; use 2/5 for the second of five, or another of two or more"),
        ("half", "data.fold=half is no fold; use 2/5 for the second of five, or another of two or more"),
    ],
)
def test_impossible_folds_are_refused(text, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        parse_fold(text)
