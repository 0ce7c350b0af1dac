import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrail.data.order import balanced_order

LONG_TAIL = np.repeat(np.arange(4, dtype=np.int64), (100, 20, 6, 1))


def test_every_class_is_drawn_equally_often():
    order = balanced_order(LONG_TAIL, seed=0, epoch=3)
    assert order.dtype == np.int64
    assert len(order) == len(LONG_TAIL) == 127
    assert sorted(np.bincount(LONG_TAIL[order])) == [31, 32, 32, 32]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_is_as_long_as_ever_and_balanced(labels, seed, epoch):
    labels = np.array(labels, np.int64)
    order = balanced_order(labels, seed, epoch)
    assert len(order) == len(labels)
    drawn = np.bincount(labels[order], minlength=6)[np.unique(labels)]
    assert drawn.max() - drawn.min() <= 1


def test_over_epochs_the_classes_are_equal_and_their_images_come_in_turn():
    drawn = np.concatenate([balanced_order(LONG_TAIL, 5, epoch) for epoch in range(8)])
    assert np.bincount(LONG_TAIL[drawn]).tolist() == [254] * 4
    times = np.bincount(drawn, minlength=127)
    for label in range(4):
        own = times[label == LONG_TAIL]
        assert own.max() - own.min() <= 1, label


def test_no_image_of_a_large_class_is_drawn_twice_in_a_round():
    order = balanced_order(LONG_TAIL, 0, 0)
    large = order[LONG_TAIL[order] == 0]
    assert len({*large.tolist()}) == len(large)


def test_it_depends_on_seed_and_epoch_alone():
    np.random.default_rng()
    first = balanced_order(LONG_TAIL, 1, 2)
    np.random.rand(3)
    assert (balanced_order(LONG_TAIL, 1, 2) == first).all()
    assert (balanced_order(LONG_TAIL, 1, 3) != first).any()
    assert (balanced_order(LONG_TAIL, 2, 2) != first).any()


def test_classes_are_mixed():
    labels = LONG_TAIL[balanced_order(LONG_TAIL, 0, 0)]
    assert (np.diff(labels) != 0).sum() > 60  # about 95 of 126; sorted by class 3


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_balanced_set_is_gone_through_once_an_epoch(epoch):
    labels = np.arange(30, dtype=np.int64) % 3
    assert sorted(balanced_order(labels, 0, epoch).tolist()) == list(range(30))


def test_fewer_may_be_drawn_in_an_epoch():
    drawn = [balanced_order(LONG_TAIL, 0, epoch, 10) for epoch in range(40)]
    assert {len(order) for order in drawn} == {10}
    assert np.bincount(LONG_TAIL[np.concatenate(drawn)]).tolist() == [100] * 4
    assert np.bincount(np.concatenate(drawn)).tolist()[:100] == [1] * 100
