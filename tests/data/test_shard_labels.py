import json

import numpy as np
import pytest

from vitrail.data.shard_files import Shard
from vitrail.data.shard_index import ShardIndex
from vitrail.data.shard_labels import ShardLabels, named_classes
from vitrail.errors import DataError


def indexes_of(*labels):
    members = [f"{number}.jpg" for number in range(len(labels))]
    return [(Shard("a.tar", 1, ""), ShardIndex(members=members, labels=list(labels)))]


def meaning(*labels, named=()):
    return ShardLabels.of(indexes_of(*labels), "birds", named, "classes.txt")


def test_labels_name_the_classes():
    labels = meaning("owl", "ant", "owl")
    assert labels.classes == ("ant", "owl")
    assert labels.array(indexes_of("owl", "ant"), 1).tolist() == [1, 0, 0]


def test_numbers_are_in_their_order():
    labels = meaning(10, 9, 2)
    assert labels.classes == ("2", "9", "10")
    assert labels.array(indexes_of(9, 10), 0).tolist() == [1, 2]


def test_names_stand_for_numbers_and_for_themselves():
    assert meaning(2, 0, named=["a", "b", "c"]).array(indexes_of(1, 2), 0).tolist() == [1, 2]
    assert meaning("c", "a", named=["a", "b", "c"]).array(indexes_of("b", "c"), 0).tolist() == [1, 2]
    assert meaning(7, "x", named=["x", "7"]).array(indexes_of(7, "x"), 0).tolist() == [1, 0]


def test_lists_of_labels():
    labels = meaning(["a", "b"], [], ["c"])
    assert labels.several
    array = labels.array(indexes_of(["c", "a"], []), 1)
    assert array.dtype == np.int64
    assert array.tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_one_label_is_a_list_of_one():
    assert meaning(["a", "b"]).array(indexes_of("b", ["a"]), 0).tolist() == [[0, 1], [1, 0]]
    assert meaning("a", "b").array(indexes_of(["b"], "a"), 0).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "named", "message"),
    [
        (
            [3, "owl"],
            [],
            r"^The labels of birds mix numbers with words: a\.tar: 0\.jpg has 3, a\.tar: 1\.jpg has 'owl';",
        ),
        ([[1], 1], [], r"^a\.tar: 0\.jpg has a list of labels and a\.tar: 1\.jpg has one label; write lists for all"),
        ([3], ["a", "b"], r"^a\.tar: 0\.jpg: the label 3 is none of the 2 classes in classes\.txt$"),
        (["c"], ["a", "b"], r"^a\.tar: 0\.jpg: the label 'c' is none of the 2 classes in classes\.txt$"),
        (
            [f"caption {i}" for i in range(30)],
            [],
            r"^The 30 images of birds have 30 different labels, as captions would",
        ),
        ([], [], r"^No image of birds has a label \(its images: their lists are empty\); a shard holds 01\.cls, or"),
        ([[], []], [], r"^No image of birds has a label"),
    ],
)
def test_labels_that_do_not_fit_together_are_refused(labels, named, message):
    with pytest.raises(DataError, match=message):
        meaning(*labels, named=named)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["x"], r"^a\.tar: 0\.jpg: the label 'x' is none of the 2 classes$"),
        ([["a"], ["a", "b"]], r"^a\.tar: 1\.jpg has a list of 2 labels, and each image to train on has one label; wri"),
        ([[]], r"^a\.tar: 0\.jpg has a list of 0 labels, and"),
    ],
)
def test_labels_that_training_does_not_know_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        meaning("a", "b").array(indexes_of(*labels), 0)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classes.txt", "owl\n\nant\r\n"),
        ("classnames.txt", "\ufeffowl\nant"),
        ("dataset_info.json", json.dumps({"features": {"image": {}, "label": {"names": ["owl", "ant"]}}})),
        ("dataset-info.json", json.dumps({"classes": ["owl", "ant"]})),
    ],
)
def test_class_names_beside_the_shards_and_above_their_folder(tmp_path, file, content):
    (tmp_path / file).write_text(content, encoding="utf-8")
    for place in ("train-0.tar", "train/0.tar"):
        assert named_classes(str(tmp_path / place)) == (["owl", "ant"], str(tmp_path / file))


def test_no_class_names(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{}", encoding="utf-8")
    assert named_classes(str(tmp_path / "a.tar")) == ([], "")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classes.txt", b"owl\nant\nowl", r"classes\.txt names the class 'owl' twice; each class has one line$"),
        ("classes.txt", b"\xff\xfe", r"classes\.txt is no UTF-8; write it anew, a class a line$"),
        ("dataset_info.json", b"{", r"dataset_info\.json cannot be read as JSON \(.*\); mend it, or take it away$"),
    ],
)
def test_class_names_that_cannot_be_read_are_refused(tmp_path, file, content, message):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        named_classes(str(tmp_path / "a.tar"))
