import numpy as np

from vitrail.data.pixels import num_cores
from vitrail.data.records import NUM_REQUESTS, Records, num_threads

RECORDS = Records(
    "here",
    ["a", "b", "c"],
    np.array([0, 1, 2]),
    lambda index: b"abc"[index : index + 1],
    lambda index: (index, 0, 0),
    ["x", "y", "z"],
)


def test_some_of_them_are_records_too():
    some = RECORDS.take([2, 0])
    assert (len(some), list(some.names), some.labels.tolist(), some.groups) == (2, ["c", "a"], [2, 0], ["z", "x"])
    assert [some.read(0), some.read(1)] == [b"c", b"a"]
    assert some.stamp(0) == (2, 0, 0)


def test_other_images_have_another_key():
    keys = {RECORDS.key, *(RECORDS.take(chosen).key for chosen in ([0, 1], [1, 0], [0, 1, 2]))}
    assert len(keys) == 4
    assert RECORDS.take([0, 1]).key == RECORDS.take(np.array([0, 1])).key


def test_threads_are_no_more_than_cores_unless_they_wait():
    cores = num_cores()
    assert [num_threads(wanted, remote=False) for wanted in (None, 1, cores + 9)] == [cores, 1, cores]
    assert [num_threads(wanted, remote=True) for wanted in (None, 1, 99)] == [NUM_REQUESTS, NUM_REQUESTS, 99]
