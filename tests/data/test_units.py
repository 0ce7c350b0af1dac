import logging

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vitrail.data.dataset import ImageSet
from vitrail.data.units import say_near_copies, unit_names, units_of, without_copies


def images(numbers, groups=None, prefix="i"):
    """An image for each number, equal for equal numbers."""
    pixels = np.array([np.random.default_rng(number).integers(0, 256, (8, 8, 1)) for number in numbers], np.uint8)
    names = tuple(f"{prefix}{place}" for place in range(len(numbers)))
    return ImageSet(pixels, np.zeros(len(numbers), np.int64), names, groups=groups)


def test_a_unit_is_called_after_its_content_or_its_group():
    assert unit_names(["b", "a", "b"]) == ("b", "a", "b")
    assert unit_names(["b", "a", "c"], ["", "", ""]) == ("b", "a", "c")
    assert unit_names(["b", "a", "c"], ["p2", "", "p2"]) == ("group:p2", "a", "group:p2")
    assert unit_names(["b", "a", "c"], near=np.array([5, 5, 7])) == ("a", "a", "c")


def test_what_is_joined_over_others_is_one_unit():
    hashes, groups, near = ["a", "a", "b", "c", "d"], ["", "p2", "p2", "p1", ""], np.array([0, 1, 2, 2, 3])
    assert unit_names(hashes, groups, near) == ("group:p1",) * 4 + ("d",)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(0, 9)), max_size=30), st.randoms())
def test_units_are_the_connected_images_in_any_order(rows, random):
    def named(rows):
        hashes, groups = [f"h{one}" for one, _, _ in rows], [f"p{two}" if two else "" for _, two, _ in rows]
        return unit_names(hashes, groups, np.array([three for _, _, three in rows], np.int64))

    units = named(rows)
    linked = [{place} for place in range(len(rows))]
    for first, one in enumerate(rows):
        for second, other in enumerate(rows):
            if one[0] == other[0] or (one[1] and one[1] == other[1]) or one[2] == other[2]:
                both = linked[first] | linked[second]
                for place in both:
                    linked[place] = both
    for first in range(len(rows)):
        assert {place for place, unit in enumerate(units) if unit == units[first]} == linked[first]
    order = random.sample(range(len(rows)), len(rows))
    assert named([rows[place] for place in order]) == tuple(units[place] for place in order)


def test_units_reach_over_splits():
    found = units_of("small", {"train": images([1, 2, 3], ("", "p", "")), "test": images([3, 4, 5], ("p", "", ""))})
    assert found["train"][1] == found["train"][2] == found["test"][0] == "group:p"
    assert len({*found["train"], *found["test"]}) == 4


def test_copies_leave_the_earlier_split_and_are_counted(caplog):
    splits = {
        "train": images([1, 2, 3, 4, 5, 6], ("", "p", "q", "", "", "")),
        "validation": images([3, 7, 8]),
        "test": images([1, 8, 9], ("", "", "p")),
    }
    with caplog.at_level(logging.INFO, "vitrail"):
        kept = without_copies(splits, units_of("small", splits))
    assert {name: indices.tolist() for name, indices in kept.items()} == {
        "train": [3, 4, 5],
        "validation": [0, 1],
        "test": [0, 1, 2],
    }
    assert caplog.messages == [
        "Left out of train: 2 images that test has, too (1 equal, 1 of its groups)",
        "Left out of train: 1 image that validation has, too (1 equal)",
        "Left out of validation: 1 image that test has, too (1 equal)",
    ]


def test_nothing_is_said_where_nothing_is_shared(caplog):
    splits = {"train": images([1, 2]), "test": images([3])}
    with caplog.at_level(logging.INFO, "vitrail"):
        kept = without_copies(splits, units_of("small", splits))
    assert [len(indices) for indices in kept.values()] == [2, 1]
    assert not caplog.messages


def photographs(count, seed=0):
    """Smooth images of 32 x 32, all different."""
    rough = np.random.default_rng(seed).uniform(0, 256, (count, 6, 6))
    ramp = np.linspace(0, 5, 32)
    low = np.minimum(ramp.astype(int), 4)
    weights = np.zeros((32, 6))
    weights[np.arange(32), low], weights[np.arange(32), low + 1] = 1 - (ramp - low), ramp - low
    return np.rint(weights @ rough @ weights.T).astype(np.uint8)[..., None]


def as_set(pixels):
    return ImageSet(pixels, np.zeros(len(pixels), np.int64), tuple(f"i{place}" for place in range(len(pixels))))


def test_near_copies_leave_training_and_stay_together(caplog):
    pixels, others = photographs(30), photographs(6, seed=1)
    brighter = np.clip(pixels[:3] * 0.9 + 20, 0, 255).astype(np.uint8)
    splits = {
        "train": as_set(np.concatenate([pixels, brighter])),
        "test": as_set(np.concatenate([others, pixels[5:6]])),
    }
    splits["test"].pixels[0] = np.clip(pixels[7] * 0.95 + 5, 0, 255)
    with caplog.at_level(logging.INFO, "vitrail"):
        units = units_of("small", splits)
        kept = without_copies(splits, units)
        say_near_copies(splits["train"].hashes, units["train"])
    assert units["train"][:3] == units["train"][30:]
    assert {*range(33)} - {*kept["train"].tolist()} == {5, 7}
    assert caplog.messages == [
        "Left out of train: 2 images that test has, too (1 equal, 1 nearly equal)",
        "6 images are nearly equal to others and stay in one split with them",
    ]
