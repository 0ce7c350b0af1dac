import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vitrail.data.strata import label_strata

SETS = st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=60)


def test_an_image_stands_for_the_rarest_of_its_labels():
    labels = np.array([[1, 0, 0]] * 6 + [[1, 1, 0]] * 3 + [[1, 1, 1]] * 2 + [[0, 0, 0]] * 4)
    assert label_strata(labels, 1).tolist() == [0] * 6 + [1] * 3 + [2] * 2 + [3] * 4


def test_small_strata_are_laid_together_with_the_next_rarest():
    labels = np.array([[1, 0, 0]] * 6 + [[1, 1, 0]] * 3 + [[1, 1, 1]] * 2)
    assert label_strata(labels, 3).tolist() == [0] * 6 + [1] * 5
    assert label_strata(labels, 7).tolist() == [0] * 11
    assert label_strata(np.concatenate([labels, labels[:1] * 0]), 3).tolist() == [0] * 6 + [1] * 5 + [0]
    assert {*label_strata(labels, 20).tolist()} == {0}


@given(SETS, st.integers(1, 8))
def test_every_stratum_is_large_enough_to_draw_from(labels, fewest):
    strata = label_strata(np.array(labels), fewest)
    assert strata.shape == (len(labels),)
    assert strata.dtype == np.int64
    sizes = np.bincount(strata)
    assert sizes[sizes > 0].min() >= min(fewest, len(labels))


@given(SETS)
def test_equal_labels_are_one_stratum_whatever_their_order(labels):
    found = dict(zip(map(tuple, labels), label_strata(np.array(labels), 3).tolist(), strict=True))
    again = label_strata(np.array(labels[::-1]), 3).tolist()
    assert again == [found[tuple(row)] for row in labels[::-1]]
