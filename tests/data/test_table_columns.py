from pathlib import Path

import numpy as np
import pytest

from vitrail.data.records import ReadOptions
from vitrail.data.table_columns import choose_columns, choose_image, classes_of, encode_labels, read_labels, read_splits
from vitrail.errors import ConfigError, DataError


class Rows:
    """A table that has these columns, and rows that are found by their number."""

    path = Path("t.csv")

    def __init__(self, *columns, encoded=(), typed=False):
        self.columns, self.encoded, self.typed = columns, encoded, typed

    def place(self, row):
        return f"line {row + 2}"


def labels_of(values, *, typed=True, separator=None):
    return read_labels(Rows(typed=typed), values, separator)


@pytest.mark.parametrize(
    ("columns", "encoded", "image", "label"),
    [
        (("image", "label"), (), "image", "label"),
        (("id", "File_Name", "CLASS"), (), "File_Name", "CLASS"),
        (("path", "photo", "label"), ("photo",), "photo", "label"),
        (("img", "mask", "label"), ("img", "mask"), "img", "label"),
    ],
)
def test_columns_are_found_by_name_and_type(columns, encoded, image, label):
    chosen = choose_columns(Rows(*columns, encoded=encoded), ReadOptions(), splits=True)
    assert (chosen.image, chosen.label, chosen.split, chosen.group) == (image, label, None, None)


def test_a_column_called_split_is_read_where_no_split_is_known():
    table = Rows("image", "label", "Split", "patient")
    assert choose_columns(table, ReadOptions(), splits=True).split == "Split"
    assert choose_columns(table, ReadOptions(), splits=False).split is None
    asked = choose_columns(table, ReadOptions(split_column="patient", group_column="patient"), splits=True)
    assert (asked.split, asked.group) == ("patient", "patient")
    assert asked.names() == ["label", "patient"]


@pytest.mark.parametrize(
    ("columns", "options", "kind", "message"),
    [
        (
            ("label",),
            {},
            DataError,
            r"has no column named image, img, file_name or the like; its columns are label: say",
        ),
        (
            ("image", "kind"),
            {},
            DataError,
            r"its columns are image, kind: say which holds the labels with --set data\.la",
        ),
        (
            ("image", "path", "label"),
            {},
            DataError,
            r"^t\.csv has several columns that may hold the images, image, path; say which with "
            r"--set data\.image_column=image$",
        ),
        (("image", "label", "label"), {}, DataError, r"has 2 columns named 'label'; rename all but one$"),
        (("image", "x", "x"), {"label_column": "x"}, DataError, r"has 2 columns named 'x'; rename all but one$"),
        (
            ("image", "label"),
            {"label_column": "lable"},
            ConfigError,
            r"^t\.csv has no column 'lable'\. Did you mean 'label'\? Its columns are image, label; "
            r"choose one with --set data\.label_column=NAME$",
        ),
        (
            ("image", "label"),
            {"group_column": "who"},
            ConfigError,
            r"has no column 'who'\. Its columns .*group_column=NA",
        ),
        (("image", "label"), {"split_column": "part"}, ConfigError, r"has no column 'part'.*data\.split_column=NAME$"),
        (
            ("ants/1.jpg", "ant"),
            {},
            DataError,
            r"^t\.csv has no line of column names, it begins with 'ants/1\.jpg, ant'; let it begin with a line such",
        ),
    ],
)
def test_columns_that_are_not_clear_are_refused(columns, options, kind, message):
    with pytest.raises(kind, match=message):
        choose_columns(Rows(*columns), ReadOptions(**options), splits=True)


def test_columns_of_one_type_are_not_chosen_between():
    with pytest.raises(DataError, match=r"several columns that may hold the images, left, right; say which"):
        choose_image(Rows("left", "right", encoded=("left", "right")))
    assert choose_image(Rows("left", "right", encoded=("left", "right")), "right") == "right"


@pytest.mark.parametrize(
    ("values", "typed", "classes"),
    [
        (["bee", " ant", "bee"], False, ("ant", "bee")),
        (["10", "9", "10"], False, ("9", "10")),
        (["2.0", "10.0"], False, ("2", "10")),
        (["01", "10"], False, ("01", "10")),
        ([10, 9, 10], True, ("9", "10")),
        ([2.0, 10.0], True, ("2", "10")),
        ([True, False], True, ("False", "True")),
        (["10", "9"], True, ("9", "10")),
        (["747", "A320"], True, ("747", "A320")),
        (["1.5", "NA"], True, ("1.5", "NA")),
        ([["b", "a"], [], ["c"]], True, ("a", "b", "c")),
        ([[10], [9, 9]], True, ("9", "10")),
    ],
)
def test_classes_are_the_labels_in_their_order(values, typed, classes):
    assert classes_of(labels_of(values, typed=typed)) == classes


def test_labels_become_places():
    labels = labels_of(["b", "a", "b"])
    assert encode_labels(Rows(), labels, ("a", "b", "c"), named=False).tolist() == [1, 0, 1]
    several = labels_of([["b", "b"], [], ["a", "b"]])
    np.testing.assert_array_equal(
        encode_labels(Rows(), several, ("a", "b", "c"), named=True), [[0, 1, 0], [0, 0, 0], [1, 1, 0]]
    )
    assert encode_labels(Rows(typed=True), labels_of([2, 0]), ("1", "2", "3"), named=True).tolist() == [2, 0]
    assert encode_labels(Rows(typed=True), labels_of([3, 1]), ("1", "2", "3"), named=False).tolist() == [2, 0]
    text = labels_of(["2", "1"], typed=False)
    assert encode_labels(Rows(), text, ("1", "2", "3"), named=True).tolist() == [1, 0]
    assert encode_labels(Rows(), text, ("x", "y", "z"), named=True).tolist() == [2, 1]


def test_texts_are_split_where_that_is_asked_for():
    labels = labels_of(["a| b", "", "c", "c|"], typed=False, separator="|")
    assert classes_of(labels) == ("a", "b", "c")
    marks = encode_labels(Rows(), labels, ("a", "b", "c"), named=False)
    assert marks.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_labels_of_some_rows():
    labels = labels_of(["c", "a", "b", "a"])
    some = labels.among(np.array([False, True, False, True]))
    assert (some.names, some.codes.tolist(), some.rows.tolist()) == (["a"], [0, 0], [1, 3])


@pytest.mark.parametrize(
    ("values", "typed", "message"),
    [
        (
            ["", "a", None, float("nan"), " "],
            False,
            r"4 rows have no label \(line 2, line 4, line 5 and 1 more\); give",
        ),
        (["a", ""], False, r"^t\.csv: 1 row has no label \(line 3\); give each a label, or take it out of the table$"),
        ([["a"], None], True, r"1 row has no label \(line 3\)"),
        ([["a"], "b"], True, r"1 row has no label \(line 3\)"),
        (["a", "0.5"], False, r"the label of line 3 is 0\.5; a label is a class's name or whole number, or a list of"),
        ([1, 0.5], True, r"the label of line 3 is 0\.5; a label"),
        ([{"a": 1}], True, r"the label of line 2 is \{'a': 1\}; a label"),
        (
            ["ant", "7", "bee"],
            False,
            r"^t\.csv: the label of line 2 is the word 'ant', that of line 3 the number 7; name all classes by words "
            r"or all by whole numbers, or write labels as texts into a table in JSON Lines$",
        ),
        ([3, "bee"], True, r"line 2 is the number 3, that of line 3 the word 'bee'; name all .* by whole numbers$"),
        ([3, True], True, r"line 2 is the number 3, that of line 3 the value True; name all"),
        (["1", "01"], False, r"the label of line 3 is '01', and others are '1'; write a number in one way$"),
    ],
)
def test_labels_that_name_no_class_are_refused(values, typed, message):
    with pytest.raises(DataError, match=message):
        labels_of(values, typed=typed)


def test_labels_that_are_no_class_are_named():
    with pytest.raises(DataError, match=r"^t\.csv: the label of line 3 is 'c', none of the 2 classes \(a, b\)$"):
        encode_labels(Rows(), labels_of(["a", "c"]), ("a", "b"), named=False)
    with pytest.raises(DataError, match=r"the label of line 2 is '5', none of the 2 classes \(numbers from 0 to 1\)$"):
        encode_labels(Rows(typed=True), labels_of([5]), ("a", "b"), named=True)


def test_splits_have_many_names():
    assert read_splits(Rows(), ["Train", "val", "dev ", "TEST"], "split") == ["train", *["validation"] * 2, "test"]
    for wrong, said in (("fold 3", "says 'fold 3'"), ("", "says nothing"), (None, "says nothing"), (2, "says 2")):
        with pytest.raises(DataError, match=rf"^t\.csv: line 3 {said} in the column 'part', where each row says train"):
            read_splits(Rows(), ["train", wrong], "part")
